"""Walking a tree of files in sorted order, directory by directory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tfinpaint.errors import UserError
from tfinpaint.system.activity import report_activity, reporting_activity
from tfinpaint.system.paths import is_text

# Of the formats that are decoded. Files of other endings are images too where their first bytes say so.
IMAGE_SUFFIXES = frozenset(
    {
        *(".apng", ".bmp", ".gif", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".pjpeg", ".png", ".pnm"),
        *(".ppm", ".tif", ".tiff", ".webp"),
    }
)
_DEBRIS = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"})

_LONGEST_ENDING = 16  # characters; a longer one is a part of a sentence
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Identity = tuple[int, int]  # of a folder, whatever links lead to it: device and inode


def ending_of(path: str) -> str:
    """Return the ending of a file's name with its dot, in lower case; "" where it has none."""
    name = path[path.rfind("/") + 1 :]
    place = name.rfind(".")
    return name[place:].lower() if place > 0 and len(name) - place <= _LONGEST_ENDING else ""


def in_one_line(path: str) -> str:
    """Return a path for messages: without line ends and other characters that a terminal obeys."""
    return _CONTROL.sub("?", path)


def is_image(path: str) -> bool:
    """Return True for a name that ends as an image's does."""
    return path[path.rfind(".") :].lower() in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Return True for what an operating system, a file manager or an archiver left behind."""
    return name.startswith((".", "__MACOSX")) or name.lower() in _DEBRIS


def check_class_names(root: Path, names: Iterable[str]) -> None:
    """Refuse classes whose names are no text: checkpoints, reports and records hold them. Raises UserError."""
    for name in names:
        if not is_text(name):
            raise UserError(f"{root}: class folder {name!a}: expected a name in UTF-8; rename it")


def class_folders(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name))


def walk_files(
    root: Path, on_folder: Callable[[str, int, int], None] = lambda folder, time, hidden: None
) -> Iterator[str]:
    """Yield all files below root, as sorted POSIX paths relative to it; hidden files and folders are left out.

    Links to folders are followed, but not into a folder that was visited before. One directory's names are in memory at
    a time, and those of the directories above it.

    Args:
        on_folder: called with every folder ("" for root, else ending in "/"), its modification time in nanoseconds and
            the number of hidden entries in it, before what is in it is yielded.

    Raises:
        UserError: there is no such folder, or one below it cannot be read.
    """
    seen: set[Identity] = set()

    def enter(folder: str) -> tuple[str, list[str]]:
        report_activity()
        try:
            time, names, hidden = read_folder(os.path.join(root, folder[:-1]) if folder else str(root), seen)
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
        on_folder(folder, time, hidden)
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


def read_folder(place: str, seen: set[Identity]) -> tuple[int, list[str], int]:
    """Return (modification time in nanoseconds, names in a folder, number of hidden ones); folders end in "/".

    Args:
        seen: the folders visited so far; this one is added, and those in it are left out.
    """
    status = os.stat(place)  # noqa: PTH116 (before its names: what changes later is noticed by its time)
    seen.add((status.st_dev, status.st_ino))
    names, hidden = [], 0
    with os.scandir(place) as entries:
        for entry in reporting_activity(entries):  # a network file system may be asked about each
            if is_hidden(entry.name):
                hidden += 1
            elif not _is_folder(entry):
                names.append(entry.name)
            elif _identity(entry) not in seen:
                names.append(f"{entry.name}/")
    return status.st_mtime_ns, names, hidden


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _identity(entry: os.DirEntry[str]) -> Identity:
    status = os.stat(entry.path)  # noqa: PTH116
    return status.st_dev, status.st_ino
