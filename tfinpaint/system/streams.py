"""Standard output and error that nobody needs to read: a reader that goes away, or a full disk, ends no command."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import sys
from typing import Any, TextIO

# The reader has gone, or the terminal has been closed: nobody is there to be told.
_NOBODY_READS = {errno.EPIPE, errno.EIO, errno.ENXIO, errno.ECONNRESET}


class LenientStream(io.TextIOWrapper):
    """A standard stream that drops what cannot be written, from the first failure on.

    Attributes:
        failure: why the stream could not be written, such as "No space left on device"; "" where all is well, or where
            its reader has gone away.
        replaced: the stream in whose place this one is; it would close the buffer of both if it were collected.
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
        if isinstance(error, BlockingIOError):  # somebody who has the same pipe has made it non-blocking
            os.set_blocking(self.fileno(), True)
            self.flush()
            return
        if error.errno not in _NOBODY_READS:
            self.failure = error.strerror or str(error)
        # What is still in a buffer, or comes from a library in C, goes there too. So the last flush succeeds.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        if self.failure and self is not sys.stderr:
            print(f"warning: standard output: {self.failure}; what follows is not shown", file=sys.stderr, flush=True)


def make_lenient() -> None:
    """Let nothing that this process prints end it. Streams that others have put in place are left alone."""
    sys.stdout, sys.stderr = _lenient(sys.stdout), _lenient(sys.stderr)


def _lenient(stream: TextIO) -> TextIO:
    if type(stream) is not io.TextIOWrapper:  # a notebook's, a test's, or lenient already
        return stream
    with contextlib.suppress(OSError):  # the new stream meets the same error again
        stream.flush()
    lenient = LenientStream(
        stream.buffer,
        encoding=stream.encoding,
        errors="backslashreplace",  # names of files need not be text
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    lenient.replaced = stream
    return lenient


def failure_of_output() -> str:
    """Return why standard output could not be written; "" where it could, or where its reader has gone away."""
    return getattr(sys.stdout, "failure", "")


class CurrentStdout(logging.StreamHandler):
    """A log handler that writes to what `sys.stdout` is at each record, such as a progress bar's stand-in."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout
