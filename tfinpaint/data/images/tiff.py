"""Read the size of a TIFF file's tiles from the file itself, before anything is decoded.

The decoder, libtiff, allocates memory for a whole tile, however small the image. If a directory gives a size twice, or
in an unusual type, Pillow and libtiff may use different values. Strips need no check: libtiff cuts them to the image.
"""

from __future__ import annotations

import os
from typing import IO, Literal

_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags (TIFF 6.0)
_INTEGER_BYTES = {3: 2, 4: 4, 16: 8}  # of an unsigned integer, by its type: SHORT, LONG, LONG8


def tile_size(stream: IO[bytes], directory: int) -> tuple[int, int]:
    """Return (width, height) in pixels of the tiles of one image of a file; (0, 0) if it has no tiles.

    Args:
        directory: where the image's directory begins, in bytes.

    Raises:
        ValueError: a size is not a single integer, or is there twice.
    """
    before = stream.tell()
    stream.seek(0)
    head = stream.read(4)
    order: Literal["big", "little"] = "big" if head[:2] == b"MM" else "little"
    is_big = int.from_bytes(head[2:4], order) == 43  # BigTIFF, whose entries are wider
    count_end = 12 if is_big else 8
    stream.seek(min(directory, 2**62))
    found: dict[int, int] = {}
    for _ in range(min(int.from_bytes(stream.read(8 if is_big else 2), order), 2**16)):
        entry = stream.read(20 if is_big else 12)  # tag, type, count, value
        tag, kind = int.from_bytes(entry[:2], order), int.from_bytes(entry[2:4], order)
        if tag not in (_TILE_WIDTH, _TILE_LENGTH):
            continue
        count, value = int.from_bytes(entry[4:count_end], order), entry[count_end:]
        size = _INTEGER_BYTES.get(kind, len(value) + 1)
        if tag in found or count != 1 or size > len(value):
            raise ValueError("the size of its tiles is not a single integer")
        found[tag] = int.from_bytes(value[:size], order)
    stream.seek(before, os.SEEK_SET)
    return found.get(_TILE_WIDTH, 0), found.get(_TILE_LENGTH, 0)
