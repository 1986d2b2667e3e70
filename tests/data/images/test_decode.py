"""Decoding: every mode to RGB, rotation, resizing, masks, bad files."""

import errno
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image

from tfinpaint.config.transforms import Transform
from tfinpaint.data.images import decode
from tfinpaint.data.images.decode import CHECK_OPTIONS, DecodeOptions, inspect_image
from tfinpaint.data.images.unreadable import UnreadableImageError


def resized(height: int, width: int) -> DecodeOptions:
    return DecodeOptions((Transform(resize=[width, height]),))


def test_reading_resizes_with_antialiasing_to_golden_pixels(tmp_path):
    # Columns 0 0 255 255 halved by the triangle filter of support 2: with weights 3 3 1 / 7 at the left edge the
    # first pixel is (0*3 + 0*3 + 255*1) / 7 = 36.4 -> 36, the other is its mirror image, 255 - 36.4 = 218.6 -> 219.
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 2:] = 255
    Image.fromarray(pixels).save(tmp_path / "step.png")
    assert decode.read_image(tmp_path / "step.png", resized(4, 2))[:, :, 0].tolist() == [[36, 219]] * 4
    assert decode.read_image(tmp_path / "step.png", resized(4, 4)).tolist() == pixels.tolist()


def test_a_large_jpeg_is_decoded_smaller_unless_that_is_turned_off(tmp_path):
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (32, 48, 3), np.uint8))
    coarse.resize((768, 512), Image.Resampling.BICUBIC).save(tmp_path / "x.jpg", quality=90)
    # the width that is wanted -> the size that is decoded
    sizes = {96: (192, 128), 129: (384, 256), 200: (384, 256), 400: (768, 512)}
    for width, size in sizes.items():
        step = Transform(resize=[width, width * 2 // 3])
        with Image.open(tmp_path / "x.jpg") as file:
            whole = np.asarray(file.convert("RGB").resize(step.resize, Image.Resampling.BILINEAR))
        with Image.open(tmp_path / "x.jpg") as file:
            file.draft("RGB", size)
            assert file.size == size
            scaled = np.asarray(file.resize(step.resize, Image.Resampling.BILINEAR))
        assert np.array_equal(decode.read_image(tmp_path / "x.jpg", DecodeOptions((step,))), scaled)
        off = DecodeOptions((step,), jpeg_scaling=False)
        assert np.array_equal(decode.read_image(tmp_path / "x.jpg", off), whole)
        difference = np.abs(scaled.astype(int) - whole)
        assert difference.mean() < 2  # of 255
        assert (difference.max() == 0) == (width == 400)  # it is not large enough to be decoded smaller


def test_a_jpeg_that_is_turned_is_decoded_large_enough_for_both_of_its_sides(tmp_path):
    generator, exif = np.random.default_rng(0), Image.Exif()
    exif[0x0112] = 6  # 1024 x 256 pixels in the file, 256 x 1024 for display
    Image.fromarray(generator.integers(0, 256, (16, 64, 3), np.uint8)).resize((1024, 256)).save(
        tmp_path / "turned.jpg", quality=95, exif=exif
    )
    for size in ([32, 128], [128, 32]):  # at 1/4; and whole, because a quarter of 256 is less than 1.5 * 128
        scaled, whole = (
            decode.read_image(tmp_path / "turned.jpg", DecodeOptions((Transform(resize=size),), jpeg_scaling=scaling))
            for scaling in (True, False)
        )
        difference = np.abs(scaled.astype(int) - whole)
        assert difference.mean() < 2  # of 255
        assert (difference.max() == 0) == (size == [128, 32])


def test_reading_brings_every_mode_to_rgb(tmp_path):
    grey16 = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    Image.fromarray(grey16).save(tmp_path / "grey16.png")
    assert decode.read_image(tmp_path / "grey16.png", resized(2, 2))[:, :, 1].tolist() == [[0, 100], [200, 255]]
    for mode in ("L", "LA", "P", "RGBA", "1"):
        Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(tmp_path / f"{mode}.png")
        assert decode.read_image(tmp_path / f"{mode}.png", resized(2, 3)).tolist() == [[[255] * 3] * 3] * 2
    Image.new("CMYK", (8, 8)).save(tmp_path / "cmyk.jpg")
    assert decode.read_image(tmp_path / "cmyk.jpg", resized(8, 8)).shape == (8, 8, 3)


def test_reading_applies_exif_rotation(tmp_path):
    pixels = np.zeros((1, 2, 3), np.uint8)
    pixels[0, 0] = 255  # white left, black right
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for display: white on top
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert decode.read_image(tmp_path / "turned.png", resized(2, 1))[:, 0, 0].tolist() == [255, 0]


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey_tiff_files_are_no_negatives_whichever_value_is_white(tmp_path, photometric, depth):
    stored = (np.array([[0, 64], [128, 255]]) * (np.iinfo(depth).max // 255)).astype(depth)
    tifffile.imwrite(tmp_path / "grey.tif", stored, photometric=photometric)
    grey = decode.read_image(tmp_path / "grey.tif", DecodeOptions(channels=1))[..., 0].tolist()
    assert grey == ([[0, 64], [128, 255]] if photometric == "minisblack" else [[255, 191], [127, 0]])


def test_planes_of_sixteen_bits_are_refused_not_misread(tmp_path):
    planes = np.arange(3 * 8 * 8, dtype=np.uint16).reshape(3, 8, 8) * 300
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(UnreadableImageError, match=r"^unsupported: 16-bit channels in separate planes; save it"):
        decode.read_image(tmp_path / "planes.tif", DecodeOptions())
    tifffile.imwrite(tmp_path / "planes.tif", planes.astype(np.uint8), photometric="rgb", planarconfig="separate")
    assert np.array_equal(decode.read_image(tmp_path / "planes.tif", DecodeOptions()).transpose(2, 0, 1), planes % 256)


def test_floating_point_pixels_are_refused_not_blackened(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(UnreadableImageError, match="floating-point pixels"):
        decode.read_image(tmp_path / "float.tiff", resized(4, 4))


def test_what_is_too_large_is_refused_before_it_is_decoded(tmp_path, monkeypatch, recwarn):
    Image.new("1", (20000, 15000)).save(tmp_path / "large.png")  # 300 million pixels, for which Pillow has an error
    monkeypatch.setattr(decode, "_decode", lambda *_, **__: pytest.fail("decoded"))
    for limit, words in ((200.0, "data.max_image_mpixels allows 200"), (299.9, "data.max_image_mpixels allows 299.9")):
        with pytest.raises(UnreadableImageError) as caught:
            decode.read_image(tmp_path / "large.png", DecodeOptions(max_mpixels=limit))
        assert str(caught.value) == f"oversized: 20000 x 15000 is 300 Mpixel, {words}"
    monkeypatch.setattr(decode, "_decode", lambda *_, **__: ("decoded", None))
    assert decode.read_image(tmp_path / "large.png", DecodeOptions(max_mpixels=300.0)) == "decoded"
    for reading in (DecodeOptions(), CHECK_OPTIONS):  # nothing configures these
        with pytest.raises(UnreadableImageError, match=r"is 300 Mpixel, at most 200$"):
            decode.read_image(tmp_path / "large.png", reading)
    monkeypatch.setattr(decode, "MOST_FILE_BYTES", 100)
    with pytest.raises(UnreadableImageError, match=r"^oversized: \d+ bytes, at most 100$"):
        decode.read_image(tmp_path / "large.png", DecodeOptions())
    assert not recwarn.list


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_grey_is_shrunk_before_it_becomes_rgb_and_the_pixels_are_the_same(tmp_path, mode, channels):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 4), np.uint8))
    (noise if mode in ("LA", "RGBA") else noise.convert("RGB")).convert(mode).save(tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as image:
        whole = image.convert("RGB").convert("L" if channels == 1 else "RGB")
    expected = np.asarray(whole.resize((11, 13), Image.Resampling.BILINEAR)).reshape(13, 11, channels)
    reading = DecodeOptions((Transform(resize=[11, 13]),), channels)
    assert decode.read_image(tmp_path / "x.tif", reading).tolist() == expected.tolist()
    unresized = decode.read_image(tmp_path / "x.tif", DecodeOptions(channels=channels))
    assert unresized.tolist() == np.asarray(whole).reshape(37, 53, channels).tolist()


PEAK = """
import os, sys
from tfinpaint.data.images import decode
def peak():  # of this process; that of the resource module includes its parent
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
for path in sys.argv[1:]:  # each in a process of its own, which need not import anything
    if os.fork() == 0:
        before = peak()
        decode.read_image(path, decode.CHECK_OPTIONS)
        print(1024 * (peak() - before), flush=True)
        os._exit(0)
    os.wait()
"""


def test_checking_an_image_takes_few_bytes_a_pixel(tmp_path):
    side, most = 4000, {"1": 2, "L": 1, "LA": 5, "P": 5, "RGB": 4, "RGBA": 8}
    for mode in most:
        Image.new(mode, (side, side)).save(tmp_path / mode, "PNG")
    command = [sys.executable, "-c", PEAK, *(tmp_path / mode for mode in most)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = dict(zip(most, map(int, done.stdout.split()), strict=True))
    assert all(taken[mode] < (bytes_a_pixel + 0.5) * side**2 for mode, bytes_a_pixel in most.items()), taken
    assert taken["RGBA"] > 4 * side**2  # the measurement measures


def test_threads_together_decode_so_many_pixels_at_once(tmp_path, monkeypatch):
    for name, side in (("small", 10), ("large", 20)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{name}.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "drafted.jpg")
    Image.new("RGB", (20, 20)).save(tmp_path / "progressive.jpg", progressive=True)
    monkeypatch.setattr(decode, "_PIXEL_BUDGET", decode._PixelBudget(250))
    lock, running, seen = threading.Lock(), [], set()

    def decoded(file, options, with_thumbnail):
        with lock:
            running.append(file.size)
            seen.add(tuple(running))
        time.sleep(0.02)
        with lock:
            running.remove(file.size)
        raise ValueError("which gives back its pixels too")

    monkeypatch.setattr(decode, "_decode_now", decoded)

    def most_of(name: str) -> int:
        seen.clear()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: reason(tmp_path / name, resized(2, 2)), range(8)))
        return max(map(len, seen))

    assert [most_of(name) for name in ("small.png", "large.png", "progressive.jpg")] == [2, 1, 1]
    assert most_of("drafted.jpg") > 2  # libjpeg decodes it at an eighth


def tiff(*entries: tuple[int, int, int], is_big: bool = False) -> bytes:
    """A deflated grey TIFF file of 16 x 16 pixels with these directory entries more, each (tag, type, value)."""
    data = zlib.compress(bytes(256))
    count, entry = ("<Q", "<HHQQ") if is_big else ("<H", "<HHII")
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if is_big else struct.pack("<2sHI", b"II", 42, 8)
    tags = [(256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1), *entries]
    at = len(head) + struct.calcsize(count) + struct.calcsize(entry) * (len(tags) + 2) + 8
    tags += [(324, 4, at), (325, 4, len(data))] if entries else [(273, 4, at), (279, 4, len(data))]
    packed = b"".join(struct.pack(entry, tag, kind, 1, value) for tag, kind, value in tags)
    return head + struct.pack(count, len(tags)) + packed + bytes(8) + data


@pytest.mark.parametrize("is_big", [False, True])
def test_the_tiles_of_a_tiff_file_are_held_to_the_limit_too(tmp_path, monkeypatch, is_big):
    path = tmp_path / "x.tif"
    for entries in ((), ((322, 4, 16), (323, 3, 16))):
        path.write_bytes(tiff(*entries, is_big=is_big))
        assert decode.read_image(path, DecodeOptions()).shape == (16, 16, 3)
    monkeypatch.setattr(decode, "_decode", lambda *_, **__: pytest.fail("decoded"))
    path.write_bytes(tiff((322, 4, 20000), (323, 4, 15000), is_big=is_big))
    assert reason(path) == "oversized: a tile of 20000 x 15000 is 300 Mpixel, at most 200"
    # Pillow passes over what libtiff takes: a number of another type, or in another of two entries.
    for entries in (((322, 9, 20000), (323, 4, 15000)), ((322, 4, 16), (322, 4, 20000), (323, 4, 15000))):
        path.write_bytes(tiff(*entries, is_big=is_big))
        assert reason(path) == "damaged: the size of its tiles is not a single integer"


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    assert reason(tmp_path / "pipe.png") == "not an image: a pipe"
    assert reason(tmp_path / "endless.png") == "not an image: a device"
    assert reason(tmp_path) == "unreadable: Is a directory"


def reason(path, reading=None) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode.read_image(path, reading or resized(8, 8))
    return str(caught.value)


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


def test_an_image_under_another_images_ending_is_read_as_what_it_is(tmp_path):
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "x.jpg", "PNG")
    assert decode.read_image(tmp_path / "x.jpg", resized(8, 8)).tolist() == [[[1, 2, 3]] * 8] * 8


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


def test_binary_pnm_files_are_read_and_16_bits_are_scaled(tmp_path):
    (tmp_path / "x.ppm").write_bytes(b"P6 # by hand\n# two lines\n2 1\n255\n" + bytes([1, 2, 3, 4, 5, 6]))
    assert decode.read_image(tmp_path / "x.ppm", DecodeOptions()).tolist() == [[[1, 2, 3], [4, 5, 6]]]
    (tmp_path / "x.pgm").write_bytes(b"P5\n2 1\n65535\n" + struct.pack(">HH", 257 * 100, 65535))
    assert decode.read_image(tmp_path / "x.pgm", DecodeOptions(channels=1)).tolist() == [[[100], [255]]]
    (tmp_path / "x.pbm").write_bytes(b"P4\n2 1\n\x40")  # a one is black
    assert decode.read_image(tmp_path / "x.pbm", DecodeOptions(channels=1)).tolist() == [[[255], [0]]]
    (tmp_path / "x.ppm").write_bytes(b"P6\n40 40\n255\n" + bytes(90))
    assert reason(tmp_path / "x.ppm").startswith("truncated")


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


def test_want_of_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    monkeypatch.setattr(decode, "_decode", fail)
    with pytest.raises(MemoryError):
        decode.read_image(tmp_path / "x.png", resized(8, 8))


def test_reading_grey_and_cropping(tmp_path):
    # Luma of pure red, green, blue: round(255 * 0.299, 0.587, 0.114) = 76, 150, 29 (ITU-R BT.601).
    pixels = np.zeros((3, 5, 3), np.uint8)
    pixels[1, 1, 0] = pixels[1, 2, 1] = pixels[1, 3, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    middle = DecodeOptions((Transform(center_crop=[3, 1]),), channels=1)
    assert middle.size == (1, 3)
    assert decode.read_image(tmp_path / "rgb.png", middle).tolist() == [[[76], [150], [29]]]
    with pytest.raises(UnreadableImageError, match="5 x 3 pixels, center_crop needs 3 x 4"):
        decode.read_image(tmp_path / "rgb.png", DecodeOptions((Transform(center_crop=[3, 4]),)))
    assert decode.read_image(tmp_path / "rgb.png", DecodeOptions()).tolist() == pixels.tolist()
    assert DecodeOptions().size is None


def test_masks_keep_their_integers(tmp_path):
    values = np.array([[0, 7], [3, 200]], np.uint8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    palette = Image.fromarray(values).convert("P")
    palette.putdata([int(v) for v in values.flat])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(np.stack([values] * 3, axis=2)).save(tmp_path / "rgb.png")
    reading = DecodeOptions((Transform(resize=[4, 4]),), channels=1, is_label_map=True)
    for name in ("grey", "palette", "rgb"):
        found = decode.read_image(tmp_path / f"{name}.png", reading)[..., 0]
        assert found.tolist() == np.kron(values, np.ones((2, 2), int)).tolist()  # nearest, nothing in between
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "colour.png")
    with pytest.raises(UnreadableImageError, match="a label map needs one channel of 8-bit integers"):
        decode.read_image(tmp_path / "colour.png", reading)
    with pytest.raises(UnreadableImageError, match="the value 200 is not a class; expected 0 to 7"):
        decode.read_image(tmp_path / "grey.png", DecodeOptions(channels=1, is_label_map=True, classes=8))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_pictures_the_first_is_taken_and_that_is_told(tmp_path, kind):
    first, *rest = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    first.save(
        tmp_path / "x", kind, save_all=True, append_images=rest, **({"lossless": True} if kind == "WEBP" else {})
    )
    assert inspect_image(tmp_path / "x", CHECK_OPTIONS).has_more
    assert decode.read_image(tmp_path / "x", DecodeOptions())[0, 0].tolist() == [255, 0, 0]
    first.save(tmp_path / "x", kind)
    assert not inspect_image(tmp_path / "x", CHECK_OPTIONS).has_more


def test_what_cameras_put_beside_a_photo_is_no_further_picture_and_no_label_map(tmp_path):
    photo = Image.new("RGB", (8, 8), (200, 10, 10))
    photo.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert not inspect_image(tmp_path / "x.jpg", CHECK_OPTIONS).has_more
    assert reason(tmp_path / "x.jpg", DecodeOptions(channels=1, is_label_map=True)).startswith(
        "label maps must be lossless"
    )


def test_a_thumbnail_is_of_the_whole_image_whatever_is_cut_from_it(tmp_path):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 32:] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    readings = [(), [{"center_crop": [8, 8]}], [{"resize": [64, 64]}, {"center_crop": [8, 8]}], [{"resize": [32, 32]}]]
    for steps in readings:
        reading = DecodeOptions(tuple(Transform(**step) for step in steps))
        thumbnail = inspect_image(tmp_path / "x.png", reading).thumbnail
        assert thumbnail[:, 14].tolist() + thumbnail[:, 17].tolist() == [0] * 32 + [255] * 32


def test_columns_are_resized_before_rows_whatever_the_version_of_pillow(tmp_path):
    # A high image, of which some versions of Pillow resize the rows first, which rounds in another way.
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "high.png")
    between = image.resize((16, 40), Image.Resampling.BILINEAR)
    expected = np.asarray(between.resize((16, 20), Image.Resampling.BILINEAR))
    assert np.array_equal(decode.read_image(tmp_path / "high.png", resized(20, 16)), expected)
