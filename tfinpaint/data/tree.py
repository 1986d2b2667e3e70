"""Walking a tree of files in sorted order, directory by directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tfinpaint.errors import UserError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

Identity = tuple[int, int]  # of a folder, whatever links lead to it: device and inode


def is_image(path: str) -> bool:
    """True for a name that ends as an image's does."""
    return path[path.rfind(".") :].lower() in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    """True for what a file manager or an archiver left behind."""
    return name.startswith((".", "__MACOSX"))


def class_folders(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name))


def walk_files(root: Path, on_folder: Callable[[str, int], None] = lambda folder, time: None) -> Iterator[str]:
    """All files below root, as sorted POSIX paths relative to it; hidden files and folders are left out.

    Links to folders are followed, but not into a folder that was visited before. One directory's names are in memory at
    a time, and those of the directories above it.

    Args:
        on_folder: called with every folder ("" for root, else ending in "/") and its modification time in nanoseconds,
            before what is in it is looked at.

    Raises:
        UserError: there is no such folder, or one below it cannot be read.
    """
    seen: set[Identity] = set()

    def enter(folder: str) -> tuple[str, list[str]]:
        try:
            time, names = read_folder(os.path.join(root, folder[:-1]) if folder else str(root), seen)
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
        on_folder(folder, time)
        # With its slash a folder's name stands where its files do in the order of all paths.
        return folder, sorted(names, reverse=True)

    above = [enter("")]
    while above:
        folder, names = above[-1]
        if not names:
            above.pop()
        elif (name := names.pop()).endswith("/"):
            above.append(enter(folder + name))
        else:
            yield folder + name


def read_folder(place: str, seen: set[Identity]) -> tuple[int, list[str]]:
    """(modification time in nanoseconds, names in a folder); folders end in "/".

    Args:
        seen: the folders visited so far; this one is added, and those in it are left out.
    """
    status = os.stat(place)  # noqa: PTH116 (before its names: what changes later is noticed by its time)
    seen.add((status.st_dev, status.st_ino))
    names = []
    with os.scandir(place) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if not _is_folder(entry):
                names.append(entry.name)
            elif _identity(entry) not in seen:
                names.append(f"{entry.name}/")
    return status.st_mtime_ns, names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _identity(entry: os.DirEntry[str]) -> Identity:
    status = os.stat(entry.path)  # noqa: PTH116
    return status.st_dev, status.st_ino
