"""Keep commands running when nobody reads their output, or when it cannot be written because the disk is full."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import sys
from typing import Any, TextIO

TERMINAL = "TFINPAINT_TERMINAL"  # environment variable: the terminal that rank 0 writes its standard output to

# The reader has gone, or the terminal has been closed.
_NOBODY_READS = {errno.EPIPE, errno.EIO, errno.ENXIO, errno.ECONNRESET}


class LenientStream(io.TextIOWrapper):
    """A standard stream that drops what cannot be written, from the first failure on.

    Attributes:
        failure: why the stream could not be written, such as "No space left on device"; "" without a failure, or if its
            reader has gone.
        replaced: the original stream, kept because it would close the shared buffer if it were collected.
    """

    failure = ""
    replaced: TextIO | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if isinstance(error, BlockingIOError):  # another process with the same pipe has made it non-blocking
            os.set_blocking(self.fileno(), True)
            self.flush()
            return
        if error.errno not in _NOBODY_READS:
            self.failure = error.strerror or str(error)
        # What is still in a buffer, or comes from a C library, is discarded too, so that the last flush succeeds.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        if self.failure and self is not sys.stderr:
            print(f"warning: standard output: {self.failure}; what follows is not shown", file=sys.stderr, flush=True)


def make_lenient() -> None:
    """Let no failure to print end this process. Streams that others have replaced stay as they are."""
    sys.stdout, sys.stderr = _lenient(sys.stdout), _lenient(sys.stderr)


def _lenient(stream: TextIO) -> TextIO:
    if type(stream) is not io.TextIOWrapper:  # of a notebook or a test, or lenient already
        return stream
    with contextlib.suppress(OSError):  # the new stream meets the same error again
        stream.flush()
    lenient = LenientStream(
        stream.buffer,
        encoding=stream.encoding,
        errors="backslashreplace",  # the name of a file need not be valid text
        # PYTHONUNBUFFERED would have `print` write the end of a line by itself, after what another rank prints.
        line_buffering=stream.line_buffering or stream.write_through,
    )
    lenient.replaced = stream
    return lenient


def use_terminal() -> None:
    """Write standard output to the terminal that TERMINAL names, past a launcher that would put tags in front of lines.

    Without that variable, or where the terminal cannot be opened, nothing changes.
    """
    if not (path := os.environ.get(TERMINAL)):
        return
    try:
        terminal = os.open(path, os.O_WRONLY | os.O_NOCTTY)
    except OSError:
        return
    sys.stdout.flush()
    os.dup2(terminal, 1)
    os.close(terminal)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def has_terminal() -> bool:
    """Return True if standard output is the terminal that TERMINAL names."""
    try:
        return os.ttyname(1) == os.environ.get(TERMINAL)
    except OSError:
        return False


def failure_of_output() -> str:
    """Return why standard output could not be written; "" without a failure, or if its reader has gone."""
    return getattr(sys.stdout, "failure", "")


class CurrentStdout(logging.StreamHandler):
    """A log handler that looks up `sys.stdout` for each record, since a progress bar may replace it meanwhile."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout
