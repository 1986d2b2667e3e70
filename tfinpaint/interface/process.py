"""What each call of the interface does with the process that it is called in: as little as possible, and undone."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfinpaint.cli.command import NOISY
from tfinpaint.config.schema import Config
from tfinpaint.config.values import plain
from tfinpaint.distributed.environment import launched_rank
from tfinpaint.system import streams

FilePath = str | os.PathLike[str]

_one_at_a_time = threading.RLock()  # precision and seeds are those of the whole process


def as_path(given: FilePath) -> Path:
    """Return a path that a caller has given; `~` is the home folder, as in a configuration."""
    return Path(given).expanduser()


@contextmanager
def one_call(verbose: bool) -> Iterator[None]:
    """Run a call within a `with` statement, after those of other threads.

    Args:
        verbose: print what the package logs, on rank 0 from INFO on, as the commands do. In any case it is logged by
            the loggers below `tfinpaint`.
    """
    logger = logging.getLogger("tfinpaint")
    # Without any handler, Python itself prints warnings to the standard error.
    handler = streams.CurrentStdout() if verbose else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    levels = dict.fromkeys(NOISY, logging.ERROR)
    if verbose:
        levels["tfinpaint"] = logging.WARNING if launched_rank() else logging.INFO
    with _one_at_a_time, _levels(levels):
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


@contextmanager
def _levels(levels: Mapping[str, int]) -> Iterator[None]:
    """Set the levels of loggers within a `with` statement."""
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """Return a call of the package as Python text, for reports."""
    texts = (
        f"{key}={'Config(...)' if isinstance(value, Config) else repr(plain(value))}"
        for key, value in arguments.items()
    )
    return f"tfinpaint.{name}({', '.join(texts)})"
