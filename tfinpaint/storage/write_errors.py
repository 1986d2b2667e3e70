"""Explain why a file could not be written, and what the user can do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfinpaint.system.subprocesses import CONTINUED_BY

# What the user can do about an error of writing, by its number.
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or ask for a larger quota",
    errno.EFBIG: "raise the largest size of a file that this process may write (ulimit -f)",
    errno.EROFS: "mount the file system for writing, or name another folder",
    errno.EIO: "check the disk, or name another folder",
}


def is_disk_error(error: BaseException) -> bool:
    """Return whether writing failed for a reason that the user can remove, such as a full disk."""
    return isinstance(error, OSError) and error.errno in _REMEDIES


def explain_os_error(error: OSError) -> str:
    """Return what happened and what to do about it, without the file's name."""
    said = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{said}; {remedy}" if remedy else said


def then_continue() -> str:
    """Return how a training continues once it can write again, as the end of a message."""
    whole = os.environ.get(CONTINUED_BY)
    return f"then continue with: {whole}" if whole else "then continue with --resume"


def why_not_writable(folder: Path) -> str:
    """Return why no file can be made in a folder; "" if one can."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if os.access(folder, os.W_OK | os.X_OK):
        return ""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"{folder} is on a read-only file system"
    return f"no permission to write into {folder}"


def os_error_of_message(message: str, path: Path) -> OSError:
    """Return an OSError with the number that belongs to the message of a library which gives none, as TensorFlow."""
    code = next((code for code in _REMEDIES if os.strerror(code) in message), errno.EIO)
    return OSError(code, os.strerror(code), str(path))


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Add the file's name to an OSError raised in the block; the system names it only if opening fails."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
