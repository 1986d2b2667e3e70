"""Files that cannot be decoded, and the reason that is given: damage, other contents, other formats, other pixels."""

import errno
import os
import struct

import numpy as np
import pytest
from PIL import Image
from readings import reason, resized

from tfinpaint.data.images import decode
from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.data.images.unreadable import UnreadableImageError


def test_floating_point_pixels_are_refused_not_blackened(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(UnreadableImageError, match="floating-point pixels"):
        decode.read_image(tmp_path / "float.tiff", resized(4, 4))


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    assert reason(tmp_path / "pipe.png") == "not an image: a pipe"
    assert reason(tmp_path / "endless.png") == "not an image: a device"
    assert reason(tmp_path) == "unreadable: Is a directory"


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "bmp", "gif"])
def test_a_truncated_file_is_named_so_wherever_it_is_cut(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 50, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    assert decode.read_image(path, resized(8, 8)).shape == (8, 8, 3)
    for kept in (24, 64, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:kept])
        assert reason(path).startswith("truncated")
    path.write_bytes(b"")
    assert reason(path) == "empty: 0 bytes"
    path.unlink()
    assert reason(path) == "missing: no such file"


def test_damage_that_is_no_truncation_is_told_apart(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 50, 3), np.uint8)).save(path)
    damaged = bytearray(path.read_bytes())
    damaged[300:304] = b"evil"
    path.write_bytes(damaged)
    assert reason(path).startswith("damaged: ")


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        (b"<!DOCTYPE html>\n<title>404</title>", "an HTML page"),
        (b"\xef\xbb\xbf  <HTML>", "an HTML page"),
        (b'<?xml version="1.0"?><svg xmlns="x"/>', "an SVG drawing"),
        (b"<?xml version='1.0'?><Error>NoSuchKey</Error>", "an XML document"),
        (b"rate limit exceeded\n", "text"),
        ("größer ".encode() * 60 + "ß".encode() * 100, "text"),  # cut within a character
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (b"%PDF-1.7", "a PDF document"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer; fetch the file with `git lfs pull`"),
        (bytes(4096), "nothing but zero bytes"),
        (b"\0\0\0\x20ftypisom" + bytes(30), "a video"),
        (b"\x01\xfe\x02\xff" * 20, ""),
    ],
)
def test_what_is_no_image_is_named_by_its_contents(tmp_path, contents, what):
    (tmp_path / "x.jpg").write_bytes(contents)
    assert reason(tmp_path / "x.jpg") == f"not an image{': ' if what else ''}{what}"


def test_formats_that_nobody_asked_for_are_not_decoded(tmp_path):
    for kind, words in (("ICO", "unsupported: ICO; convert to JPEG"), ("TGA", "not an image")):
        Image.new("RGB", (16, 16)).save(tmp_path / "x.png", kind)
        assert reason(tmp_path / "x.png") == words
    for text in (b"P3\n1 1\n255\n1 2 3\n", b"PyRGBA\n1 1\n255\n1234", b"Pf\n1 1\n-1.0\n1234"):  # all read by Pillow
        (tmp_path / "x.ppm").write_bytes(text)
        assert reason(tmp_path / "x.ppm").startswith(("unsupported: ", "not an image"))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x20ftypavif", "AVIF"),
        (b"\0\0\0\x20ftypheic", "HEIC"),
        (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b"II*\0\x10\0\0\0CR\2\0", "camera raw"),
        (bytes(128) + b"DICM", "DICOM"),
    ],
)
def test_images_of_other_formats_are_named_with_what_to_do(tmp_path, head, name):
    (tmp_path / "x.jpg").write_bytes(head + bytes(200))
    assert reason(tmp_path / "x.jpg") == f"unsupported: {name}; convert to JPEG"


def channels_of_tiff(samples: int, bits: int, kind: int = 1, colour: int = 2, compression: int = 1) -> bytes:
    """An uncompressed TIFF file of 4 x 4 pixels; kind as SampleFormat, colour as PhotometricInterpretation."""
    pixels = bytes(16 * samples * bits // 8)
    tables = struct.pack(f"<{2 * samples}H", *[bits] * samples, *[kind] * samples)
    at = {258: 8, 339: 8 + 2 * samples}
    values = {256: 4, 257: 4, 258: bits, 259: compression, 262: colour, 273: 8 + len(tables), 277: samples, 278: 4}
    values |= {279: len(pixels), 339: kind}
    if samples > 1:
        values |= {tag: place if samples > 2 else values[tag] * 0x10001 for tag, place in at.items()}
    entries = [(tag, 3 if tag in at else 4, samples if tag in at else 1, values[tag]) for tag in sorted(values)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8 + len(tables) + len(pixels)) + tables + pixels + directory


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        (channels_of_tiff(5, 8, colour=1), "TIFF, unknown pixel mode;"),
        (channels_of_tiff(7, 16), "TIFF, Invalid value for samples per pixel;"),
        (channels_of_tiff(3, 32, kind=3), "TIFF, unknown pixel mode;"),
        (channels_of_tiff(1, 64, kind=3, colour=1), "TIFF, unknown pixel mode;"),
        (channels_of_tiff(3, 8, compression=34712), "TIFF, compression 34712;"),
        (channels_of_tiff(1, 32, kind=3, colour=1), "floating-point pixels, whose range is unknown;"),
        (channels_of_tiff(1, 32, colour=1), "32-bit or signed pixels, whose range is unknown;"),
    ],
)
def test_sound_images_of_other_pixels_are_not_called_damaged(tmp_path, contents, what):
    (tmp_path / "x.tif").write_bytes(contents)
    assert reason(tmp_path / "x.tif").startswith(f"unsupported: {what} ")
    (tmp_path / "x.tif").write_bytes(channels_of_tiff(3, 8))
    assert decode.read_image(tmp_path / "x.tif", DecodeOptions()).shape == (4, 4, 3)


def test_a_jpeg_of_12_bits_is_unsupported(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "x.jpg")
    contents = bytearray((tmp_path / "x.jpg").read_bytes())
    contents[contents.index(b"\xff\xc0") + 4] = 12
    (tmp_path / "x.jpg").write_bytes(contents)
    assert reason(tmp_path / "x.jpg").startswith("unsupported: JPEG, cannot handle 12-bit layers; supported are grey")


@pytest.mark.parametrize(("number", "loud"), [(errno.EIO, False), (errno.EACCES, False), (errno.EMFILE, True)])
def test_only_what_is_the_files_fault_makes_it_a_bad_one(tmp_path, monkeypatch, number, loud):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.open", fail)
    if loud:
        with pytest.raises(OSError, match=os.strerror(number)):
            decode.read_image(tmp_path / "x.png", resized(8, 8))
    else:
        assert reason(tmp_path / "x.png") == f"unreadable: {os.strerror(number)}"
