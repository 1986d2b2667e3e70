"""Zip and tar archives as sources: the same result as from a folder, and what is refused."""

import gzip
import io
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from conftest import tree, write_images, zipped

from tfinpaint.data.ingest import archives
from tfinpaint.data.ingest.copy import prepare
from tfinpaint.data.ingest.pack import prepare_records
from tfinpaint.errors import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("source") / "set", {"a": 6, "b": 5})


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory) -> dict[str, bytes]:
    prepare(source, dest := tmp_path_factory.mktemp("expected") / "dest")
    return tree(dest)


def tarred(source: Path, path: Path, mode: str = "w:gz", change=lambda file: None, **options) -> Path:
    with tarfile.open(path, mode, **options) as file:
        file.add(source, "./x/set")
        change(file)
    return path


def test_windows_zips_with_backslashes(source, expected, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for name, contents in tree(source).items():
            file.writestr("set\\" + name.replace("/", "\\"), contents)
        file.writestr("set\\a\\", b"")
    assert prepare(tmp_path / "x.zip", tmp_path / "dest").counts == {"a": (5, 1), "b": (4, 1)}
    assert tree(tmp_path / "dest") == expected


def test_spaces_of_macos_screenshots_are_no_control_characters(source, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for name, contents in tree(source).items():
            file.writestr(f"set/{name[:-4]} at 1.00\u202fPM.png", contents)
    assert prepare(tmp_path / "x.zip", tmp_path / "dest").counts == {"a": (5, 1), "b": (4, 1)}


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "noending"])
def test_tar_files_of_every_kind(source, expected, tmp_path, kind, name):
    archive = tarred(source, tmp_path / name, "w:gz" if name == "x.tar.gz" else "w", format=kind)
    prepare(archive, tmp_path / "dest")
    assert tree(tmp_path / "dest") == expected
    assert {path.name for path in tmp_path.iterdir()} == {"dest", name}


def test_long_and_undecodable_names_in_a_tar_file(source, tmp_path):
    odd = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    long = "n" * 150 + ".png"

    def change(file):
        for number, name in enumerate((odd, long)):
            file.add(source / "a" / f"00{number}.png", f"./x/set/a/{name}")

    tarred(source, tmp_path / "x.tgz", change=change)
    assert sum(prepare(tmp_path / "x.tgz", tmp_path / "dest").counts["a"]) == 8
    assert {odd, long} <= {path.name for path in (tmp_path / "dest").rglob("*")}
    with pytest.raises(
        UserError, match=r"caf\\udce9\.png': the file's name is not UTF-8, which records need; rename it"
    ):
        prepare_records(tmp_path / "x.tgz", tmp_path / "records")


def test_records_of_a_tar_file_are_those_of_the_folder(source, tmp_path):
    prepare_records(tarred(source, tmp_path / "x.tgz"), tmp_path / "one")
    prepare_records(source, tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def add(name="x/set/a/x.png", contents=b"x", **fields):
    def change(file):
        info = tarfile.TarInfo(name)
        info.size = len(contents)
        for key, value in fields.items():
            setattr(info, key, value)
        if fields:  # the header alone, whatever size it claims
            file.fileobj.write(header := info.tobuf(file.format))
            file.offset += len(header)
        else:
            file.addfile(info, io.BytesIO(contents))

    return change


UNTRUSTED_TAR = {
    "absolute": (add("/etc/a/x.png"), "'/etc/a/x.png' points outside the folder"),
    "climbing": (add("../../a/x.png"), "points outside the folder"),
    "climbing backslashes": (add("..\\a\\x.png"), "points outside the folder"),
    "link": (add(type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0), "'x/set/a/x.png' is a link or a device"),
    "hard link": (add(type=tarfile.LNKTYPE, linkname="x/set/a/000.png", size=0), "is a link or a device"),
    "device": (add(type=tarfile.CHRTYPE, size=0), "is a link or a device"),
    "pipe": (add(type=tarfile.FIFOTYPE, size=0), "is a link or a device"),
    "sparse": (add(pax_headers={"GNU.sparse.size": "99", "GNU.sparse.map": "0,1"}, size=0), "is a link or a device"),
    "control characters": (add("x/set/a/\x1b[2J.png"), "has control characters in its name"),
    "twice": (add("x/set//a/000.png"), "'x/set//a/000.png' occurs twice"),
    "absurd size": (add(size=2**40), "is damaged or not a tar file (unexpected end of data)"),
    "long header": (add("x" * (2**20 + 9)), "a header of 10"),
}  # fmt: skip


def changed_zip(source: Path, folder: Path, change=lambda file: None) -> Path:
    """A zip of the source, with one member more, or changed."""
    with zipfile.ZipFile(zipped(source, folder / "x.zip", "set/"), "a") as file:
        change(file)
    return folder / "x.zip"


def member(name="set/a/x.png", contents=b"x", mode=0, method=zipfile.ZIP_DEFLATED, **fields):
    def add(file):
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, method
        file.writestr(info, contents)
        for key, value in fields.items():  # in the central directory alone
            setattr(file.getinfo(name), key, value)

    return add


UNTRUSTED_ZIP = {
    "absolute": (member("/etc/a/x.png"), "'/etc/a/x.png' points outside the folder"),
    "climbing": (member("../../outside/a/x.png"), "outside/a/x.png' points outside the folder"),
    "climbing backslashes": (member("..\\..\\a\\x.png"), "points outside the folder"),
    "drive": (member("C:\\a\\x.png"), "points outside the folder"),
    "link": (member(mode=0o120777, contents=b"/etc/passwd"), "'set/a/x.png' is a link or a device"),
    "device": (member(mode=0o020666), "is a link or a device"),
    "encrypted": (member(flag_bits=1), "is encrypted"),
    "lzma": (member(method=zipfile.ZIP_LZMA), "has an unsupported compression"),
    "control characters": (member("set/a/\x1b[2J.png"), r"'set/a/\x1b[2J.png' has control characters in its name"),
    "twice by backslashes": (member("set\\a\\000.png"), "occurs twice"),
    "twice": (member("set//a/000.png"), "'set//a/000.png' occurs twice"),
    "bomb": (member(contents=bytes(2**27)), "bytes, more than 250 times its size"),
    "absurd size": (member(file_size=2**62), "would expand to 46"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "case"), [("tar", case) for case in UNTRUSTED_TAR] + [("zip", case) for case in UNTRUSTED_ZIP]
)
def test_archives_that_nobody_makes_of_images_are_refused(source, tmp_path, kind, case):
    change, message = {"tar": UNTRUSTED_TAR, "zip": UNTRUSTED_ZIP}[kind][case]
    archive = (
        tarred(source, tmp_path / "x.tar", "w", change) if kind == "tar" else changed_zip(source, tmp_path, change)
    )
    with pytest.raises(UserError) as raised:
        prepare(archive, tmp_path / "dest")
    assert str(raised.value).startswith(f"{archive}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == [archive]


def test_bombs_take_no_memory_and_no_disk(source, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_ALWAYS_ALLOWED", 2**20)
    (tmp_path / "x.tgz").write_bytes(gzip.compress(bytes(2**26)))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"would expand to more than .* bytes, more than 250 times its size"):
        prepare(tmp_path / "x.tgz", tmp_path / "dest")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    monkeypatch.setattr(archives, "_ALWAYS_ALLOWED", 2**30)
    monkeypatch.setattr(archives, "_ALWAYS_ALLOWED_MEMBERS", 50)

    def change(file):
        for number in range(2000):
            file.addfile(tarfile.TarInfo(f"x/set/a/{number}.png"))

    with pytest.raises(UserError, match=r"would expand to more than \d+ files"):
        prepare(tarred(source, tmp_path / "y.tgz", change=change), tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize("kind", ["tar", "tgz"])
def test_damage_is_told(source, tmp_path, kind):
    path = tarred(source, tmp_path / f"x.{kind}", "w" if kind == "tar" else "w:gz")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:3000] + bytes([255] * 2000) + whole[5000:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"x\.{kind}: is damaged"):
            prepare(path, tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize(
    ("contents", "what"),
    [(b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7z archive"), (b"\xfd7zXZ\0" + bytes(99), "an xz archive"), (b"", "")],
)
def test_other_archives_are_named(tmp_path, contents, what):
    (tmp_path / "x.tar.gz").write_bytes(contents)
    with pytest.raises(UserError, match=f"expected a folder, or a zip or tar file .*{what}"):
        prepare(tmp_path / "x.tar.gz", tmp_path / "dest")
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(b"a gzipped text"))
    with pytest.raises(UserError, match=r"x\.tar\.gz: is damaged or not a tar file"):
        prepare(tmp_path / "x.tar.gz", tmp_path / "dest")


def test_a_member_is_unpacked_no_further_than_it_says(source, tmp_path):
    contents = bytes(2**26)
    archive = changed_zip(source, tmp_path, member(contents=contents, file_size=100, CRC=zlib.crc32(contents[:100])))
    tracemalloc.start()
    assert prepare(archive, tmp_path / "dest").bad == (("set/a/x.png", "not an image: nothing but zero bytes"),)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_damaged_directory_of_an_archive_is_told(source, tmp_path):
    archive = changed_zip(source, tmp_path)
    contents = archive.read_bytes()
    archive.write_bytes(contents.replace(b"PK\1\2", b"PK\1\3", 1))
    with pytest.raises(UserError, match=r"x\.zip: is damaged or not a zip file \("):
        prepare(archive, tmp_path / "dest")


def test_a_member_with_another_name_in_front_of_it_is_damaged(tmp_path):
    source = write_images(tmp_path / "set", {"ä": 4, "b": 4})
    archive = zipped(source, tmp_path / "x.zip", "")
    contents = bytearray(archive.read_bytes())
    contents[contents.index("ä/000".encode())] = (
        0xFF  # of the header in front of the first member, which zipfile decodes
    )
    archive.write_bytes(contents)
    report = prepare(archive, tmp_path / "dest")
    assert [(path, reason.partition(":")[0]) for path, reason in report.bad] == [("ä/000.png", "damaged")]
    assert report.counts == {"b": (3, 1), "ä": (2, 1)}


def test_odd_names_and_damaged_members_in_an_archive(source, tmp_path):
    archive = zipped(source, tmp_path / "x.zip", "./set//")
    damaged = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        start = file.getinfo("./set//b/003.png").header_offset + 60
    damaged[start : start + 40] = bytes(40)
    archive.write_bytes(damaged)
    report = prepare(archive, tmp_path / "dest")
    assert [path for path, _ in report.bad] == ["set/b/003.png"]
    assert report.counts == {"a": (5, 1), "b": (3, 1)}
