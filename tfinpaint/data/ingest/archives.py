"""Zip and tar archives as sources of images: read member by member, never unpacked as they stand, bounded."""

from __future__ import annotations

import gzip
import logging
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from tfinpaint.data.images.decode import MAX_FILE_BYTES, UnreadableImageError
from tfinpaint.data.images.signatures import LOOKED_AT, what_it_is
from tfinpaint.data.listing.walk import in_one_line
from tfinpaint.errors import UserError

log = logging.getLogger(__name__)

MOST_EXPANSION = 250  # of a whole archive; deflate reaches 1032, photographs 1, scans of text 20
_SMALL = 64 * 2**20  # bytes that an archive may expand to in any case
_ZIP_ENCRYPTED = 0x1  # bit of a member's general purpose flags (APPNOTE.TXT, section 4.4.4)
_LOCAL_HEADER_BYTES = 30  # of a member in front of its name (section 4.3.7)
_MOST_HEADER_BYTES = 2**20  # of a tar member; that of a long name has a few hundred
_MOST_UNASKED, _LEAST_MEMBER_BYTES = 2**16, 64  # members of a tar file in any case; its bytes for each of more
_BLOCK = 2**20


@dataclass(frozen=True)
class Archive:
    """What is in an archive.

    Attributes:
        files: POSIX paths, sorted.
        folders: that have entries of their own.
        read: from a file's name, and most bytes or None for all, to its bytes; threads may call it at the same time.
            Raises UnreadableImageError for a file that is too large or cut, and what zipfile raises for damage.
        state: from a file's name to (size in bytes, a number that changes when the file does).
    """

    files: list[str]
    folders: list[str]
    read: Callable[[str, int | None], bytes]
    state: Callable[[str], tuple[int, int]]


@contextmanager
def open_archive(path: Path, scratch: Path) -> Iterator[Archive]:
    """Look into a zip file, a tar file or a gzipped one.

    Args:
        scratch: a folder that need not exist; there a compressed tar file is laid out while it is in use.

    Raises:
        UserError: it is none of these, damaged, or not one to trust.
        OSError: the scratch folder cannot be written.
    """
    try:
        file = path.open("rb")
        head = file.read(LOOKED_AT)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        if head[257:262] == b"ustar":
            yield _open_tar(path, file)
            return
        if head.startswith(b"\x1f\x8b"):
            with _decompressed(path, file, scratch) as whole:
                yield _open_tar(path, whole)
            return
    if not zipfile.is_zipfile(path):
        found = what_it_is(head)
        raise UserError(
            f"{path}: expected a folder, or a zip or tar file (.zip, .tar, .tar.gz, .tgz), of class folders"
            f"{f'; this is {found}' if found else ''}"
        )
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        raise UserError(f"{path}: is damaged or no zip file ({error}); copy it anew, or give the folder") from None
    with archive:
        yield _open_zip(path, archive)


def _posix(name: str) -> str:
    """The name of a member without "." and doubled slashes; Windows separates folders by backslashes."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _open_zip(path: Path, archive: zipfile.ZipFile) -> Archive:
    members: dict[str, zipfile.ZipInfo] = {}
    folders = []
    for info in archive.infolist():
        name = _posix(info.filename)
        _refuse(path, info.filename, _why_not_zip(info) or _why_not(info.filename, name in members))
        if info.filename.endswith(("/", "\\")):
            folders.append(name)
        else:
            members[name] = info
    _check_extent(path, list(members.values()))

    def read(name: str, most: int | None) -> bytes:
        size = members[name].file_size
        if most is None:
            check_size(size)
        with archive.open(members[name]) as file:
            # without a size all that is packed would be unpacked, whatever size was declared
            return file.read(size if most is None else min(size, most))

    return Archive(sorted(members), folders, read, lambda name: (members[name].file_size, members[name].CRC))


def _why_not_zip(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, no file"
    if info.flag_bits & _ZIP_ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in an unusual way"
    return None


def _why_not(name: str, is_twice: bool) -> str | None:
    """Why an archive with a member of this name is not opened; None for one that any program makes."""
    if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        return "leads out of the folder"
    if in_one_line(name) != name:
        return "is a name with control characters"
    return "is there twice" if is_twice else None


def _refuse(path: Path, name: str, wrong: str | None) -> None:
    if wrong:
        raise UserError(f"{path}: {ascii(name)[:200]} {wrong}; unpack what you trust of it and give the folder")


def _check_extent(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Bombs hold the same bytes again and again, packed or by members that overlap."""
    total = sum(info.file_size for info in members)
    if total > _most_bytes(path):
        raise _too_large(path, f"{total} bytes")
    end, before = 0, ""
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise UserError(f"{path}: {ascii(before)[:200]} and {ascii(info.filename)[:200]} overlap; copy it anew")
        end, before = info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size, info.filename


def _most_bytes(path: Path) -> int:
    return max(_SMALL, MOST_EXPANSION * path.stat().st_size)


def _too_large(path: Path, size: str) -> UserError:
    return UserError(f"{path}: would expand to {size}, more than {MOST_EXPANSION} times its size; not a set of images")


class _Headers:
    """A tar file for tarfile, which takes memory for as many bytes as a header claims to have."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _open_tar(path: Path, file: IO[bytes]) -> Archive:
    members: dict[str, tuple[int, int]] = {}  # begin, size
    folders = []
    archive_size, changed = path.stat().st_size, path.stat().st_mtime_ns
    try:
        file.seek(0)
        with tarfile.TarFile(fileobj=_Headers(file), mode="r") as archive:  # type: ignore[arg-type]
            while info := archive.next():
                name = _posix(info.name)
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                is_plain = (info.isreg() or info.isdir()) and not info.issparse()
                wrong = _why_not(info.name, name in members) if is_plain else "is a link or a device, no file"
                _refuse(path, info.name, wrong)
                if info.isdir():
                    folders.append(name)
                else:
                    members[name] = (info.offset_data, info.size)
                if len(members) + len(folders) > max(_MOST_UNASKED, archive_size // _LEAST_MEMBER_BYTES):
                    raise _too_large(path, f"more than {len(members)} files")
            end = archive.offset
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise UserError(f"{path}: is damaged or no tar file ({error}); copy it anew, or give the folder") from None
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes a damaged header for the end
        raise UserError(f"{path}: is damaged at byte {end} (no header there); copy it anew, or give the folder")

    def read(name: str, most: int | None) -> bytes:
        begin, size = members[name]
        if most is None:
            check_size(size)
        wanted = size if most is None else min(size, most)
        contents = os.pread(file.fileno(), wanted, begin)
        if len(contents) < wanted:
            raise UnreadableImageError(f"truncated: {len(contents)} of {wanted} bytes")
        return contents

    def state(name: str) -> tuple[int, int]:
        return members[name][1], (members[name][0] + changed) % 2**62

    return Archive(sorted(members), folders, read, state)


@contextmanager
def _decompressed(path: Path, file: IO[bytes], scratch: Path) -> Iterator[IO[bytes]]:
    """A gzipped file laid out in the scratch folder, without a name there."""
    log.info(f"{path}: unpacking it for the time it is in use")
    scratch.mkdir(parents=True, exist_ok=True)
    most, place = _most_bytes(path), scratch / "archive.tar"
    with place.open("w+b") as whole:
        place.unlink()
        file.seek(0)
        size = 0
        try:
            with gzip.GzipFile(fileobj=file, mode="rb") as packed:
                while block := packed.read(_BLOCK):
                    size += len(block)
                    if size > most:
                        raise _too_large(path, f"more than {most} bytes")
                    whole.write(block)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{path}: is damaged ({error}); copy it anew, or give the folder") from None
        whole.flush()
        yield whole


def check_size(size: int) -> None:
    """Refuse a file that is too large to be read at once. Raises UnreadableImageError."""
    if size > MAX_FILE_BYTES:
        raise UnreadableImageError(f"oversized: {size} bytes, more than {MAX_FILE_BYTES}")
