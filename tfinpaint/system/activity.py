"""Signs of work of this process, so that the heartbeats (`watch`) tell a rank that takes long from one that hangs.

Whatever may take minutes calls `sign` for each thing done: a file, an image, a batch, a block of bytes. Threads may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_signs = 0


def report_activity() -> None:
    """Count one more thing done."""
    global _signs
    _signs += 1  # an increment that two threads make at the same moment may be lost: one of them is enough


def activity_count() -> int:
    """Return how many things were done; only whether it has grown means something."""
    return _signs


def reporting_activity(items: Iterable[Item]) -> Iterator[Item]:
    """Return the items as they come, with a sign for each."""
    for item in items:
        report_activity()
        yield item
