"""Images packed into a few large files: TFRecord shards, and an index of where in them each image is.

A folder of records holds

- `records.json`: version, number of images, classes, and of every other file its size and SHA-256;
- `images-00000-of-00016.tfrecord`, ...: a tf.train.Example for each image, for any reader of TFRecord;
- `names.npy`, `name_starts.npy`: the images' paths, sorted (`data.names`);
- `places.npy`: where the bytes of each image's own file stand in its shard, and their CRC-32.

So an image is read by its number, in any order, without a look at the others. No TensorFlow: files and numpy only.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import zlib
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tfinpaint.data.images.decode import MAX_FILE_BYTES, UnreadableImageError, is_of_the_process
from tfinpaint.data.listing.names import Names
from tfinpaint.errors import UserError
from tfinpaint.system.activity import report_activity
from tfinpaint.system.parallel import parallel_map
from tfinpaint.system.progress import log_progress

INDEX = "records.json"
NAMES, NAME_STARTS, PLACES = "names.npy", "name_starts.npy", "places.npy"
FORMAT: Literal["tfinpaint records"] = "tfinpaint records"
VERSION: Literal[1] = 1
MAX_INDEX_BYTES = 64 * 2**20  # of records.json; a hundred bytes a shard
OPEN_SHARDS = 128  # open at the same time, in a process

# little-endian: an image's first byte in its shard, number of bytes, zlib.crc32 of them
PLACE = np.dtype([("begin", "<u8"), ("bytes", "<u4"), ("crc32", "<u4")])


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ArrayFile(_Section):
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ShardFile(ArrayFile):
    name: str = Field(pattern=r"^images-\d{5,}-of-\d{5,}\.tfrecord$")
    images: int = Field(ge=0)


class RecordsHeader(_Section):
    """records.json.

    Attributes:
        classes: of the labels in the shards (image/class/label), by number; () for images without classes.
        shards: in the order of the images.
        arrays: the index's other files, by name.
    """

    format: Literal["tfinpaint records"]
    version: Literal[1] = VERSION
    images: int = Field(ge=1, lt=2**32)
    classes: list[str]
    shards: list[ShardFile]
    arrays: dict[str, ArrayFile]


def is_records(root: Path) -> bool:
    """True for a folder that holds records, damaged or not."""
    return (root / INDEX).is_file()


class Records:
    """The images of a folder of records. Threads may read at the same time.

    Attributes:
        names: path of each image in what was packed, sorted.
    """

    def __init__(self, root: Path, contents: RecordsHeader, names: Names, places: np.ndarray) -> None:
        self.names = names
        self._root, self._shards, self._places = root, contents.shards, places
        self._ends = list(accumulate(shard.images for shard in contents.shards))
        # A descriptor that falls out of the cache is closed when the last thread that reads from it lets go.
        self._open = functools.lru_cache(OPEN_SHARDS)(_Descriptor)

    def read(self, row: int) -> bytes:
        """The bytes of an image's file.

        Raises:
            UnreadableImageError: they are not what was written.
            OSError: the process has no more descriptors or memory.
        """
        place = self._places[row]
        try:
            contents = self._open(self._root / self._shard_of(row).name).read(int(place["bytes"]), int(place["begin"]))
        except OSError as error:
            if is_of_the_process(error):
                raise
            raise UnreadableImageError(f"the shard cannot be read: {error.strerror}; {_REMEDY}") from None
        if len(contents) < place["bytes"]:
            raise UnreadableImageError(f"the shard ends too early; {_REMEDY}")
        if zlib.crc32(contents) != place["crc32"]:
            raise UnreadableImageError(f"the bytes are not those that were written (checksum); {_REMEDY}")
        return contents

    def place(self, row: int) -> str:
        """Where an image is, for messages."""
        number = bisect_right(self._ends, row)
        record = row - (self._ends[number - 1] if number else 0)
        return f"{self._root / self._shards[number].name} record {record} ({self.names[row]})"

    def state(self, row: int) -> str:
        """What changes with an image's contents."""
        return f"{self._places[row]['bytes']} {self._places[row]['crc32']}"

    def _shard_of(self, row: int) -> ShardFile:
        return self._shards[bisect_right(self._ends, row)]


_REMEDY = "see all that is damaged with `tfinpaint prepare --verify`, then copy it or pack the images again"


class _Descriptor:
    """A file that is open for reading at any place, until nobody refers to it any more."""

    def __init__(self, path: Path) -> None:
        self._number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_number"):
            os.close(self._number)

    def read(self, count: int, offset: int) -> bytes:
        return os.pread(self._number, count, offset)


def open_records(root: Path) -> Records:
    """The images of a folder of records, its index mapped into memory: processes of one host share it.

    Raises:
        UserError: the index is damaged, of another version, or does not fit the shards; or a shard is missing or has
            another size. What the shards hold is checked when it is read.
    """
    contents = _read_contents(root)
    for shard in contents.shards:
        _check_size(root / shard.name, shard)
    text = _load_array(root, NAMES, contents, np.dtype(np.uint8))
    starts = _load_array(root, NAME_STARTS, contents, np.dtype("<u8"))
    places = _load_array(root, PLACES, contents, PLACE)
    names = Names(text, starts)
    try:
        names.check()
        _check_places(contents, names, places)
    except ValueError as error:
        raise UserError(f"{root / INDEX}: not an index that was written here: {error}; pack the images again") from None
    return Records(root, contents, names, places)


def _read_contents(root: Path) -> RecordsHeader:
    path = root / INDEX
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes, more than {MAX_INDEX_BYTES}: no index of records")
        text = path.read_bytes()
        _refuse_newer(path, text)
        contents = RecordsHeader.model_validate_json(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: not an index of records, version {VERSION} ({where + ': ' if where else ''}{first['msg']}); pack "
            "the images again, or, where this is a folder of plain images, give that file another name"
        ) from None
    if missing := {NAMES, NAME_STARTS, PLACES} - set(contents.arrays):
        raise UserError(f"{path}: names no {sorted(missing)[0]}; pack the images again")
    return contents


def _refuse_newer(path: Path, index: bytes) -> None:
    """Refuse an index of a version that is not known yet."""
    try:
        found = json.loads(index)
    except (ValueError, RecursionError):  # told in the words of the validation
        return
    if isinstance(found, dict) and found.get("format") == FORMAT:
        version = found.get("version")
        if isinstance(version, int) and version > VERSION:
            raise UserError(
                f"{path}: was written by a newer tfinpaint (its version is {version}, this one reads {VERSION}); "
                "update tfinpaint"
            )


def _check_size(path: Path, expected: ArrayFile) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; {_REMEDY}") from None
    if size != expected.bytes:
        raise UserError(f"{path}: has {size} bytes, {expected.bytes} were written; {_REMEDY}")


def _load_array(root: Path, name: str, contents: RecordsHeader, dtype: np.dtype[Any]) -> np.ndarray:
    """A one-dimensional array of the index, mapped into memory, after a look at its checksum."""
    path, expected = root / name, contents.arrays[name]
    _check_size(path, expected)
    _check_contents(path, expected)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}; pack the images again") from None
    if array.dtype != dtype or array.ndim != 1:
        raise UserError(f"{path}: holds {array.dtype} {array.shape}, expected {dtype}; pack the images again")
    return np.asarray(array)


def _check_places(contents: RecordsHeader, names: Names, places: np.ndarray) -> None:
    """Every image lies within its shard. Raises ValueError."""
    counted = sum(shard.images for shard in contents.shards)
    if not len(names) == len(places) == counted == contents.images:
        raise ValueError(f"{contents.images} images, {counted} in shards, {len(names)} names, {len(places)} places")
    first = 0
    for shard in contents.shards:
        inside = places[first : first + shard.images]
        first += shard.images
        if (inside["bytes"] > MAX_FILE_BYTES).any():
            raise ValueError(f"an image of {inside['bytes'].max()} bytes in {shard.name}, at most {MAX_FILE_BYTES}")
        # begin + bytes might overflow
        if (inside["begin"] > shard.bytes).any() or (inside["begin"] + inside["bytes"] > shard.bytes).any():
            raise ValueError(f"an image beyond the end of {shard.name}")


def _check_contents(path: Path, expected: ArrayFile) -> None:
    if sha256_of(path) != expected.sha256:
        raise UserError(f"{path}: the bytes are not those that were written (SHA-256); {_REMEDY}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's contents, hexadecimal.

    Raises:
        UserError: it cannot be read.
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
    """Read everything and compare it with its checksums.

    Returns:
        (number of images, number of bytes in shards).

    Raises:
        UserError: a file is damaged or missing; all of them are named.
    """
    contents = _read_contents(root)

    def check(shard: ShardFile) -> str:
        try:
            _check_contents(root / shard.name, shard)
        except UserError as error:
            return str(error)
        return ""

    checks = log_progress(parallel_map(check, contents.shards), len(contents.shards), f"Verifying the shards of {root}")
    if damaged := [line for line in checks if line]:
        raise UserError("\n".join(damaged))
    open_records(root)
    return contents.images, sum(shard.bytes for shard in contents.shards)
