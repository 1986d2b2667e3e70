"""Log how long work with files will take, a line now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")

INTERVAL_SECONDS = 15.0


def log_progress(items: Iterable[Item], total: int, doing: str) -> Iterator[Item]:
    """Yield the items; log the progress of long work every 15 seconds, as in "Doing: 17 of 99, 3 min 5 s left".

    Args:
        total: how many items there will be, at least 1.
    """
    began = told = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - told > INTERVAL_SECONDS and done < total:
            told = now
            log.info(f"{doing}: {done} of {total}, {duration((now - began) / done * (total - done))} left")


def duration(seconds: float) -> str:
    """Return a duration such as "1 h 2 min"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
