"""The same function for many items on all cores, in order, with few of them in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

from tfinpaint.system.activity import report_activity

Item = TypeVar("Item")
Result = TypeVar("Result")

BLOCK = 1024  # items of little work that a thread is given at once
AHEAD = 8  # items a thread that have been begun and whose results are not used yet


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """As `map`, for functions that release the interpreter: Pillow, hashlib, zlib and the file system do."""
    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        left = iter(items)
        begun = deque(pool.submit(function, item) for item in islice(left, threads * AHEAD))
        while begun:
            yield begun.popleft().result()
            report_activity()
            begun.extend(pool.submit(function, item) for item in islice(left, 1))


def parallel_map_blocks(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """As `in_threads`, for functions that take microseconds, such as a look at a file's size."""

    def of_block(first: int) -> list[Result]:
        return [function(item) for item in items[first : first + BLOCK]]

    return chain.from_iterable(parallel_map(of_block, range(0, len(items), BLOCK)))
