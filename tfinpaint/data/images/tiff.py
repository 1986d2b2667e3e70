"""What the directory of a TIFF file says, read from the file itself.

How large its tiles are: the decoder, libtiff, takes memory for a whole one, however small the image. Of a directory
that gives a size twice, or in an unusual type, Pillow and libtiff may take different things. Strips need no look:
libtiff cuts them to the image. And which channels the image has, where Pillow knows no mode for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Literal

# Tags (TIFF 6.0): width of the image, bits and number of its channels, width and length of its tiles, ...
_IMAGE_WIDTH, _BITS, _COMPRESSION, _COLOUR, _SAMPLES, _WIDTH, _LENGTH, _KIND = 256, 258, 259, 262, 277, 322, 323, 339
_COLOURS = {6: ", YCbCr", 8: ", CIE Lab", 9: ", ICC Lab", 32803: ", camera raw", 32845: ", LogLuv"}  # of Photometric
_KINDS = {2: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "}  # of SampleFormat
_USUAL = (1, 5, 7, 8, 32773, 32946)  # of Compression: none, LZW, JPEG, deflate, PackBits
_BYTES = {3: 2, 4: 4, 16: 8}  # of an unsigned integer, by its type: SHORT, LONG, LONG8
_MOST_ENTRIES = 2**16  # of a directory; a classic one counts them with 16 bits

Order = Literal["big", "little"]


def tile_size(stream: IO[bytes], directory: int) -> tuple[int, int]:
    """Return (width, height) in pixels of the tiles of one image of a file; (0, 0) where it has none.

    Args:
        directory: where the image's directory begins, in bytes.

    Raises:
        ValueError: a size is no plain number, or is there twice.
    """
    before = stream.tell()
    order, is_big, _ = _read_header(stream)
    found: dict[int, int] = {}
    for tag, kind, count, value in _entries(stream, directory, order, is_big):
        if tag not in (_WIDTH, _LENGTH):
            continue
        size = _BYTES.get(kind, len(value) + 1)
        if tag in found or count != 1 or size > len(value):
            raise ValueError("the size of its tiles is no plain number")
        found[tag] = int.from_bytes(value[:size], order)
    stream.seek(before, os.SEEK_SET)
    return found.get(_WIDTH, 0), found.get(_LENGTH, 0)


def channels(stream: IO[bytes]) -> str:
    """Return the channels of a file's first image in words, such as "5 channels of 8 bits"; "" where it has none."""
    order, is_big, directory = _read_header(stream)
    found: dict[int, int] = {}
    for tag, kind, count, value in list(_entries(stream, directory, order, is_big)):
        size = _BYTES.get(kind, 0)
        if count * size > len(value):  # they stand elsewhere in the file; all channels are like the first
            stream.seek(min(int.from_bytes(value, order), 2**62))
            value = stream.read(size)
        found.setdefault(tag, int.from_bytes(value[:size], order))
    samples, bits = found.get(_SAMPLES, 1), found.get(_BITS, 1)
    if _IMAGE_WIDTH not in found or not samples or not bits:
        return ""
    kind_of = _KINDS.get(found.get(_KIND, 1), "")
    way = found.get(_COMPRESSION, 1)
    packed = "" if way in _USUAL else f", in compression {way}"
    colours = _COLOURS.get(found.get(_COLOUR, 0), "")
    return f"{samples} channel{'s' * (samples != 1)} of {bits} {kind_of}bit{'s' * (bits != 1)}{colours}{packed}"


def _read_header(stream: IO[bytes]) -> tuple[Order, bool, int]:
    """(byte order, whether it is a BigTIFF, whose entries are wider, where the first directory begins)."""
    stream.seek(0)
    head = stream.read(16)
    order: Order = "big" if head[:2] == b"MM" else "little"
    is_big = int.from_bytes(head[2:4], order) == 43
    return order, is_big, int.from_bytes(head[8:16] if is_big else head[4:8], order)


def _entries(stream: IO[bytes], directory: int, order: Order, is_big: bool) -> Iterator[tuple[int, int, int, bytes]]:
    """(tag, type, count, value or where it stands) of each entry of a directory."""
    stream.seek(min(directory, 2**62))
    for _ in range(min(int.from_bytes(stream.read(8 if is_big else 2), order), _MOST_ENTRIES)):
        entry = stream.read(20 if is_big else 12)
        count = int.from_bytes(entry[4 : 12 if is_big else 8], order)
        yield (
            int.from_bytes(entry[:2], order), int.from_bytes(entry[2:4], order), count, entry[12 if is_big else 8 :],
        )  # fmt: skip
