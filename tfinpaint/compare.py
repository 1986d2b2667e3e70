"""Compare finished runs: a table on the terminal, and one report of them all.

usage: python -m tfinpaint.compare --report runs/demo/report.html runs/demo/pretrain runs/demo/pretrained ...
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.errors import UserError

MOST_SENTENCES = 10  # on the terminal; the report has all
LEAST_COLUMNS = 3  # shown even on a narrow terminal
PLAIN_WIDTH = 100  # characters of a table's line if the output is not a terminal


def print_table(title: str, table: Sequence[Sequence[Any]], width: int) -> None:
    """Print a table that fits a width in characters: names are wrapped, and numbers are not broken.

    Columns with equal values in all rows are summed up in a line below. If the others do not fit, the last ones are
    omitted; the report has them.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [[_shown(cell) for cell in row] for row in table]
    same = [i for i in range(2, len(lines[0])) if len(lines) > 2 and len({row[i] for row in lines[1:]}) == 1]
    kept = [i for i in range(len(lines[0])) if i not in same]
    widths = {
        i: max(len(word) for row in lines for word in (row[i].split() if row is lines[0] else [row[i]])) for i in kept
    }
    names = min(widths[0], width // 3)
    while len(kept) > LEAST_COLUMNS and names + sum(widths[i] + 3 for i in kept[1:]) + 2 > width:
        kept.pop()
    shown = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 1), pad_edge=False)
    for i in kept:
        least = widths[i] if i else names
        shown.add_column(lines[0][i], justify="right" if i else "left", min_width=least, overflow="fold")
    for row in lines[1:]:
        shown.add_row(*(Text(row[i]) for i in kept))
    console = Console(width=width, highlight=False)
    console.print(shown)
    if same:
        console.print(Text("Equal in all runs: " + ", ".join(f"{lines[0][i]} {lines[1][i]}" for i in same)))


def _shown(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("compare")
        parser.add_argument("runs", type=Path, nargs="+", help="run folders")
        parser.add_argument("--report", type=Path, default=Path("comparison.html"), help="page to write")
        parsed = parser.parse_args(arguments)
        from tfinpaint.report.comparison import write_comparison  # loads matplotlib

        try:
            compared = write_comparison(parsed.runs, parsed.report)
        except OSError as error:
            raise UserError(f"{parsed.report}: the report cannot be written: {error.strerror}") from None
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH
        for title, table in compared.tables.items():
            print_table(title, table, width)
        print("\n".join(compared.sentences[:MOST_SENTENCES]))
        print(f"Report (open it in a browser): {parsed.report}")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
