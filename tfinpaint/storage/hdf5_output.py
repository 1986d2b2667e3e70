"""Write new HDF5 files to a disk that may become full meanwhile.

HDF5 does not survive an error of writing: a file that cannot be flushed cannot be closed either, and the process may
crash when it ends. Here HDF5 writes through an object that never fails. The first error is kept, and raised once HDF5
has closed the file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tfinpaint.storage.write_errors import naming_file
from tfinpaint.system.activity import report_activity

if TYPE_CHECKING:
    from typing_extensions import Buffer


class HDF5Output(io.BytesIO):
    """A new file that h5py and Keras accept in place of a path; Keras accepts only an `io.BytesIO`.

    What is written after the first error stays in memory, since HDF5 may read it again before it closes the file.
    """

    def __init__(self, path: Path) -> None:
        """Create the file, or truncate an existing one.

        Raises:
            OSError: The file cannot be opened.
        """
        super().__init__()
        self._path = path
        self._number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._place = self._end = 0
        self._error: OSError | None = None
        self._unwritten: list[tuple[int, bytes]] = []

    def __str__(self) -> str:
        return str(self._path)  # Keras reads the format from the suffix

    def check(self) -> None:
        """Raise the first OSError that writing caused, if there was one."""
        if self._error:
            raise OSError(self._error.errno, self._error.strerror, str(self._path))

    def write(self, data: Buffer) -> int:
        """Write all bytes at the current position, or keep them in memory after an error."""
        left, begin = memoryview(data).cast("B"), self._place
        self._place += len(left)
        self._end = max(self._end, self._place)
        size = len(left)
        try:
            while left and not self._error:
                done = os.pwrite(self._number, left, begin)
                left, begin = left[done:], begin + done
                report_activity()
        except OSError as error:
            self._error = error
        if left:
            self._unwritten.append((begin, bytes(left)))
        return size

    def readinto(self, buffer: Buffer) -> int:
        """Fill the buffer with the bytes at the current position; those that were never written are 0."""
        view, begin = memoryview(buffer).cast("B"), self._place
        view[:] = bytes(len(view))
        os.preadv(self._number, [view], begin)
        for place, data in self._unwritten:
            first, last = max(begin, place), min(begin + len(view), place + len(data))
            if first < last:
                view[first - begin : last - begin] = data[first - place : last - place]
        self._place += len(view)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; return it."""
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._end}[whence]
        return self._place

    def tell(self) -> int:
        """Return the position."""
        return self._place

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size; return it."""
        self._end = self._place if size is None else size
        try:
            if not self._error:
                os.ftruncate(self._number, self._end)
        except OSError as error:
            self._error = error
        return self._end

    def flush(self) -> None:
        """Do nothing: every write goes to the file at once."""

    def close(self) -> None:
        """Close the file, and drop what was kept in memory.

        Raises:
            OSError: The file system reports only now that something could not be written, as with network quotas.
        """
        if not self.closed:
            super().close()
            self._unwritten.clear()
            with naming_file(self._path):
                os.close(self._number)


@contextmanager
def new_hdf5(path: Path) -> Iterator[HDF5Output]:
    """Create a file for h5py or Keras to write, and check at the end that all of it was written.

    Raises:
        OSError: The file cannot be written. It is left incomplete.
    """
    with naming_file(path):
        output = HDF5Output(path)
    try:
        yield output
    finally:
        output.close()
    output.check()
