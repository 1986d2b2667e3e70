"""Apply a function to many items on all cores, in order, with few results in memory."""

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

BLOCK = 1024  # items of little work that a thread gets at once
AHEAD = 8  # items per thread that are begun before their results are used


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Apply a function to all items as `map` does, in threads.

    It helps functions that release the interpreter, as those of Pillow, hashlib, zlib and the file system do.
    """
    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        left = iter(items)
        begun = deque(pool.submit(function, item) for item in islice(left, threads * AHEAD))
        while begun:
            yield begun.popleft().result()
            report_activity()
            begun.extend(pool.submit(function, item) for item in islice(left, 1))


def parallel_map_blocks(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Apply a function as `parallel_map` does, if it takes only microseconds, such as reading the size of a file."""

    def of_block(first: int) -> list[Result]:
        return [function(item) for item in items[first : first + BLOCK]]

    return chain.from_iterable(parallel_map(of_block, range(0, len(items), BLOCK)))
