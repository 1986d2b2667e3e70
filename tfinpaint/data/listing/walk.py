"""Walk a tree of files in sorted order, one folder at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tfinpaint.errors import UserError
from tfinpaint.system.activity import report_activity, reporting_activity
from tfinpaint.system.paths import is_text

# The usual extensions of the formats that are decoded. Other files are images too if their first bytes say so.
IMAGE_EXTENSIONS = frozenset({
    ".apng", ".bmp", ".gif", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".pjpeg", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
})  # fmt: skip
_SYSTEM_FILES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"}
)
_LONGEST_EXTENSION = 16  # characters, with the dot
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

FolderId = tuple[int, int]  # device and inode: the same for a folder and for all links to it


def extension_of(path: str) -> str:
    """Return the extension of a file's name with its dot, in lower case; "" if it has none, or one that is too long."""
    name = path[path.rfind("/") + 1 :]
    place = name.rfind(".")
    return name[place:].lower() if place > 0 and len(name) - place <= _LONGEST_EXTENSION else ""


def printable(path: str) -> str:
    """Return a path for messages: control characters and line ends are replaced by "?"."""
    return _CONTROL_CHARACTERS.sub("?", path)


def has_image_extension(path: str) -> bool:
    """Return True for the name of an image in a supported format."""
    return path[path.rfind(".") :].lower() in IMAGE_EXTENSIONS


def is_hidden_or_system(name: str) -> bool:
    """Return True for a hidden file, or one that an operating system, file manager or archiver creates."""
    return name.startswith((".", "__MACOSX")) or name.lower() in _SYSTEM_FILES


def check_class_names(root: Path, names: Iterable[str]) -> None:
    """Raise UserError if the name of a class is not UTF-8, or has control characters.

    Checkpoints, reports and records hold these names, and messages have them in one line.
    """
    for name in names:
        if not is_text(name) or printable(name) != name:
            raise UserError(
                f"{root}: class folder {name!a}: expected a name in UTF-8 without control characters; rename it"
            )


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones."""
    return sorted(entry.name for entry in os.scandir(root) if _is_folder(entry) and not is_hidden_or_system(entry.name))


def walk_files(
    root: Path, on_folder: Callable[[str, int, int], None] = lambda folder, time, hidden: None
) -> Iterator[str]:
    """Yield all files below root except hidden ones, as sorted POSIX paths relative to it.

    Links to folders are followed, but each folder is visited only once. The names in memory are those of one folder
    and of the folders above it.

    Args:
        on_folder: called with every folder ("" for root, the others ending in "/"), its modification time in
            nanoseconds and the number of hidden entries in it, before its files are yielded.

    Raises:
        UserError: there is no such folder, or one below it cannot be read.
    """
    seen: set[FolderId] = set()

    def enter(folder: str) -> tuple[str, list[str]]:
        report_activity()
        try:
            time, names, hidden = read_folder(os.path.join(root, folder[:-1]) if folder else str(root), seen)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not folder:
                raise UserError(f"{root}: no such file or folder") from None
            raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
        on_folder(folder, time, hidden)
        return folder, sorted(names, reverse=True)  # "a/" sorts where the paths of its files do

    above = [enter("")]
    while above:
        folder, names = above[-1]
        if not names:
            above.pop()
        elif (name := names.pop()).endswith("/"):
            above.append(enter(folder + name))
        else:
            yield folder + name


def read_folder(place: str, seen: set[FolderId]) -> tuple[int, list[str], int]:
    """Return (modification time in nanoseconds, names in a folder, number of hidden entries); folders end in "/".

    Args:
        seen: the folders visited so far, whose names are not returned; this folder is added.
    """
    status = os.stat(place)  # noqa: PTH116 (read before the names: a later change changes the time)
    seen.add((status.st_dev, status.st_ino))
    names, hidden = [], 0
    with os.scandir(place) as entries:
        for entry in reporting_activity(entries):
            if is_hidden_or_system(entry.name):
                hidden += 1
            elif not _is_folder(entry):
                names.append(entry.name)
            elif _folder_id(entry) not in seen:
                names.append(f"{entry.name}/")
    return status.st_mtime_ns, names, hidden


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _folder_id(entry: os.DirEntry[str]) -> FolderId:
    status = os.stat(entry.path)  # noqa: PTH116
    return status.st_dev, status.st_ino
