"""Read images from records: TFRecord shards with an index that says where in them each image is.

A folder of records contains

- `records.json`: version, number of images, classes, and the size and SHA-256 of every other file;
- `images-00000-of-00016.tfrecord`, ...: a tf.train.Example for each image, for any reader of TFRecord;
- `names.npy`, `name_starts.npy`: the images' paths, sorted (see `data.listing.names`);
- `places.npy`: where the contents of each image's file are in its shard, and their CRC-32.

Images are read by number, in any order, without reading others. No TensorFlow: files and numpy only.
"""

from __future__ import annotations

import functools
import hashlib
import os
import zlib
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tfinpaint.data.images.decode import MAX_PACKED_BYTES
from tfinpaint.data.images.unreadable import UnreadableImageError, is_resource_shortage
from tfinpaint.data.listing.names import Names
from tfinpaint.errors import UserError
from tfinpaint.system.activity import report_activity
from tfinpaint.system.parallel import parallel_map
from tfinpaint.system.progress import log_progress

INDEX = "records.json"
NAMES, NAME_STARTS, PLACES = "names.npy", "name_starts.npy", "places.npy"
FORMAT: Literal["tfinpaint records"] = "tfinpaint records"
VERSION: Literal[1] = 1
MAX_INDEX_BYTES = 64 * 2**20  # of records.json, which has a hundred bytes a shard
OPEN_SHARDS = 128  # shards that a process keeps open

# little-endian: position of an image's first byte in its shard, number of bytes, zlib.crc32 of them
PLACE = np.dtype([("begin", "<u8"), ("bytes", "<u4"), ("crc32", "<u4")])

_REMEDY = "list all damage with `tfinpaint prepare --verify`, then copy the file again or pack the images again"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ArrayFile(_Section):
    """A file of the index."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ShardFile(ArrayFile):
    """A file of images."""

    name: str = Field(pattern=r"^images-\d{5,}-of-\d{5,}\.tfrecord$")
    images: int = Field(ge=0)


class RecordsHeader(_Section):
    """The contents of records.json.

    Attributes:
        classes: names of the labels in the shards (image/class/label), by number; [] for images without classes.
        shards: in the order of the images.
        arrays: the other files of the index, by name.
    """

    format: Literal["tfinpaint records"]
    version: Literal[1] = VERSION
    images: int = Field(ge=1, lt=2**32)
    classes: list[str]
    shards: list[ShardFile]
    arrays: dict[str, ArrayFile]


def is_records(root: Path) -> bool:
    """Return True for a folder of records, damaged or not."""
    return (root / INDEX).is_file()


class Records:
    """The images of a folder of records. Several threads may read at the same time.

    Attributes:
        names: path of each image in the folder that was packed, sorted.
    """

    def __init__(self, root: Path, header: RecordsHeader, names: Names, places: np.ndarray) -> None:
        self.names = names
        self._root, self._shards, self._places = root, header.shards, places
        self._ends = list(accumulate(shard.images for shard in header.shards))
        # A shard that falls out of the cache is closed when no thread reads from it any more.
        self._open = functools.lru_cache(OPEN_SHARDS)(_OpenFile)

    def read(self, row: int) -> bytes:
        """Return the contents of an image's file.

        Raises:
            UnreadableImageError: the shard is missing or damaged.
            OSError: the process has no descriptors or memory left.
        """
        place = self._places[row]
        try:
            contents = self._open(self._root / self._shard_of(row).name).read(int(place["bytes"]), int(place["begin"]))
        except OSError as error:
            if is_resource_shortage(error):
                raise
            raise UnreadableImageError(f"the shard cannot be read: {error.strerror}; {_REMEDY}") from None
        if len(contents) < place["bytes"]:
            raise UnreadableImageError(f"the shard is truncated; {_REMEDY}")
        if zlib.crc32(contents) != place["crc32"]:
            raise UnreadableImageError(f"the shard is damaged here (CRC-32); {_REMEDY}")
        return contents

    def place(self, row: int) -> str:
        """Return where an image is, for messages."""
        number = bisect_right(self._ends, row)
        record = row - (self._ends[number - 1] if number else 0)
        return f"{self._root / self._shards[number].name} record {record} ({self.names[row]})"

    def state(self, row: int) -> str:
        """Return a short text that changes when the image's contents change."""
        return f"{self._places[row]['bytes']} {self._places[row]['crc32']}"

    def _shard_of(self, row: int) -> ShardFile:
        return self._shards[bisect_right(self._ends, row)]


class _OpenFile:
    """A file that is open for reading at any position, until nothing refers to it any more."""

    def __init__(self, path: Path) -> None:
        self._number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_number"):
            os.close(self._number)

    def read(self, count: int, offset: int) -> bytes:
        return os.pread(self._number, count, offset)


def open_records(root: Path) -> Records:
    """Open a folder of records. Its index is mapped into memory, which the processes of a host share.

    Raises:
        UserError: the index is damaged, of another version, or does not fit the shards; or a shard is missing or has
            another size. The contents of the shards are checked when they are read.
    """
    header = _read_header(root)
    for shard in header.shards:
        _check_size(root / shard.name, shard)
    text = _load_array(root, NAMES, header, np.dtype(np.uint8))
    starts = _load_array(root, NAME_STARTS, header, np.dtype("<u8"))
    places = _load_array(root, PLACES, header, PLACE)
    names = Names(text, starts)
    try:
        names.check()
        _check_places(header, names, places)
    except ValueError as error:
        raise UserError(f"{root / INDEX}: inconsistent index: {error}; pack the images again") from None
    return Records(root, header, names, places)


def _read_header(root: Path) -> RecordsHeader:
    path = root / INDEX
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise UserError(
                f"{path}: {path.stat().st_size} bytes, more than {MAX_INDEX_BYTES}: not an index of records"
            )
        header = RecordsHeader.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("version",) and isinstance(version := first["input"], int) and version > VERSION:
            raise UserError(
                f"{path}: was written by a newer tfinpaint (version {version} of the format; this one reads "
                f"{VERSION}); update tfinpaint"
            ) from None
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: not an index of records, version {VERSION} ({where + ': ' if where else ''}{first['msg']}); pack "
            "the images again or, if this is a folder of plain images, rename that file"
        ) from None
    if missing := {NAMES, NAME_STARTS, PLACES} - set(header.arrays):
        raise UserError(f"{path}: {sorted(missing)[0]} is not listed; pack the images again")
    return header


def _check_size(path: Path, expected: ArrayFile) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; {_REMEDY}") from None
    if size != expected.bytes:
        raise UserError(f"{path}: has {size} bytes instead of {expected.bytes}; {_REMEDY}")


def _check_contents(path: Path, expected: ArrayFile) -> None:
    if sha256_of(path) != expected.sha256:
        raise UserError(f"{path}: is damaged (SHA-256); {_REMEDY}")


def _load_array(root: Path, name: str, header: RecordsHeader, dtype: np.dtype[Any]) -> np.ndarray:
    """Return a one-dimensional array of the index, mapped into memory, after checking its SHA-256."""
    path, expected = root / name, header.arrays[name]
    _check_size(path, expected)
    _check_contents(path, expected)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}; pack the images again") from None
    if array.dtype != dtype or array.ndim != 1:
        raise UserError(f"{path}: contains {array.dtype} {array.shape}, expected {dtype}; pack the images again")
    return np.asarray(array)


def _check_places(header: RecordsHeader, names: Names, places: np.ndarray) -> None:
    """Raise ValueError if an image is not inside its shard."""
    counted = sum(shard.images for shard in header.shards)
    if not len(names) == len(places) == counted == header.images:
        raise ValueError(f"{header.images} images, {counted} in shards, {len(names)} names, {len(places)} places")
    first = 0
    for shard in header.shards:
        inside = places[first : first + shard.images]
        first += shard.images
        if (inside["bytes"] > MAX_PACKED_BYTES).any():
            raise ValueError(f"an image of {inside['bytes'].max()} bytes in {shard.name}, at most {MAX_PACKED_BYTES}")
        # the first comparison excludes that begin + bytes overflows
        if (inside["begin"] > shard.bytes).any() or (inside["begin"] + inside["bytes"] > shard.bytes).any():
            raise ValueError(f"an image beyond the end of {shard.name}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's contents, hexadecimal.

    Raises:
        UserError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
                report_activity()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def verify_records(root: Path) -> tuple[int, int]:
    """Read all files of a folder of records and compare them with their checksums.

    Returns:
        (number of images, number of bytes in shards).

    Raises:
        UserError: files are damaged or missing; all of them are named.
    """
    header = _read_header(root)

    def check(shard: ShardFile) -> str:
        try:
            _check_contents(root / shard.name, shard)
        except UserError as error:
            return str(error)
        return ""

    checks = log_progress(parallel_map(check, header.shards), len(header.shards), f"Verifying the shards of {root}")
    if damaged := [line for line in checks if line]:
        raise UserError("\n".join(damaged))
    open_records(root)
    return header.images, sum(shard.bytes for shard in header.shards)
