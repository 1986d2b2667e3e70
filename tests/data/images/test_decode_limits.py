"""What is too large is refused before it is decoded; the memory that decoding takes, and that threads take together."""

import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from readings import reason, resized

from tfinpaint.data.images import decode
from tfinpaint.data.images.decode import CHECK_OPTIONS, DecodeOptions
from tfinpaint.data.images.unreadable import UnreadableImageError


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

    def decoded(file, options, extent, with_thumbnail):
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


def test_want_of_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    monkeypatch.setattr(decode, "_decode", fail)
    with pytest.raises(MemoryError):
        decode.read_image(tmp_path / "x.png", resized(8, 8))
