"""Open the source of images that are prepared: a folder, an archive, or the bundled digits."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tfinpaint.data.images.signatures import HEAD_BYTES, read_head
from tfinpaint.data.images.unreadable import UnreadableImageError, as_fault_of_file, is_resource_shortage
from tfinpaint.data.ingest.archives import Archive, check_size, open_archive
from tfinpaint.data.ingest.digits import write_digits
from tfinpaint.data.listing.excluded import ExcludedFiles, choose_images
from tfinpaint.data.listing.names import Names
from tfinpaint.data.listing.walk import is_hidden_or_system, walk_files
from tfinpaint.errors import UserError

DIGITS = "digits"  # the name of the data set that needs no download

ReadFile = Callable[[str], bytes]


@dataclass(frozen=True)
class Source:
    """The images of a folder or an archive.

    Attributes:
        path: as the user gave it.
        images: names of the images, POSIX paths, sorted; without hidden ones.
        excluded: folder ("" for the top) -> the other files in it.
        folders: all folders except hidden ones.
        read: returns the bytes of a file by its name; several threads may call it. Raises UnreadableImageError; for
            want of memory or descriptors OSError or MemoryError.
        state: returns (size in bytes, a number that changes when the file does) by the name; (0, 0) for a file that
            cannot be accessed, such as a link to none.
    """

    path: Path
    images: Names
    excluded: dict[str, ExcludedFiles]
    folders: frozenset[str]
    read: ReadFile
    state: Callable[[str], tuple[int, int]]

    def excluded_below(self, folder: str = "") -> ExcludedFiles:
        """Return the excluded files in a folder and all below it."""
        total = ExcludedFiles()
        for name, excluded in self.excluded.items():
            if not folder or name == folder or name.startswith(f"{folder}/"):
                total.merge(excluded)
        return total


@contextmanager
def open_source(path: Path, scratch: Path) -> Iterator[Source]:
    """Open a folder or an archive.

    Args:
        path: or "digits", for scikit-learn's digits, if there is no such file.
        scratch: a folder for temporary files, which need not exist.

    Raises:
        UserError: there is no such folder or archive, or the archive is damaged or unsafe.
    """
    if str(path) == DIGITS and not path.exists():
        yield _open_folder(path, write_digits(scratch), has_times=False)
    elif path.is_dir():
        yield _open_folder(path, path)
    elif path.is_file():
        with open_archive(path, scratch) as archive:
            yield _from_archive(path, archive)
    elif path.exists():  # opening a pipe would wait for somebody who writes into it
        raise UserError(f"{path}: is a pipe or a device; expected a folder or an archive")
    else:
        raise UserError(f"{path}: no such folder or archive")


def _open_folder(path: Path, folder: Path, *, has_times: bool = True) -> Source:
    folders: list[str] = []
    found: dict[str, ExcludedFiles] = defaultdict(ExcludedFiles)

    def on_folder(name: str, changed: int, hidden: int) -> None:
        folders.append(name[:-1])
        if hidden:
            found[name[:-1]].hidden += hidden

    @as_fault_of_file()
    def read(name: str) -> bytes:
        status = (folder / name).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device may have no end
            raise UnreadableImageError("not a regular file")
        check_size(status.st_size)
        return (folder / name).read_bytes()

    def state(name: str) -> tuple[int, int]:
        try:
            status = os.stat(os.path.join(folder, name))  # noqa: PTH116
        except OSError as error:
            if is_resource_shortage(error):
                raise
            return 0, 0
        return status.st_size, status.st_mtime_ns if has_times else 0

    names = walk_files(folder, on_folder)
    images = _choose(names, lambda name: read_head(os.path.join(folder, name)), found)
    return Source(path, images, found, frozenset(folders) - {""}, read, state)


def _from_archive(path: Path, archive: Archive) -> Source:
    found: dict[str, ExcludedFiles] = defaultdict(ExcludedFiles)
    hidden: set[str] = set()
    names = []
    for name in archive.files:
        if place := _hidden_part(name):
            hidden.add(place)
        else:
            names.append(name)
    for place in hidden:
        found[place.rpartition("/")[0]].hidden += 1
    read = as_fault_of_file()(archive.read)
    images = _choose(names, lambda name: read(name, HEAD_BYTES), found)
    folders = {folder for folder in archive.folders if folder != "." and not _hidden_part(folder)}
    for name in (*names, *folders):
        while (name := name.rpartition("/")[0]) and name not in folders:
            folders.add(name)
    return Source(path, images, found, frozenset(folders), lambda name: read(name, None), archive.state)


def _hidden_part(path: str) -> str:
    """Return the path up to the first hidden file or folder in it; "" if there is none."""
    parts = path.split("/")
    return next(("/".join(parts[: place + 1]) for place, part in enumerate(parts) if is_hidden_or_system(part)), "")


def _choose(names: Iterable[str], read_head: Callable[[str], bytes], found: dict[str, ExcludedFiles]) -> Names:
    """Return the images among the names, and add the other files to `found`, by folder."""
    return Names.of(
        choose_images(names, read_head, lambda name, reason: found[name.rpartition("/")[0]].add(name, reason))
    )
