"""Count signs of work of this process, by which `distributed.heartbeat` distinguishes a slow rank from one that hangs.

Code that may run for minutes calls `report_activity` for each file, image, batch or block of bytes; any thread may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_signs = 0


def report_activity() -> None:
    """Count one more sign of work."""
    global _signs
    _signs += 1  # if two threads increment it at the same moment, one increment may be lost, which does no harm


def activity_count() -> int:
    """Return the number of signs so far; it is only meaningful whether it has grown."""
    return _signs


def reporting_activity(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, and report activity for each."""
    for item in items:
        report_activity()
        yield item
