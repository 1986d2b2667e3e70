"""The images of a plain folder, listed once and remembered until a directory changes."""

from __future__ import annotations

import logging
import os
import time
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from tfinpaint.data.images.signatures import read_head
from tfinpaint.data.listing import cache_path
from tfinpaint.data.listing.excluded import Skipped, choose_images
from tfinpaint.data.listing.names import Names
from tfinpaint.data.listing.walk import walk_files
from tfinpaint.storage.mapped_arrays import load_arrays
from tfinpaint.system.activity import reporting_activity

log = logging.getLogger(__name__)

SETTLED_NS = 2 * 10**9  # a directory that changed less than this before it was listed may yet change unnoticed


@dataclass(frozen=True)
class Index:
    """The files of a folder.

    Attributes:
        images: paths relative to the folder, sorted.
        skipped: the other files.
        folders: all directories, "" and such that end in "/".
        times: int64, modification time of each directory in nanoseconds.
    """

    images: Names
    skipped: Skipped
    folders: Names
    times: np.ndarray


def list_folder(root: Path) -> Index:
    """Return the images below a folder, from the cache where no directory has changed since, else by walking the tree.

    A file that was added, removed or renamed changes its directory's modification time; one whose contents change does
    not change the list.

    Raises:
        UserError: there is no such folder, or one below it cannot be read.
    """
    path = cache_path.cache_path("index", os.path.realpath(root))
    known = _load(path) if path else None
    if known and _unchanged(root, known):
        log.info(f"{root}: {len(known.images)} images as listed before ({path})")
        return known
    began = time.time_ns()
    index = _walk(root)
    if path and len(index.images) >= cache_path.LEAST_REMEMBERED and _settled(index, began) and _store(path, index):
        return _load(path) or index  # as loaded, the processes of a host share it
    return index


def _walk(root: Path) -> Index:
    folders: list[str] = []
    times = array("q")
    skipped = Skipped()

    def on_folder(folder: str, changed: int, hidden: int) -> None:
        folders.append(folder)
        times.append(changed)
        skipped.debris += hidden

    names = Names.of(
        choose_images(walk_files(root, on_folder), lambda name: read_head(os.path.join(root, name)), skipped.add)
    )
    return Index(names, skipped, Names.of(folders), np.array(times, np.int64))


def _unchanged(root: Path, index: Index) -> bool:
    """Whether every directory is there and has the modification time that it had."""
    try:
        return all(
            os.stat(os.path.join(root, folder)).st_mtime_ns == changed  # noqa: PTH116
            for folder, changed in reporting_activity(zip(index.folders, index.times.tolist(), strict=True))
        )
    except OSError:
        return False


def _settled(index: Index, began: int) -> bool:
    """Whether modification times can be relied on: there are any, and no directory has just been changed."""
    return index.times.min() > 0 and index.times.max() < began - SETTLED_NS


_DTYPES: dict[str, DTypeLike] = {
    "text": np.uint8, "starts": np.uint64, "skipped": np.uint8,
    "folder_text": np.uint8, "folder_starts": np.uint64, "times": np.int64,
}  # fmt: skip


def _store(path: Path, index: Index) -> bool:
    values = (
        index.images.text, index.images.starts, np.frombuffer(index.skipped.to_json().encode(), np.uint8),
        index.folders.text, index.folders.starts, index.times,
    )  # fmt: skip
    return cache_path.remember(path, dict(zip(_DTYPES, values, strict=True)))


def _load(path: Path) -> Index | None:
    found = load_arrays(path, _DTYPES)
    if not found:
        return None
    images, folders = Names(found["text"], found["starts"]), Names(found["folder_text"], found["folder_starts"])
    if len(folders) != len(found["times"]) or not len(images):
        return None
    try:
        skipped = Skipped.of_json(found["skipped"].tobytes())
    except ValueError:
        return None
    return Index(images, skipped, folders, found["times"])
