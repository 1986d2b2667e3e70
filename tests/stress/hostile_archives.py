"""Archives that strangers could send to `prepare`."""

from __future__ import annotations

import io
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from good_inputs import Arguments, Good, Make


def archive_with(change: Callable[[zipfile.ZipFile], None]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        path = Path(shutil.copy(good.root / "archive.zip", folder / "x.zip"))
        with zipfile.ZipFile(path, "a") as archive:
            change(archive)
        return [path, out / "dest"]

    return make


def member(
    name: str = "a/x.png", contents: bytes = b"x", mode: int = 0, method: int = zipfile.ZIP_DEFLATED, **changed: int
) -> Make:
    """One member more; `changed` fields lie in the archive's directory."""

    def change(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, method
        archive.writestr(info, contents)
        for key, value in changed.items():
            setattr(archive.getinfo(name), key, value)

    return archive_with(change)


def overlapping(archive: zipfile.ZipFile) -> None:
    for info in archive.infolist()[1:]:
        info.header_offset = archive.infolist()[0].header_offset
    archive.comment = b"so that the directory is written"


def archive_of(contents: Callable[[bytes], bytes]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        (folder / "x.zip").write_bytes(contents((good.root / "archive.zip").read_bytes()))
        return [folder / "x.zip", out / "dest"]

    return make


def nested() -> bytes:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.png", bytes(2**22))
    return inner.getvalue()


def spoil_directory(contents: bytes) -> bytes:
    return contents.replace(b"PK\1\2", b"PK\1\3", 1)


BYTES_64MB = bytes(2**26)
ARCHIVES = {
    "path that climbs": member("../../../../canaries/x.png"),
    "absolute path": member("/canaries/a/x.png"),
    "backslashes": member("..\\..\\a\\x.png"),
    "drive letter": member("C:\\a\\x.png"),
    "symbolic link": member(contents=b"/etc/passwd", mode=0o120777),
    "device": member(mode=0o020666),
    "encrypted": member(flag_bits=1),
    "LZMA": member(method=zipfile.ZIP_LZMA, contents=bytes(2**20)),
    "bomb": member(contents=bytes(2**27)),
    "overlapping members": archive_with(overlapping),
    "name twice": member("a//0.png"),
    "terminal codes in a name": member("a/\x1b]0;x\a.png"),
    "exabytes, zip64": member(file_size=2**60, compress_size=2**60),
    "cut in half": archive_of(lambda contents: contents[: len(contents) // 2]),
    "spoilt directory": archive_of(spoil_directory),
    "end of another archive": archive_of(lambda contents: contents[-22:]),
    "text": archive_of(lambda _: b"no archive"),
}
LEFT_OUT = {
    "offset beyond the end": member(header_offset=2**40),
    "member larger than said": member(contents=BYTES_64MB, file_size=64, CRC=zlib.crc32(bytes(64))),
    "archive for an image": member(contents=nested()),
    "wrong checksum": member(CRC=1),
}
