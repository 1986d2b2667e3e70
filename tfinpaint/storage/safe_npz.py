"""Arrays in uncompressed `.npz` files: written without pickles, and read although others may have written them."""

from __future__ import annotations

import math
import tokenize
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

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

# NumPy before 2.2 does not know the argument `allow_pickle` of `savez`, and stores it as one more array.
_NO_ARRAY = "allow_pickle"

Expected = Mapping[str, tuple[tuple[int, ...], DTypeLike]]


def write_npz(file: Path | BinaryIO, arrays: Mapping[str, np.ndarray | np.generic]) -> None:
    """Write arrays as `numpy.savez` does, but never a pickle, with every version of NumPy.

    Raises:
        ValueError: an array holds Python objects.
        OSError: the file cannot be written.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(array), allow_pickle=False)


def read_npz(path: Path, expected: Expected) -> dict[str, np.ndarray]:
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


def read_whole_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file as `numpy.savez` writes it, whatever they are.

    They take no more memory than the file has bytes, whatever it declares, and no pickle is opened.

    Raises:
        UserError: the file is missing, damaged or compressed.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path}: there is no such file")
        with zipfile.ZipFile(path) as archive:
            _check_stored(path, archive)
            members = archive.infolist()
            if (claimed := sum(info.file_size for info in members)) > path.stat().st_size:
                raise ValueError(f"{claimed} bytes in {path.stat().st_size}")
            found = {info.filename.removesuffix(".npy"): _read_any(archive, info) for info in members}
            found.pop(_NO_ARRAY, None)
            return found
    except _DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: is damaged or no .npz file ({reason}); copy it anew") from None


def _bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _check_members(path: Path, archive: zipfile.ZipFile, expected: Expected) -> None:
    found = sorted(info.filename.removesuffix(".npy") for info in archive.infolist())
    if _NO_ARRAY in found:
        found.remove(_NO_ARRAY)
    if found != sorted(expected):
        other = sorted(set(found) ^ set(expected)) or [name for name in found if found.count(name) > 1]
        raise UserError(
            f"{path}: holds {len(found)} arrays, expected {len(expected)}; they differ in {ascii(other[0])[:80]}"
        )
    _check_stored(path, archive)


def _check_stored(path: Path, archive: zipfile.ZipFile) -> None:
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED:
            raise UserError(f"{path}: {info.filename} is compressed; numpy.savez leaves arrays as they are")


def _read_array(
    path: Path, archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: DTypeLike
) -> np.ndarray:
    found = _header(archive, archive.getinfo(f"{name}.npy"))
    if found != (shape, False, np.dtype(dtype)):
        raise UserError(f"{path}: {name} is {found[2]} {found[0]}, expected {np.dtype(dtype)} {shape}")
    with archive.open(f"{name}.npy") as file:
        return npy.read_array(file, allow_pickle=False)


def _read_any(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    shape, _, dtype = _header(archive, info)
    if not dtype.itemsize or _bytes(shape, dtype) > info.file_size:  # of no bytes there could be any number
        raise ValueError(f"{ascii(info.filename)[:80]} claims {dtype} {shape} in {info.file_size} bytes")
    with archive.open(info) as file:
        return npy.read_array(file, allow_pickle=False)


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether in Fortran's order, type) of an array."""
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{ascii(member.filename)[:80]} is of version {version}")
        return npy.read_array_header_1_0(file)
