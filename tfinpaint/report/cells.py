"""What a cell of a report's table may be beside a number or a text."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True)
class Best:
    """The best value of its row or column."""

    value: Any

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Code:
    """A text that can be typed, such as a command."""

    text: str


@dataclass(frozen=True)
class Link:
    """A text that leads to another page.

    Attributes:
        address: relative to the page, so that it stays right when both are moved.
    """

    text: str
    address: str


def link_to(page: Path, folder: Path, text: str) -> Link | str:
    """Return a link from a page in `folder` to another page or folder; the text alone where that does not exist."""
    if not page.exists():
        return text
    return Link(text, quote(os.fsencode(os.path.relpath(page.resolve(), folder.resolve()))))


def shown(cell: Any) -> str:
    """Return the text of a number or another value; "" for none."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if 1e4 <= abs(cell) < 1e9 else f"{cell:.4g}"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def columns_alike(table: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return a table in which the numbers of each column, below the heading row, have equally many decimals."""
    head, *rows = table
    columns = map(decimals_alike, zip(*rows, strict=True))
    return [list(head), *map(list, zip(*columns, strict=True))]


def decimals_alike(cells: Sequence[Any]) -> list[Any]:
    """Return the cells of one quantity, whose numbers become texts of equally many decimals.

    These are as many as `shown` gives the number that needs most. Where a number has an exponent, and for all other
    kinds of cells, nothing changes.
    """
    values = [cell.value if isinstance(cell, Best) else cell for cell in cells]
    are_numbers = [isinstance(value, float) and math.isfinite(value) for value in values]
    texts = [shown(value) for value, is_number in zip(values, are_numbers, strict=True) if is_number]
    if any("e" in text for text in texts):
        return list(cells)
    most = max((len(text.partition(".")[2]) for text in texts), default=0)
    alike = [f"{value:,.{most}f}" if is_number else value for value, is_number in zip(values, are_numbers, strict=True)]
    return [Best(text) if isinstance(cell, Best) else text for cell, text in zip(cells, alike, strict=True)]
