"""Open files for decoding: regular files only, and small ones read at once."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from tfinpaint.data.images.unreadable import UnreadableImageError

SMALL_BYTES = 2**20  # a file of up to so many bytes is read at once


@contextmanager
def open_stream(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for reading, at its beginning.

    Threads that decode images wait for one another at every access to a file, and Pillow makes a dozen of them. To a
    small file there is one here; the stream is its contents.

    Raises:
        UnreadableImageError: it is a pipe or a device.
        OSError: it cannot be opened or read.
    """
    with open(path, "rb", buffering=0, opener=_open_regular) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= SMALL_BYTES and len(contents := file.read(size)) == size:
            yield io.BytesIO(contents)
        else:
            file.seek(0)
            yield io.BufferedReader(file)


def _open_regular(path: str, flags: int) -> int:
    """Open a regular file; reading a pipe or a device might never end."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # `open` has a message for a folder
        return descriptor
    os.close(descriptor)
    raise UnreadableImageError(f"not an image: {'a pipe' if stat.S_ISFIFO(mode) else 'a device'}")
