"""Where images are taken from to be prepared: a folder, a zip file, or the bundled digits."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tfinpaint.data.decode import MAX_FILE_BYTES, UnreadableImageError
from tfinpaint.data.digits import write_digits
from tfinpaint.data.names import Names
from tfinpaint.data.tree import is_hidden, walk_files
from tfinpaint.errors import UserError

DIGITS = "digits"  # the name of the data set that needs no download

_ZIP_ENCRYPTED = 0x1  # bit of a member's general purpose flags (APPNOTE.TXT, section 4.4.4)

ReadFile = Callable[[str], bytes]


@dataclass(frozen=True)
class Origin:
    """The files to choose from.

    Attributes:
        path: as it was given.
        names: of all files, POSIX paths, sorted; without hidden ones.
        read: from a name to the file's bytes; threads may call it at the same time.
            Raises UnreadableImageError for a file that is too large, and what the source raises where it is damaged.
        state: from a name to (size in bytes, a number that changes when the file does).
    """

    path: Path
    names: Names
    read: ReadFile
    state: Callable[[str], tuple[int, int]]


@contextmanager
def open_origin(path: Path, scratch: Path) -> Iterator[Origin]:
    """Look into a folder or a zip file.

    Args:
        path: or "digits", for scikit-learn's scans, where there is no such file.
        scratch: a folder that need not exist, for the digits.

    Raises:
        UserError: there is no such folder or zip file.
    """
    if str(path) == DIGITS and not path.exists():
        digits = _open_folder(write_digits(scratch))
        yield Origin(path, digits.names, digits.read, lambda name: (digits.state(name)[0], 0))
    elif path.is_dir():
        yield _open_folder(path)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield _open_zip(path, archive)
    elif path.exists():
        raise UserError(f"{path}: expected a folder or a zip file of class folders")
    else:
        raise UserError(f"{path}: no such folder or zip file")


def _open_folder(path: Path) -> Origin:
    def read(name: str) -> bytes:
        _check_size((path / name).stat().st_size)
        return (path / name).read_bytes()

    def state(name: str) -> tuple[int, int]:
        status = os.stat(os.path.join(path, name))  # noqa: PTH116
        return status.st_size, status.st_mtime_ns

    return Origin(path, Names.of(walk_files(path)), read, state)


def _open_zip(path: Path, archive: zipfile.ZipFile) -> Origin:
    members = {PurePosixPath(info.filename).as_posix(): info for info in archive.infolist() if not info.is_dir()}
    if any(info.flag_bits & _ZIP_ENCRYPTED for info in members.values()):
        raise UserError(f"{path}: the archive is encrypted; unpack it and give the folder")

    def read(name: str) -> bytes:
        _check_size(members[name].file_size)
        return archive.read(members[name])

    names = sorted(name for name in members if not any(is_hidden(part) for part in name.split("/")))
    return Origin(path, Names.of(names), read, lambda name: (members[name].file_size, members[name].CRC))


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise UnreadableImageError(f"{size} bytes, more than {MAX_FILE_BYTES}")
