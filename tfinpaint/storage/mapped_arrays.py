"""Arrays in one file: written whole or not at all, checked when they are read, mapped into memory."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike

from tfinpaint.storage.atomic import atomic_file

VERSION = 1  # of the format


def store_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write one-dimensional arrays one after the other into one file, in numpy's format.

    Raises:
        OSError: The file cannot be written.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    head = {"version": VERSION, "crc32": {name: zlib.crc32(array.data) for name, array in arrays.items()}}
    with atomic_file(path, contended=True) as partial, partial.open("wb") as file:
        for array in (np.frombuffer(json.dumps(head).encode(), np.uint8), *arrays.values()):
            write_array(file, array)


def write_array(file: BinaryIO, array: np.ndarray) -> None:
    """Write a one-dimensional array as `numpy.save` does, which does not report why it cannot write to a file.

    Raises:
        OSError: The array cannot be written.
    """
    npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(array))
    file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")


def load_arrays(path: Path, dtypes: Mapping[str, DTypeLike]) -> dict[str, np.ndarray] | None:
    """Map the arrays of a file into memory, which processes that read the same file share.

    Args:
        dtypes: name -> type of each array that the file must hold, in their order.

    Returns:
        One-dimensional arrays by name; None if there is no such file, or it is damaged or of another version.
    """
    try:
        with path.open("rb") as file:
            head = json.loads(_map_array(file, np.uint8).tobytes())
            if head["version"] != VERSION or list(head["crc32"]) != list(dtypes):
                return None
            arrays = {name: _map_array(file, dtype) for name, dtype in dtypes.items()}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return arrays if all(zlib.crc32(array.data) == head["crc32"][name] for name, array in arrays.items()) else None


def _map_array(file: BinaryIO, dtype: DTypeLike) -> np.ndarray:
    """Map the array that begins at the file's position, and move the position to the array's end."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not an array as `store_arrays` writes it")
    shape, _, found = np.lib.format.read_array_header_1_0(file)
    if found != dtype or len(shape) != 1:
        raise ValueError(f"{found} {shape}, expected {dtype}")
    begin = file.tell()
    array = np.memmap(file, found, "r", begin, shape) if shape[0] else np.empty(0, found)
    file.seek(begin + array.nbytes)  # numpy.memmap moves it too
    return array
