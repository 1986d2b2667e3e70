"""Where images are taken from to be prepared: a folder, a zip file, or the bundled digits."""

from __future__ import annotations

import os
import re
import stat
import struct
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

MOST_EXPANSION = 250  # of a whole archive; deflate reaches 1032, photographs 1, scans of text 20
_SMALL = 64 * 2**20  # bytes that an archive may expand to in any case
_ZIP_ENCRYPTED = 0x1  # bit of a member's general purpose flags (APPNOTE.TXT, section 4.4.4)
_LOCAL_HEADER_BYTES = 30  # of a member in front of its name (section 4.3.7)

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
        UserError: there is no such folder or zip file, or the zip file is damaged or not one to trust.
    """
    if str(path) == DIGITS and not path.exists():
        digits = _open_folder(write_digits(scratch))
        yield Origin(path, digits.names, digits.read, lambda name: (digits.state(name)[0], 0))
    elif path.is_dir():
        yield _open_folder(path)
    elif zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
            raise UserError(f"{path}: is damaged or no zip file ({error}); copy it anew, or give the folder") from None
        with archive:
            yield _open_zip(path, archive)
    elif path.exists():
        raise UserError(f"{path}: expected a folder or a zip file of class folders")
    else:
        raise UserError(f"{path}: no such folder or zip file")


def _open_folder(path: Path) -> Origin:
    def read(name: str) -> bytes:
        status = (path / name).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device may have no end
            raise UnreadableImageError("not a file")
        _check_size(status.st_size)
        return (path / name).read_bytes()

    def state(name: str) -> tuple[int, int]:
        status = os.stat(os.path.join(path, name))  # noqa: PTH116
        return status.st_size, status.st_mtime_ns

    return Origin(path, Names.of(walk_files(path)), read, state)


def _open_zip(path: Path, archive: zipfile.ZipFile) -> Origin:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = PurePosixPath(info.filename).as_posix()
        if wrong := _why_refused(info, name in members):
            raise UserError(
                f"{path}: {ascii(info.filename)[:200]} {wrong}; unpack what you trust of it and give the folder"
            )
        if not info.is_dir():
            members[name] = info
    _check_extent(path, list(members.values()))

    def read(name: str) -> bytes:
        size = members[name].file_size
        _check_size(size)
        with archive.open(members[name]) as file:
            return file.read(size)  # without a size all that is packed would be unpacked, whatever size was declared

    names = sorted(name for name in members if not any(is_hidden(part) for part in name.split("/")))
    return Origin(path, Names.of(names), read, lambda name: (members[name].file_size, members[name].CRC))


def _why_refused(info: zipfile.ZipInfo, is_twice: bool) -> str | None:
    """Why an archive with this member is not opened; None for a member of an archive that any program makes."""
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, no file"
    if info.flag_bits & _ZIP_ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in an unusual way"
    if re.match(r"[/\\]|[A-Za-z]:", info.filename) or ".." in re.split(r"[/\\]", info.filename):
        return "leads out of the folder"
    if not info.filename.isprintable():
        return "is a name with control characters"
    return "is there twice" if is_twice else None


def _check_extent(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Bombs hold the same bytes again and again, packed or by members that overlap."""
    total = sum(info.file_size for info in members)
    if total > max(_SMALL, MOST_EXPANSION * path.stat().st_size):
        raise UserError(
            f"{path}: would expand to {total} bytes, more than {MOST_EXPANSION} times its size; not a set of images"
        )
    end, before = 0, ""
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise UserError(f"{path}: {ascii(before)[:200]} and {ascii(info.filename)[:200]} overlap; copy it anew")
        end, before = info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size, info.filename


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise UnreadableImageError(f"{size} bytes, more than {MAX_FILE_BYTES}")
