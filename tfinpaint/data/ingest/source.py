"""Where images are taken from to be prepared: a folder, an archive, or the bundled digits."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tfinpaint.data.images.decode import UnreadableImageError
from tfinpaint.data.images.signatures import LOOKED_AT, read_head
from tfinpaint.data.ingest.archives import Archive, check_size, open_archive
from tfinpaint.data.ingest.digits import write_digits
from tfinpaint.data.listing.excluded import Skipped, choose_images
from tfinpaint.data.listing.names import Names
from tfinpaint.data.listing.walk import is_hidden, walk_files
from tfinpaint.errors import UserError

DIGITS = "digits"  # the name of the data set that needs no download

# What reading a file of a folder or an archive may raise, where the file is at fault.
UNREADABLE = (UnreadableImageError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)

ReadFile = Callable[[str], bytes]


@dataclass(frozen=True)
class Source:
    """The files to choose from.

    Attributes:
        path: as it was given.
        images: names of the images, POSIX paths, sorted; without hidden ones.
        skipped: folder ("" for the top) -> the other files in it.
        folders: all folders; hidden ones are left out.
        read: from a name to the file's bytes; threads may call it at the same time.
            Raises UnreadableImageError for a file that is too large, and what the source raises where it is damaged.
        state: from a name to (size in bytes, a number that changes when the file does).
    """

    path: Path
    images: Names
    skipped: dict[str, Skipped]
    folders: frozenset[str]
    read: ReadFile
    state: Callable[[str], tuple[int, int]]

    def skipped_below(self, folder: str = "") -> Skipped:
        """Return the skipped files in a folder and all below it."""
        both = Skipped()
        for name, skipped in self.skipped.items():
            if not folder or name == folder or name.startswith(f"{folder}/"):
                both.merge(skipped)
        return both


@contextmanager
def open_source(path: Path, scratch: Path) -> Iterator[Source]:
    """Look into a folder or an archive.

    Args:
        path: or "digits", for scikit-learn's scans, where there is no such file.
        scratch: a folder that need not exist, for the digits, or for what is compressed.

    Raises:
        UserError: there is no such folder or archive, or the archive is damaged or not one to trust.
    """
    if str(path) == DIGITS and not path.exists():
        yield _open_folder(path, write_digits(scratch), has_times=False)
    elif path.is_dir():
        yield _open_folder(path, path)
    elif path.exists():
        with open_archive(path, scratch) as archive:
            yield _of_archive(path, archive)
    else:
        raise UserError(f"{path}: no such folder or archive")


def _open_folder(path: Path, folder: Path, *, has_times: bool = True) -> Source:
    folders: list[str] = []
    found = _Found()

    def on_folder(name: str, changed: int, hidden: int) -> None:
        folders.append(name[:-1])
        found.count_debris(name[:-1], hidden)

    def read(name: str) -> bytes:
        status = (folder / name).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device may have no end
            raise UnreadableImageError("not a file")
        check_size(status.st_size)
        return (folder / name).read_bytes()

    def state(name: str) -> tuple[int, int]:
        status = os.stat(os.path.join(folder, name))  # noqa: PTH116
        return status.st_size, status.st_mtime_ns if has_times else 0

    names = walk_files(folder, on_folder)
    images = found.choose(names, lambda name: read_head(os.path.join(folder, name)))
    return Source(path, images, found.skipped, frozenset(folders) - {""}, read, state)


def _of_archive(path: Path, archive: Archive) -> Source:
    found = _Found()
    hidden: set[str] = set()
    names = []
    for name in archive.files:
        if place := _hidden_part(name):
            hidden.add(place)
        else:
            names.append(name)
    for place in hidden:
        found.count_debris(place.rpartition("/")[0], 1)
    images = found.choose(names, lambda name: archive.read(name, LOOKED_AT))
    folders = {folder for folder in archive.folders if folder != "." and not _hidden_part(folder)}
    for name in (*names, *folders):
        while (name := name.rpartition("/")[0]) and name not in folders:
            folders.add(name)
    return Source(path, images, found.skipped, frozenset(folders), lambda name: archive.read(name, None), archive.state)


def _hidden_part(path: str) -> str:
    """The path as far as what is hidden in it; "" where nothing is."""
    parts = path.split("/")
    return next(("/".join(parts[: place + 1]) for place, part in enumerate(parts) if is_hidden(part)), "")


class _Found:
    """The images among files; the others are counted by folder."""

    def __init__(self) -> None:
        self.skipped: dict[str, Skipped] = {}

    def count_debris(self, folder: str, count: int) -> None:
        if count:
            self.skipped.setdefault(folder, Skipped()).debris += count

    def choose(self, names: Iterable[str], read: Callable[[str], bytes]) -> Names:
        def read_first(name: str) -> bytes:
            try:
                return read(name)
            except UNREADABLE as error:
                raise OSError(str(error)) from None

        def skip(name: str, why: str) -> None:
            self.skipped.setdefault(name.rpartition("/")[0], Skipped()).add(name, why)

        return Names.of(choose_images(names, read_first, skip))
