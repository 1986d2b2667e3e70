"""Find out how long the texts in an HDF5 attribute are, without reading the texts.

Texts of variable length are stored apart from the attribute, which holds the length and the place of each. In a hostile
file all of them may be the same long text, which would be read as often as it is referred to. The HDF5 library gives
the lengths only by reading the texts, so the attribute is looked up in the file itself ("HDF5 File Format
Specification", sections IV.A.1 and IV.A.2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])  # to a text of variable length
_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10  # types of messages in an object's header
_IS_SHARED = 0x02  # flag of a message that is stored elsewhere
_MOST_BLOCKS = 1000  # of one object's header
_MOST_BLOCK_BYTES = 2**24


def text_bytes(file: BinaryIO, address: int, name: bytes, count: int) -> int | None:
    """Return the total size of the texts of an attribute, in bytes.

    Args:
        file: an HDF5 file without a user block, with addresses and lengths of 8 bytes.
        address: the position of the header of the object that has the attribute.
        name: the attribute's name.
        count: the number of texts.

    Returns:
        None if the attribute is not in the header; files of HDF5's newest format may keep it elsewhere.
    """
    found = []
    try:
        for message in _attribute_messages(file, address):
            data = _data_of(message, name)
            if data is not None:
                references = np.frombuffer(data, _REFERENCE, count)
                found.append(int(references["length"].sum(dtype=np.uint64)))
    except (struct.error, ValueError):  # the header ends too early
        return None
    return max(found, default=None)


def _attribute_messages(file: BinaryIO, address: int) -> Iterator[bytes]:
    """Yield those messages of an object's header that are attributes."""
    start = _read(file, address, 16)
    is_new = start[:4] == b"OHDR"
    flags = start[5] if is_new else 0
    head = struct.Struct("<BHB" if is_new else "<HHB3x")  # type, size, flags
    skipped = 2 if flags & 0x04 else 0  # the order of creation
    if is_new:
        begin = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 0x03)
        size = int.from_bytes(_read(file, address + begin, width), "little")
        blocks = [(address + begin + width, size)]
    else:
        blocks = [(address + 16, struct.unpack_from("<I", start, 8)[0])]
    for number, (begin, size) in enumerate(blocks):  # the loop appends to this list
        if number > _MOST_BLOCKS or size > _MOST_BLOCK_BYTES:
            raise ValueError("not the header of an object")
        block, at = _read(file, begin, size), 0
        while at + head.size + skipped <= len(block):
            kind, length, message_flags = head.unpack_from(block, at)
            at += head.size + skipped
            message = block[at : at + length]
            at += length
            if kind == _CONTINUATION:
                further, extent = struct.unpack_from("<QQ", message)
                blocks.append((further + 4, extent - 8) if is_new else (further, extent))  # signature and checksum
            elif kind == _ATTRIBUTE and not message_flags & _IS_SHARED:
                yield message


def _data_of(message: bytes, name: bytes) -> bytes | None:
    """Return the raw values of an attribute; None if it has another name."""
    version, _, *sizes = struct.unpack_from("<BBHHH", message)
    begin = 9 if version == 3 else 8  # version 3 has the name's encoding in between
    if message[begin : begin + sizes[0]].split(b"\0")[0] != name:
        return None
    for size in sizes:  # name, type, shape
        begin += -(-size // 8) * 8 if version == 1 else size
    return message[begin:]


def _read(file: BinaryIO, address: int, count: int) -> bytes:
    file.seek(address)
    contents = file.read(count)
    if len(contents) < count:
        raise ValueError("beyond the end of the file")
    return contents
