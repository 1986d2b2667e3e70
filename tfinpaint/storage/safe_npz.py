"""Arrays in uncompressed `.npz` files: written without pickles, and read safely even if others have written them."""

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

from tfinpaint.errors import UserError, first_line

OVERHEAD_BYTES = 4096  # of each array beside its numbers: two zip headers with the name, and numpy's own
# What zipfile raises for a damaged file, and numpy, which parses an array's header as a Python literal.
_DAMAGED = (
    OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile,
    TypeError, SyntaxError, tokenize.TokenError, MemoryError,
)  # fmt: skip
_NO_ARRAY = "allow_pickle"  # NumPy before 2.2 does not know this argument of `savez`, and stores it as an array

Expected = Mapping[str, tuple[tuple[int, ...], DTypeLike]]


def write_npz(file: Path | BinaryIO, arrays: Mapping[str, np.ndarray | np.generic]) -> None:
    """Write arrays as `numpy.savez` does, but never a pickle, whatever the version of NumPy.

    Raises:
        ValueError: An array holds Python objects.
        OSError: The file cannot be written.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(array), allow_pickle=False)


def read_npz(path: Path, expected: Expected) -> dict[str, np.ndarray]:
    """Read a file that must hold certain arrays, and no others.

    Args:
        expected: name -> shape and dtype of each array.

    Raises:
        UserError: As for `read_whole_npz`, or the file holds other arrays.
    """
    least = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in expected.values())
    most = least + OVERHEAD_BYTES * (len(expected) + 1)
    if path.is_file() and not least <= (size := path.stat().st_size) <= most:
        raise UserError(
            f"{path}: {size} bytes, but its {len(expected)} expected arrays take {least} to {most}; copy it again"
        )
    found = read_whole_npz(path)
    if other := sorted(found.keys() ^ expected.keys()):
        raise UserError(
            f"{path}: holds {len(found)} arrays, expected {len(expected)}; they differ in {ascii(other[0])[:80]}"
        )
    for name, (shape, dtype) in expected.items():
        array = found[name]
        if (array.shape, array.dtype) != (shape, np.dtype(dtype)):
            raise UserError(f"{path}: {name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
    return found


def read_whole_npz(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a file as `numpy.savez` writes it.

    They take no more memory than the file has bytes, whatever it declares, and no pickle is opened.

    Raises:
        UserError: The file is missing, damaged or compressed.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED:
                    raise UserError(f"{path}: {member.filename} is compressed; expected a file of numpy.savez")
            if (claimed := sum(member.file_size for member in members)) > path.stat().st_size:
                raise ValueError(f"{claimed} bytes in {path.stat().st_size}")
            found = {member.filename.removesuffix(".npy"): _read_array(archive, member) for member in members}
            if len(found) < len(members):
                raise ValueError("two arrays of one name")
    except _DAMAGED as error:
        raise UserError(f"{path}: damaged or not an .npz file ({first_line(error)}); copy it again") from None
    found.pop(_NO_ARRAY, None)
    return found


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    name = ascii(member.filename)[:80]
    with archive.open(member) as file:
        if (version := npy.read_magic(file)) != (1, 0):
            raise ValueError(f"{name} is of version {version}")
        shape, _, dtype = npy.read_array_header_1_0(file)
    if not dtype.itemsize or math.prod(shape) * dtype.itemsize > member.file_size:  # any number of 0 bytes would fit
        raise ValueError(f"{name} claims {dtype} {shape} in {member.file_size} bytes")
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)
