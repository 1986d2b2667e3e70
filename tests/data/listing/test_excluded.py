"""Files are judged by their contents: whichever their endings, in folders and archives, and what is left out is told."""

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import tree, write_images, zipped
from PIL import Image

from tfinpaint.data.images.decode import CHECK_OPTIONS
from tfinpaint.data.images.signatures import image_format
from tfinpaint.data.ingest import copy
from tfinpaint.data.ingest.pack import pack, prepare_records
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.listing.check import check_images
from tfinpaint.data.listing.excluded import MAX_KINDS, ExcludedFiles
from tfinpaint.errors import UserError

HEIC = b"\0\0\0\x20ftypheic" + bytes(40)
KINDS = [
    ("x.jfif", "JPEG"), ("x.jpe", "JPEG"), ("x.JPG_large", "JPEG"), ("noending", "PNG"), ("x.txt", "GIF"),
    ("x.heic", "WEBP"), ("x.png.tmp", "TIFF"), ("x.tga", "BMP"), ("x.ppm", "PPM"), ("x.", "PNG"),
]  # fmt: skip


@pytest.fixture
def source(tmp_path) -> Path:
    """Class `odd`, images of all kinds of endings, beside `a`."""
    folder = write_images(tmp_path / "source", {"a": 3})
    (folder / "odd").mkdir()
    for number, (name, kind) in enumerate(KINDS):
        Image.new("RGB", (9, 9), (20 * number, 9, 99)).save(folder / "odd" / name, kind)
    return folder


def tarred(folder: Path, archive: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(archive, mode) as file:
        file.add(folder, "set")
    return archive


def test_images_of_any_ending_are_images_everywhere(source, tmp_path):
    names = sorted(f"odd/{name}" for name, _ in KINDS)
    listing = sources.list_class_folders(source)
    assert [path for path in listing.paths if path.startswith("odd")] == names
    assert check_images(listing, range(len(listing)), CHECK_OPTIONS).bad == {}
    for number, origin in enumerate(
        (
            source,
            zipped(source, tmp_path / "x.zip", "set/"),
            tarred(source, tmp_path / "x.tgz"),
            tarred(source, tmp_path / "x.tar", "w"),
        )
    ):
        report = copy.prepare(origin, tmp_path / f"dest{number}")
        assert report.counts == {"a": (2, 1), "odd": (9, 1)}
        assert tree(tmp_path / f"dest{number}") == tree(tmp_path / "dest0")
    assert sources.list_images(source).paths == listing.paths
    assert pack(source, tmp_path / "records").images == 13


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_what_is_no_image_is_counted_by_ending_with_an_example(source, tmp_path, kind):
    for name, contents in {
        "a/1.heic": HEIC, "a/2.HEIC": b"", "a/3.tga": bytes(99), "a/raw.nef": b"II*\0" + bytes(99), "notes.txt": b"BM, a text",
        "a/README": b"text", "a/Thumbs.db": b"x", "odd/._x.jpg": b"x", "__MACOSX/odd/._x.jpg": b"x", "a/desktop.ini": b"x",
        "a/1.csv": b"P3 begins no image", "a/2.csv": b"", "a/more.zip": b"PK\3\4" + bytes(99),
    }.items():  # fmt: skip
        (source / name).parent.mkdir(exist_ok=True, parents=True)
        (source / name).write_bytes(contents)
    origin, begin = source, ""
    if kind != "folder":
        origin, begin = (
            (zipped(source, tmp_path / "x.zip", "set/") if kind == "zip" else tarred(source, tmp_path / "x.tgz")),
            "set/",
        )
    report = copy.prepare(origin, tmp_path / "dest")
    assert report.counts == {"a": (2, 1), "odd": (9, 1)}
    expected = (
        "9 files excluded: 2 .csv (@a/1.csv, ...), 2 .heic (@a/1.heic, ...: HEIC is not supported; convert to JPEG), "
        "1 without an extension (@a/README), 1 .nef (@a/raw.nef: camera raw is not supported; convert to JPEG), "
        "1 .tga (@a/3.tga: TGA is not supported; convert to JPEG), 1 .txt (@notes.txt), 1 .zip (@a/more.zip: a zip archive; unpack it); "
        "4 hidden or system files ignored"
    )
    assert report.excluded.summary() == expected.replace("@", begin)
    if kind == "folder":
        shutil.rmtree(tmp_path / "dest")
        assert sources.list_class_folders(source).excluded.summary() == report.excluded.summary()
        assert pack(source, tmp_path / "packed").excluded.summary() == report.excluded.summary()


def test_a_class_that_ends_up_empty_is_an_error_unless_asked_for(source, tmp_path):
    (source / "dog").mkdir()
    for number in range(3):
        (source / "dog" / f"{number}.heic").write_bytes(HEIC)
    message = r"class folder without .*: dog \(3 files excluded: 3 .heic \({}, ...: HEIC is .*\)\); fill it"
    for call in (copy.prepare, prepare_records, pack):
        for origin in (source, zipped(source, tmp_path / "x.zip", "")):
            with pytest.raises(
                UserError, match=message.format("dog/0.heic") + ", remove it, or .* --skip-empty-classes"
            ):
                call(origin, tmp_path / "dest")
            assert not list(tmp_path.glob("*dest*"))
    with pytest.raises(UserError, match=message.format("0.heic") + " or remove it"):
        sources.list_class_folders(source)
    report = copy.prepare(source, tmp_path / "dest", skip_empty_classes=True)
    assert list(report.counts) == ["a", "odd"]
    assert report.lines()[0].startswith("Excluded, without a usable image: dog (3 files excluded")


def test_pipes_links_and_files_that_cannot_be_read_are_no_images_and_are_not_waited_for(source):
    os.mkfifo(source / "a" / "pipe")
    (source / "a" / "endless").symlink_to("/dev/zero")
    (source / "a" / "gone.x").symlink_to("nowhere")
    line = sources.list_images(source).excluded.summary()
    assert "2 without an extension (a/endless, ...)" in line
    assert "1 .x (a/gone.x: cannot be read)" in line


def test_kinds_are_bounded_and_names_stay_in_one_line():
    excluded = ExcludedFiles()
    for number in range(200):
        excluded.add(f"x\n.{number}")
    assert len(excluded) == 200
    assert len(excluded.kinds) == MAX_KINDS + 1
    assert "\n" not in excluded.summary()
    assert ExcludedFiles.from_json(excluded.to_json()).summary() == excluded.summary()


@pytest.mark.parametrize(
    "text", [b"BM is how this text begins, and goes on", b"P6 is a processor, P5 too 3 4", b"P5 1 2", b"GIF8"]
)
def test_texts_that_begin_as_images_are_texts(text):
    assert image_format(text) == ""


def test_all_that_pillow_writes_begins_as_what_it_is(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8))
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WebP", "BMP", "PPM"):
        for mode in ("RGB", "L", "1"):
            noise.convert(mode).save(tmp_path / "x", kind if kind != "WebP" else "WEBP")
            assert image_format((tmp_path / "x").read_bytes()[:512]) == kind.replace("PPM", "PNM")
    (tmp_path / "x").write_bytes(b"II+\0\x08\0\0\0")
    assert image_format((tmp_path / "x").read_bytes()) == "TIFF"
