"""Print tables on the terminal."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfinpaint.data.listing.walk import printable
from tfinpaint.report.cells import columns_alike, shown

if TYPE_CHECKING:
    from rich.console import Console

LEAST_COLUMNS = 3  # shown even on a narrow terminal
LEAST_WRAPPED = 10  # characters of a column whose cells may be broken
PLAIN_WIDTH = 100  # characters of a line of text if the output is not a terminal
UNLIMITED = 10_000  # characters of a table's line if the output is not a terminal: every column is shown


def text_width() -> int:
    """Return the width of the terminal in characters, or PLAIN_WIDTH if the output is not one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH


def table_width() -> int:
    """Return the width of the terminal in characters, or UNLIMITED if the output is not one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED


def print_table(title: str, table: Sequence[Sequence[Any]], width: int, rows: str) -> None:
    """Print a table that fits a width in characters: names are wrapped, and numbers are not broken.

    The numbers of a column have equally many decimals. Columns with equal values in all rows are summed up in a line
    below. If the others do not fit, the last ones are omitted, and a line below has their number.

    Args:
        table: a heading row, then the others.
        rows: what the rows are, in the plural.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [[printable(shown(cell)) for cell in row] for row in columns_alike(table)]
    same = [i for i in range(2, len(lines[0])) if len(lines) > 2 and len({row[i] for row in lines[1:]}) == 1]
    kept = [i for i in range(len(lines[0])) if i not in same]
    widths = {
        i: max(len(word) for row in lines for word in (row[i].split() if row is lines[0] else [row[i]])) for i in kept
    }
    names = min(widths[0], width // 3)
    while len(kept) > LEAST_COLUMNS and names + sum(widths[i] + 3 for i in kept[1:]) + 2 > width:
        kept.pop()
    spare = width - 2 - names - sum(widths[i] + 3 for i in kept[1:])
    printed = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 1), pad_edge=False)
    for i in kept:  # whole names and headings, the first ones before the others, where there is room
        least = widths[i] if i else names
        more = max(0, min(max(len(row[i]) for row in lines) - least, spare))
        spare -= more
        printed.add_column(lines[0][i], justify="right" if i else "left", width=least + more, overflow="fold")
    for row in lines[1:]:
        printed.add_row(*(Text(row[i]) for i in kept))
    console = Console(width=width, highlight=False)
    console.print(printed)
    if same:
        console.print(Text(f"Equal in all {rows}: " + ", ".join(f"{lines[0][i]} {lines[1][i]}" for i in same)))
    _tell_omitted(console, len(lines[0]) - len(same) - len(kept))


def print_listing(table: Sequence[Sequence[str]], width: int, wrapped: Sequence[int] = (0,)) -> None:
    """Print a table without rules that fits a width in characters; if it does not, the last columns are omitted.

    A line below has the number of omitted columns.

    Args:
        table: a heading row, then the others.
        wrapped: the columns whose cells may be broken, behind a slash, a dash, an underscore or a space where there is
            room for the longest word, else at any character; other cells stay on one line.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = [[printable(cell) for cell in row] for row in table]
    whole = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    gap = 2 if sum(whole) + 2 * (len(whole) - 1) <= width else 1
    least = [min(size, LEAST_WRAPPED) if i in wrapped else size for i, size in enumerate(whole)]
    kept = len(least)
    while kept > 2 and sum(least[:kept]) + gap * (kept - 1) > width:
        kept -= 1
    words = [max(len(word) for row in table for word in _words(row[i])) for i in range(kept)]
    widths = _grown(_grown(least[:kept], words, width - gap * (kept - 1)), whole[:kept], width - gap * (kept - 1))
    printed = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False)
    for i in range(kept):
        printed.add_column(Text(table[0][i]), width=widths[i], no_wrap=i not in wrapped, overflow="fold")
    for row in table[1:]:
        printed.add_row(*(Text(_broken(cell, size)) for cell, size in zip(row, widths, strict=False)))
    console = Console(width=width, highlight=False)
    console.print(printed)
    _tell_omitted(console, len(least) - kept)


def _words(cell: str) -> list[str]:
    """Return the parts of a cell behind which a line may end; at least one."""
    return re.findall(r"[^/_ -]*[/_ -]+|[^/_ -]+", cell) or [cell]


def _grown(widths: Sequence[int], wanted: Sequence[int], most: int) -> list[int]:
    """Return widths of columns, each grown to what is wanted as far as their sum allows, the first ones first."""
    spare, grown = most - sum(widths), []
    for width, want in zip(widths, wanted, strict=True):
        more = max(0, min(want - width, spare))
        spare -= more
        grown.append(width + more)
    return grown


def _broken(cell: str, width: int) -> str:
    """Return a cell with line ends behind words, so that no line is wider where its words are not."""
    lines = [""]
    for word in _words(cell):
        if len((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in lines if line)


def _tell_omitted(console: Console, columns: int) -> None:
    if columns:
        these = "1 column does" if columns == 1 else f"{columns} columns do"
        console.print(f"{these} not fit into this terminal; widen it, or add | cat, to see all")
