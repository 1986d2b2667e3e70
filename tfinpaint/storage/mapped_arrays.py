"""Arrays in one file: written whole or not at all, checked when they are read, mapped into memory."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike

from tfinpaint.storage.write_errors import naming

VERSION = 1


def store_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write one-dimensional arrays one after the other into one file, in numpy's format.

    Raises:
        OSError: that cannot be done.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    head = {"version": VERSION, "crc32": {name: zlib.crc32(array.data) for name, array in arrays.items()}}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # others may be writing the same
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with naming(partial), partial.open("wb") as file:
            for array in (np.frombuffer(json.dumps(head).encode(), np.uint8), *arrays.values()):
                write_array(file, array)
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_array(file: BinaryIO, array: np.ndarray) -> None:
    """Write a one-dimensional array as `numpy.save` does, which does not tell why it cannot write to a file.

    Raises:
        OSError: it cannot be written.
    """
    npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(array))
    file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")


def load_arrays(path: Path, dtypes: Mapping[str, DTypeLike]) -> dict[str, np.ndarray] | None:
    """The arrays of a file, one-dimensional, mapped into memory: processes that read the same file share them.

    Returns:
        None where there is no such file, or it is damaged or of another version.
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
    """The array that begins at the file's place, which moves on to its end."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not an array as `store` writes them")
    shape, _, found = np.lib.format.read_array_header_1_0(file)
    if found != dtype or len(shape) != 1:
        raise ValueError(f"{found} {shape}, expected {dtype}")
    begin = file.tell()
    array = np.memmap(file, found, "r", begin, shape) if shape[0] else np.empty(0, found)
    file.seek(begin + array.nbytes)  # numpy.memmap moves it too
    return array
