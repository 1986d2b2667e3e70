"""Open HDF5 files that others may have written, and refuse all but plain arrays of numbers.

HDF5 offers much that weights do not need: a link or an array may lead to any other file of the machine, a filter is a
program that is loaded from a folder of plug-ins, and a few bytes can declare terabytes of fill value. What weights do
not need is refused before any array is read, by this project or by Keras.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import h5py

from tfinpaint.errors import UserError
from tfinpaint.storage import hdf5_strings

MOST_OBJECTS = 20_000  # groups and arrays; ResNet50 with its decoder has 700
MOST_LEVELS = 32  # groups within groups; Keras nests six
MOST_ATTRIBUTES = 1000  # of an object
MOST_ATTRIBUTE_BYTES = 16 * 2**20  # of one attribute with its texts


@dataclass(frozen=True)
class CheckedFile:
    """An open HDF5 file that has been found to hold nothing but plain arrays of numbers.

    Attributes:
        root: the file.
        array_bytes: path of each array in the file, such as `/layers/conv2d/vars/0` -> its size in memory, bytes.
    """

    root: h5py.File
    array_bytes: Mapping[str, int]


@contextmanager
def open_hdf5(path: Path, contents: bytes | None = None) -> Iterator[CheckedFile]:
    """Open a file for reading, and check everything in it except the numbers themselves.

    All arrays together are no larger than the file, so that reading them cannot take more memory than that. The same
    holds for the texts of each attribute.

    Args:
        contents: the bytes of the file, if it lies in an archive at `path`.

    Raises:
        UserError: The file holds something other than uncompressed arrays of numbers.
        OSError, RuntimeError, LookupError, ValueError, TypeError: The file is missing, damaged or not HDF5.
    """
    if contents is None and not path.is_file():  # opening a pipe would wait for ever
        raise FileNotFoundError(f"{path} is not a file")
    with ExitStack() as stack:
        raw: BinaryIO = stack.enter_context(path.open("rb")) if contents is None else io.BytesIO(contents)
        file = stack.enter_context(h5py.File(path if contents is None else io.BytesIO(contents), "r"))
        try:
            array_bytes = _scan(file, raw, path.stat().st_size if contents is None else len(contents))
        except _RefusedError as error:
            raise UserError(f"{path}: {error}; expected plain arrays of numbers: save the weights again") from None
        yield CheckedFile(file, array_bytes)


class _RefusedError(Exception):
    """An error that says what the file holds that weights do not need, and where."""


def _scan(file: h5py.File, raw: BinaryIO, file_bytes: int) -> dict[str, int]:
    """Visit every group and array, check it, and return the sizes of the arrays by their paths."""
    _check_attributes(file, raw, file_bytes)
    seen = {h5py.h5o.get_info(file.id).addr}
    groups, sizes, left = [file], {}, file_bytes
    for _ in range(MOST_LEVELS):
        below = []
        for group in groups:
            for name in group:
                child = _child(group, name)
                address = h5py.h5o.get_info(child.id).addr
                if address in seen:
                    raise _RefusedError(f"{_shown(child.name)} has two names, or contains itself")
                seen.add(address)
                if len(seen) > MOST_OBJECTS:
                    raise _RefusedError(f"it holds more than {MOST_OBJECTS} groups and arrays")
                _check_attributes(child, raw, file_bytes)
                if isinstance(child, h5py.Group):
                    below.append(child)
                else:
                    sizes[child.name] = _checked_bytes(child, left)
                    left -= sizes[child.name]
        groups = below
    if groups:
        raise _RefusedError(f"it has more than {MOST_LEVELS} levels of groups")
    return sizes


def _child(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    where = _shown(f"{group.name.rstrip('/')}/{name}")
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise _RefusedError(f"{where} is a link, and links are not followed")
    child = group[name]
    if not isinstance(child, h5py.Group | h5py.Dataset):
        raise _RefusedError(f"{where} is a named data type")
    return child


def _checked_bytes(array: h5py.Dataset, left: int) -> int:
    """Return the size of an array in memory; refuse it if that is more than what is left of the file."""
    where = _shown(array.name)
    if array.external or array.is_virtual:
        raise _RefusedError(f"{where} lies in another file, and other files are not read")
    if array.dtype.kind not in "fiu" or array.shape is None:
        raise _RefusedError(f"{where} holds {_shown(str(array.dtype))}, not numbers")
    if array.id.get_create_plist().get_nfilters():
        raise _RefusedError(f"{where} is compressed or filtered")
    size = math.prod(array.shape) * array.dtype.itemsize
    if size > min(array.id.get_storage_size(), left):
        raise _RefusedError(f"{where} claims {size} bytes and does not hold them")
    return size


def _check_attributes(item: h5py.Group | h5py.Dataset, raw: BinaryIO, file_bytes: int) -> None:
    if len(item.attrs) > MOST_ATTRIBUTES:
        raise _RefusedError(f"{_shown(item.name)} has more than {MOST_ATTRIBUTES} attributes")
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        where = f"the attribute {_shown(name)} of {_shown(item.name)}"
        text = h5py.check_string_dtype(attribute.dtype)
        if attribute.dtype.kind not in "fiubS" and not text:
            raise _RefusedError(f"{where} is neither text nor numbers")
        count, size = math.prod(attribute.shape or ()), attribute.get_type().get_size()
        if count * size > MOST_ATTRIBUTE_BYTES:
            raise _RefusedError(f"{where} is larger than {MOST_ATTRIBUTE_BYTES >> 20} MiB")
        if text and text.length is None and count > 1:  # a single text takes no more than the file
            _check_texts(item, name, raw, count, file_bytes)


def _check_texts(item: h5py.Group | h5py.Dataset, name: str, raw: BinaryIO, count: int, file_bytes: int) -> None:
    """Refuse texts of variable length that together are longer than the file: all of them may be the same text."""
    plain = item.file.userblock_size == 0 and item.file.id.get_create_plist().get_sizes() == (8, 8)
    address = h5py.h5o.get_info(item.id).addr
    size = hdf5_strings.text_bytes(raw, address, name.encode("utf-8", "surrogateescape"), count) if plain else None
    where = f"the attribute {_shown(name)} of {_shown(item.name)}, {count} texts of variable length,"
    if size is None:
        raise _RefusedError(f"{where} is stored in a way that does not state its size")
    if size > min(MOST_ATTRIBUTE_BYTES, file_bytes):
        raise _RefusedError(f"{where} claims {size} bytes and does not hold them")


def _shown(name: str) -> str:
    """Return a name from the file in printable form, cut to 200 characters."""
    return ascii(name)[1:-1][:200]
