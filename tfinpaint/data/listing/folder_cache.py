"""List the images of a folder once, and cache the list until a directory changes."""

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
from tfinpaint.data.listing import cache
from tfinpaint.data.listing.excluded import ExcludedFiles, choose_images
from tfinpaint.data.listing.names import Names
from tfinpaint.data.listing.walk import walk_files
from tfinpaint.storage.mapped_arrays import load_arrays
from tfinpaint.system.activity import reporting_activity
from tfinpaint.system.paths import display_path
from tfinpaint.system.wording import counted

log = logging.getLogger(__name__)

SETTLED_NS = 2 * 10**9  # a directory that changed less than this before it was listed may change again unnoticed


@dataclass(frozen=True)
class FolderIndex:
    """The files of a folder.

    Attributes:
        images: paths relative to the folder, sorted.
        excluded: the files that are not used.
        folders: all directories: "" for the folder itself, the others ending in "/".
        times: int64, modification time of each directory in nanoseconds.
    """

    images: Names
    excluded: ExcludedFiles
    folders: Names
    times: np.ndarray


def list_folder(root: Path, *, quiet: bool = False) -> FolderIndex:
    """Return the files below a folder, from the cache if no directory has changed, else by walking the tree.

    Adding, removing or renaming a file changes its directory's modification time; changing its contents does not, nor
    does it change the list.

    Args:
        quiet: do not log that the cache was used.

    Raises:
        UserError: there is no such folder, or one below it cannot be read.
    """
    path = cache.cache_path("index", os.path.realpath(root))
    cached = _load(path) if path else None
    if cached and _is_unchanged(root, cached):
        if not quiet:
            images = counted(len(cached.images), "image")
            log.info(f"{display_path(Path(root))}: {images}, listed from the cache ({path})")
        return cached
    began = time.time_ns()
    index = _walk(root)
    # Modification times are reliable if there are any and no directory has just been changed.
    settled = index.times.min() > 0 and index.times.max() < began - SETTLED_NS
    if path and len(index.images) >= cache.MIN_IMAGES and settled and _store(path, index):
        return _load(path) or index  # the processes of a host share what is loaded
    return index


def _walk(root: Path) -> FolderIndex:
    folders: list[str] = []
    times = array("q")
    excluded = ExcludedFiles()

    def on_folder(folder: str, changed: int, hidden: int) -> None:
        folders.append(folder)
        times.append(changed)
        excluded.hidden += hidden

    names = Names.of(
        choose_images(walk_files(root, on_folder), lambda name: read_head(os.path.join(root, name)), excluded.add)
    )
    return FolderIndex(names, excluded, Names.of(folders), np.array(times, np.int64))


def _is_unchanged(root: Path, index: FolderIndex) -> bool:
    """Return True if every directory exists and has the modification time that it had."""
    try:
        return all(
            os.stat(os.path.join(root, folder)).st_mtime_ns == changed  # noqa: PTH116
            for folder, changed in reporting_activity(zip(index.folders, index.times.tolist(), strict=True))
        )
    except OSError:
        return False


_DTYPES: dict[str, DTypeLike] = {
    "text": np.uint8, "starts": np.uint64, "skipped": np.uint8,
    "folder_text": np.uint8, "folder_starts": np.uint64, "times": np.int64,
}  # fmt: skip


def _store(path: Path, index: FolderIndex) -> bool:
    values = (
        index.images.text, index.images.starts, np.frombuffer(index.excluded.to_json().encode(), np.uint8),
        index.folders.text, index.folders.starts, index.times,
    )  # fmt: skip
    return cache.store_in_cache(path, dict(zip(_DTYPES, values, strict=True)))


def _load(path: Path) -> FolderIndex | None:
    found = load_arrays(path, _DTYPES)
    if not found:
        return None
    images, folders = Names(found["text"], found["starts"]), Names(found["folder_text"], found["folder_starts"])
    if len(folders) != len(found["times"]) or not len(images):
        return None
    try:
        return FolderIndex(images, ExcludedFiles.from_json(found["skipped"].tobytes()), folders, found["times"])
    except (ValueError, TypeError):
        return None
