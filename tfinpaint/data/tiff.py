"""How large the tiles of a TIFF file are. Its decoder, libtiff, takes memory for a whole one, however small the image.

Read from the file itself: of a directory that gives a size twice, or in an unusual type, Pillow and libtiff may take
different things. Strips need no look: libtiff cuts them to the image.
"""

from __future__ import annotations

import os
from typing import IO, Literal

_WIDTH, _LENGTH = 322, 323  # tags (TIFF 6.0, section 15)
_BYTES = {3: 2, 4: 4, 16: 8}  # of an unsigned integer, by its type: SHORT, LONG, LONG8
_MOST_ENTRIES = 2**16  # of a directory; a classic one counts them with 16 bits


def tile_size(stream: IO[bytes], directory: int) -> tuple[int, int]:
    """(width, height) in pixels of the tiles of one image of a file; (0, 0) where it has none.

    Args:
        directory: where the image's directory begins, in bytes.

    Raises:
        ValueError: a size is no plain number, or is there twice.
    """
    before = stream.tell()
    stream.seek(0)
    head = stream.read(4)
    order: Literal["big", "little"] = "big" if head[:2] == b"MM" else "little"
    is_big = int.from_bytes(head[2:], order) == 43  # BigTIFF, whose entries are wider
    stream.seek(directory)
    entries = min(int.from_bytes(stream.read(8 if is_big else 2), order), _MOST_ENTRIES)
    found: dict[int, int] = {}
    for _ in range(entries):
        entry = stream.read(20 if is_big else 12)
        tag, kind = int.from_bytes(entry[:2], order), int.from_bytes(entry[2:4], order)
        if tag not in (_WIDTH, _LENGTH):
            continue
        count, value = int.from_bytes(entry[4 : 12 if is_big else 8], order), entry[12 if is_big else 8 :]
        size = _BYTES.get(kind, len(value) + 1)
        if tag in found or count != 1 or size > len(value):
            raise ValueError("the size of its tiles is no plain number")
        found[tag] = int.from_bytes(value[:size], order)
    stream.seek(before, os.SEEK_SET)
    return found.get(_WIDTH, 0), found.get(_LENGTH, 0)
