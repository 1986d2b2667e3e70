"""Arrays of known names, shapes and types out of an uncompressed `.npz` file that others may have written."""

from __future__ import annotations

import math
import tokenize
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike

from tfinpaint.errors import UserError

OVERHEAD_BYTES = 4096  # of each array beside its numbers: two zip headers with the name, and numpy's own

# What zipfile raises, and numpy, which reads an array's header as a Python literal.
_DAMAGED = (
    OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile,
    TypeError, SyntaxError, tokenize.TokenError, MemoryError,
)  # fmt: skip

Expected = Mapping[str, tuple[tuple[int, ...], DTypeLike]]


def read(path: Path, expected: Expected) -> dict[str, np.ndarray]:
    """The arrays of a file as `numpy.savez` writes it.

    No more memory is taken than the expected arrays need, whatever the file declares, and no pickle is opened.

    Args:
        expected: name -> (shape, dtype) of each array that the file must hold; no other may be there.

    Raises:
        UserError: the file is missing or damaged, or holds other arrays.
    """
    least = sum(_bytes(shape, dtype) for shape, dtype in expected.values())
    most = least + OVERHEAD_BYTES * (len(expected) + 1)
    try:
        if not path.is_file():
            raise UserError(f"{path}: there is no such file")
        if path.stat().st_size > most:
            raise UserError(f"{path}: {path.stat().st_size} bytes, more than the {len(expected)} expected arrays take")
        if path.stat().st_size < least:  # of what somebody says is expected, nothing is allocated either
            raise ValueError(f"{path.stat().st_size} bytes, the {len(expected)} expected arrays take {least}")
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive, expected)
            return {name: _read_array(path, archive, name, *expected[name]) for name in expected}
    except _DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: is damaged or no .npz file ({reason}); copy it anew") from None


def _bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _check_members(path: Path, archive: zipfile.ZipFile, expected: Expected) -> None:
    found = sorted(info.filename.removesuffix(".npy") for info in archive.infolist())
    if found != sorted(expected):
        other = sorted(set(found) ^ set(expected)) or [name for name in found if found.count(name) > 1]
        raise UserError(
            f"{path}: holds {len(found)} arrays, expected {len(expected)}; they differ in {ascii(other[0])[:80]}"
        )
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED:
            raise UserError(f"{path}: {info.filename} is compressed; numpy.savez leaves arrays as they are")


def _read_array(
    path: Path, archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: DTypeLike
) -> np.ndarray:
    with archive.open(f"{name}.npy") as file:
        version = npy.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{name}.npy is of version {version}")
        found = npy.read_array_header_1_0(file)
    if found != (shape, False, np.dtype(dtype)):
        raise UserError(f"{path}: {name} is {found[2]} {found[0]}, expected {np.dtype(dtype)} {shape}")
    with archive.open(f"{name}.npy") as file:
        return npy.read_array(file, allow_pickle=False)
