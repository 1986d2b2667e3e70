"""Files of a run, written whole or not at all, what is said where that fails, and how a path is shown."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

# What the user can do about an error of writing, by its number.
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or ask for a larger quota",
    errno.EFBIG: "raise the largest size of a file that this process may write (ulimit -f)",
    errno.EROFS: "mount the file system for writing, or name another folder",
    errno.EIO: "check the disk, or name another folder",
}


def is_of_the_disk(error: BaseException) -> bool:
    """Return whether writing failed for a reason that the user can mend, such as a full disk."""
    return isinstance(error, OSError) and error.errno in _REMEDIES


def explained(error: OSError) -> str:
    """Return what happened and what to do about it, without the name of the file."""
    said = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{said}; {remedy}" if remedy else said


def told_by_library(message: str, path: Path) -> OSError:
    """Return the OSError that the message of a library tells of, which has no number of it: TensorFlow's."""
    code = next((code for code in _REMEDIES if os.strerror(code) in message), errno.EIO)
    return OSError(code, os.strerror(code), str(path))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of the file to an OSError raised within; the system names it only where opening fails."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_bytes(path: Path, contents: bytes | memoryview) -> None:
    """Write under a temporary name beside `path`, on to the disk, then rename: a power cut leaves no empty file.

    Raises:
        OSError: it cannot be written; what stands at `path` is left as it was, and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with naming(path), partial.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def is_text(name: str) -> bool:
    """Return True for a name in UTF-8: those of files can have other bytes, which Python keeps as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write as `write_bytes` does, in UTF-8; parts of names that are not UTF-8 are written as they are."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_image(path: Path, image: Image.Image, kind: str, **options: Any) -> None:
    """Write an image as `write_bytes` does; Pillow does not tell why it cannot write to a file.

    Args:
        kind: the format, and `options` what Pillow takes for it.
    """
    contents = io.BytesIO()
    image.save(contents, kind, **options)
    write_bytes(path, contents.getbuffer())


def shown(path: Path) -> str:
    """Return the path relative to the working directory where that is shorter."""
    try:
        return min(os.path.relpath(path), str(path), key=len)
    except OSError:  # the working directory has been deleted
        return str(path)
