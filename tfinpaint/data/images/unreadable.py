"""Say why an image file cannot be decoded."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from PIL import Image

from tfinpaint.config.sections import MAX_MPIXELS
from tfinpaint.data.images.signatures import describe_content, image_format

SUPPORTED_PIXELS = "supported are grey, palette, RGB and CMYK, with alpha or without, of 8 or 16 bits"
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class UnreadableImageError(Exception):
    """An image file cannot be decoded. The message is the reason, without the path."""


def is_resource_shortage(error: BaseException) -> bool:
    """Return True if a file could not be read for want of memory or descriptors, which is not the file's fault."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SHORTAGES)


def reason_not_recognised(stream: IO[bytes], head: bytes) -> str:
    """Return why Pillow does not recognise a file as an image."""
    name = image_format(head)
    if not name:
        found = describe_content(head)
        return f"not an image: {found}" if found else "not an image"
    stream.seek(0)
    try:
        Image.OPEN["PPM" if name == "PNM" else name.upper()][0](stream, "")  # for the error, which Image.open hides
    except Exception as error:
        if is_resource_shortage(error):
            raise
        if _is_unsupported(error):
            detail = f"compression {error}" if str(error).isdecimal() else str(error)
            return f"unsupported: {name}, {detail}; {SUPPORTED_PIXELS}"
    return f"truncated or damaged: begins as {name}"


# What Pillow says if it has no decoder for a file that may be sound.
_UNSUPPORTED = re.compile(
    r"unsupported|not supported|cannot handle|samples per pixel|unknown (pixel mode|compression)", re.IGNORECASE
)


def _is_unsupported(error: Exception) -> bool:
    # Pillow raises KeyError for a compression or a pixel mode that is not in its tables.
    return KeyError in (type(error), type(error.__cause__)) or bool(_UNSUPPORTED.search(str(error)))


@contextmanager
def as_fault_of_file() -> Iterator[None]:
    """Raise UnreadableImageError for every error within a `with` statement, unless memory or descriptors are short.

    Damaged metadata alone make Pillow raise struct.error, TypeError and more, and damaged archives do so with zipfile.
    """
    try:
        yield
    except UnreadableImageError:
        raise
    except Exception as error:
        if is_resource_shortage(error):
            raise
        raise UnreadableImageError(reason_for_failure(error)) from None


def reason_for_failure(error: Exception) -> str:
    """Return why a file could not be read, beginning with the kind of fault."""
    if isinstance(error, FileNotFoundError):
        return "missing: no such file"
    if isinstance(error, OSError) and error.errno:
        return f"unreadable: {error.strerror}"
    if isinstance(error, Image.DecompressionBombError):
        return f"oversized: more than {MAX_MPIXELS:g} Mpixel, which no configuration allows"
    message = str(error) or type(error).__name__
    if _is_unsupported(error):
        return f"unsupported: {message.removeprefix('Unsupported ')}; {SUPPORTED_PIXELS}"
    if isinstance(error, EOFError) or "truncated" in message.lower():
        return f"truncated: {message}"
    return f"damaged: {message}"
