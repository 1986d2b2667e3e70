"""Image files -> pixels. Every image of the project is decoded here. No TensorFlow: files and numpy only."""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from tfinpaint.config.sections import DEFAULT_MPIXELS, MAX_MPIXELS
from tfinpaint.config.transforms import Transform, shape_after
from tfinpaint.data.images import tiff
from tfinpaint.data.images.signatures import LOOKED_AT, begins_as, unsupported_format, what_it_is

# No other decoder is ever reached, whatever a file claims. PPM reads binary PBM, PGM and PPM files, and no others here.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
THUMBNAIL = 32  # pixels a side
SUPPORTED_PIXELS = "supported are grey, palette, RGB and CMYK, with alpha or without, of 8 or 16 bits"
MAX_FILE_BYTES = 256 * 2**20  # a single image larger than this is not packed, nor read from an archive
MOST_FILE_BYTES = 2**32  # of any file that is read; a TIFF cannot have more

ImageFile.LOAD_TRUNCATED_IMAGES = False  # half an image is a bad image
# The limit that users set is looked at here. Pillow's own warns of large photographs; it remains for what a decoder
# allocates before its image's size is known here.
Image.MAX_IMAGE_PIXELS = int(MAX_MPIXELS * 10**6) // 2  # it refuses what has more than twice of it
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged metadata, without the file's name
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # the same

_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class UnreadableImageError(Exception):
    """A file that should be an image and cannot be decoded. The message is the reason, without the path."""


def is_of_the_process(error: BaseException) -> bool:
    """True where a file could not be read for want of descriptors or memory: that is no fault of the file."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _OF_THE_PROCESS)


@dataclass(frozen=True)
class Reading:
    """How the files of a listing become pixels.

    Attributes:
        steps: `resize` and `center_crop` steps to do while decoding; without any, images keep their own sizes.
        channels: 3 (RGB) or 1 (luma, or a mask's values).
        is_mask: pixels are integers: they are neither scaled nor interpolated.
        classes: values of a mask are 0 to classes - 1; None: anything goes.
        max_mpixels: `data.max_image_mpixels`; None: DEFAULT_MPIXELS, for what has no configuration.
    """

    steps: tuple[Transform, ...] = ()
    channels: int = 3
    is_mask: bool = False
    classes: int | None = None
    max_mpixels: float | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels of every image, None where they keep their own."""
        height, width, _ = shape_after(self.steps, self.channels)
        return (height, width) if height and width else None


CHECK = Reading((Transform(resize=[32, 32]),))  # whether a file can be decoded; small, so that JPEG files are fast


@dataclass(frozen=True)
class Look:
    """What is worth knowing of an image besides its pixels.

    Attributes:
        has_more: it is the first of several pictures in its file: pages, or frames of an animation.
        thumbnail: uint8 [THUMBNAIL, THUMBNAIL], luma of the whole image, upright, squeezed to a square; None of a mask.
    """

    has_more: bool
    thumbnail: np.ndarray | None


def look_at_image(source: str | os.PathLike[str] | IO[bytes], reading: Reading) -> Look:
    """Decode a file as `read_image` does, to see that it can be decoded. Raises what `read_image` raises."""
    with open_image(source, reading.max_mpixels) as file:
        has_more = _has_more(file)
        return Look(has_more, _pixels(file, reading)[1])


def _has_more(file: Image.Image) -> bool:
    """Whether a file holds several pictures. What cameras put beside a photo in a JPEG file does not count."""
    try:
        return file.format not in _JPEG and bool(getattr(file, "is_animated", False))
    except Exception as error:  # the second picture is damaged
        if is_of_the_process(error):
            raise
        return False


def read_image(source: str | os.PathLike[str] | IO[bytes], reading: Reading) -> np.ndarray:
    """Decode a file (by path, or opened), resize and crop it.

    The contents count, not the ending: a PNG file named .jpg is read as what it is. A resize is bilinear and
    anti-aliased: when shrinking, the triangle filter widens to cover all source pixels. EXIF rotation is applied; grey,
    palette, alpha and CMYK images become RGB.

    Returns:
        uint8 array [height, width, channels]: RGB or luma, 0 to 255; or a mask's integers.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated, damaged, not an image, oversized, smaller than a
            crop, or may not be read.
        OSError, MemoryError: the process has no more descriptors or memory.
    """
    with open_image(source, reading.max_mpixels) as file:
        return _pixels(file, reading, looks=False)[0]


@contextmanager
def open_image(source: str | os.PathLike[str] | IO[bytes], max_mpixels: float | None = None) -> Iterator[Image.Image]:
    """Look into a file (by path, or opened), of which nothing is decoded yet. No image is opened otherwise.

    Args:
        max_mpixels: as in `Reading`.

    Raises:
        UnreadableImageError, OSError, MemoryError: as `read_image`, also for what fails while the image is in use.
    """
    try:
        if not isinstance(source, str | os.PathLike):
            with _open(source, max_mpixels) as file:
                yield file
            return
        # Opened here: of a file that it opens itself, Pillow maps some kinds, and dies with one that is cut meanwhile.
        with open(source, "rb", opener=_without_waiting) as stream, _open(stream, max_mpixels) as file:
            yield file
    except UnreadableImageError:
        raise
    except Exception as error:  # damaged metadata alone makes Pillow raise struct.error, TypeError and more
        if is_of_the_process(error):
            raise
        raise UnreadableImageError(_in_words(error)) from None


def _without_waiting(path: str, flags: int) -> int:
    """Open what should be a file. A pipe would be waited for, and have no end, like some devices."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # of a folder, `open` says what it is
        return descriptor
    os.close(descriptor)
    raise UnreadableImageError(f"not an image: {'a pipe' if stat.S_ISFIFO(mode) else 'a device'}")


def _open(stream: IO[bytes], max_mpixels: float | None) -> Image.Image:
    size = stream.seek(0, os.SEEK_END)
    if not size:
        raise UnreadableImageError("empty: 0 bytes")
    if size > MOST_FILE_BYTES:
        raise UnreadableImageError(f"oversized: {size} bytes, at most {MOST_FILE_BYTES}")
    stream.seek(0)
    head = stream.read(LOOKED_AT)
    # Of a WebP file that is cut, Pillow says no more than that it cannot decode it.
    if begins_as(head) == "WebP" and (length := int.from_bytes(head[4:8], "little") + 8) > size:
        raise UnreadableImageError(f"truncated: {size} of {length} bytes")
    kind = begins_as(head)
    if name := "" if kind else unsupported_format(head):
        raise UnreadableImageError(f"unsupported: {name}; convert to JPEG")
    try:
        # Pillow's own look at a PNM file accepts more than is read here.
        file = Image.open(stream, formats=("PPM",) if kind == "PNM" else FORMATS[:-1])
    except UnidentifiedImageError:
        raise UnreadableImageError(_unidentified(stream, head)) from None
    _check_pixels(file.width, file.height, max_mpixels)
    _check_pixels(*_tile_size(file), max_mpixels, "a tile of ")
    return file


def _tile_size(file: Image.Image) -> tuple[int, int]:
    """(width, height) in pixels of what is decoded at once, where that is not the image itself."""
    if isinstance(file, TiffImagePlugin.TiffImageFile) and file.fp:
        return tiff.tile_size(file.fp, file.tag_v2.offset)
    return 0, 0


def _unidentified(stream: IO[bytes], head: bytes) -> str:
    """Why Pillow does not take a file for an image."""
    name = begins_as(head)
    if not name:
        found = what_it_is(head)
        return f"not an image: {found}" if found else "not an image"
    stream.seek(0)
    try:
        Image.OPEN["PPM" if name == "PNM" else name.upper()][0](stream, "")
    except Exception as error:  # as above; Image.open has kept to itself which it was
        if is_of_the_process(error):
            raise
        found = tiff.channels(stream) if name == "TIFF" else str(error)
        if found and _is_unsupported(error):
            return f"unsupported: {name}{' of ' if name == 'TIFF' else ', '}{found}; {SUPPORTED_PIXELS}"
    return f"truncated or damaged: begins as {name}"


# How Pillow begins to say that it has no decoder for what is, as far as it knows, a sound file.
_UNSUPPORTED = re.compile(
    r"unsupported|not supported|cannot handle|samples per pixel|unknown (pixel mode|compression|data organization)",
    re.I,
)


def _is_unsupported(error: Exception) -> bool:
    # A KeyError is of a table of compressions or of modes.
    return KeyError in (type(error), type(error.__cause__)) or bool(_UNSUPPORTED.search(str(error)))


def _check_pixels(width: int, height: int, max_mpixels: float | None, of: str = "") -> None:
    """Refuse what is too large, before any of it is decoded."""
    mpixels, limit = width * height / 1e6, max_mpixels or DEFAULT_MPIXELS
    if mpixels > limit:
        allowed = f"data.max_image_mpixels allows {limit:g}" if max_mpixels else f"at most {limit:g}"
        raise UnreadableImageError(f"oversized: {of}{width} x {height} is {mpixels:.6g} Mpixel, {allowed}")


_JPEG = ("JPEG", "MPO")  # the second with further pictures beside it


def _pixels(file: Image.Image, reading: Reading, *, looks: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
    if reading.is_mask and file.format in _JPEG:
        raise UnreadableImageError("a mask in JPEG has not kept its integers; save masks as PNG")
    size, first = file.size, reading.steps[0].resize if reading.steps else None
    if file.format == "JPEG" and first and not reading.is_mask:
        # lets libjpeg decode at 1/2, 1/4 or 1/8 of the size
        file.draft("RGB" if reading.channels == 3 else "L", (2 * first[0], 2 * first[1]))
        if not file.info.get("progressive"):  # of a progressive one it keeps all coefficients
            size = file.size
    with _AT_ONCE.hold(max(math.prod(size), math.prod(_tile_size(file)))):
        return _decoded(file, reading, looks and not reading.is_mask)


def _decoded(file: Image.Image, reading: Reading, looks: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """(pixels, thumbnail or None)."""
    ImageOps.exif_transpose(file, in_place=True)
    image = _to_mask(file) if reading.is_mask else _to_colours(file, reading.channels)
    steps = list(reading.steps)
    if steps and steps[0].resize:
        image = _resized(image, steps.pop(0), reading)
    thumbnail = _thumbnail(image) if looks else None  # before anything is cut away
    for step in steps:
        image = _resized(image, step, reading)
    image = _in_mode(image, _MODES[reading.channels])
    pixels = np.asarray(image).reshape(image.height, image.width, reading.channels)
    if reading.classes and pixels.max() >= reading.classes:
        raise UnreadableImageError(f"the value {pixels.max()} is no class: there are {reading.classes}")
    return pixels, thumbnail


def _thumbnail(image: Image.Image) -> np.ndarray:
    size = (THUMBNAIL, THUMBNAIL)
    return np.asarray(image.resize(size, Image.Resampling.BOX, reducing_gap=2.0).convert("L"))


class _Pixels:
    """So many pixels are decoded at once, by all threads together; an image of more waits until it is alone."""

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        taken = min(pixels, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= taken)
            self._free -= taken
        try:
            yield
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()


_AT_ONCE = _Pixels(int(DEFAULT_MPIXELS * 1e6))


def _in_words(error: Exception) -> str:
    """Why a file could not be read, the kind of fault first."""
    if isinstance(error, FileNotFoundError):
        return "missing: no such file"
    if isinstance(error, OSError) and error.errno:
        return f"unreadable: {error.strerror}"
    if isinstance(error, Image.DecompressionBombError):
        return f"oversized: more than {MAX_MPIXELS:g} Mpixel, which no configuration allows"
    words = str(error) or type(error).__name__
    if _is_unsupported(error):
        return f"unsupported: {words.removeprefix('Unsupported ')}; {SUPPORTED_PIXELS}"
    if isinstance(error, EOFError) or "truncated" in words.lower():
        return f"truncated: {words}"
    return f"damaged: {words}"


_MODES = {1: "L", 3: "RGB"}


def _resized(image: Image.Image, step: Transform, reading: Reading) -> Image.Image:
    if step.resize:
        how = Image.Resampling.NEAREST if reading.is_mask else Image.Resampling.BILINEAR
        width, height = step.resize
        return image if image.size == (width, height) else image.resize((width, height), how)
    assert step.center_crop
    width, height = step.center_crop
    if image.width < width or image.height < height:
        raise UnreadableImageError(f"{image.width} x {image.height} pixels, center_crop needs {width} x {height}")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _to_mask(image: Image.Image) -> Image.Image:
    if image.mode in ("RGB", "RGBA"):  # often grey values, saved as colour
        red, green, blue = image.split()[:3]
        if red.tobytes() == green.tobytes() == blue.tobytes():
            return red
    if image.mode not in ("1", "L", "P"):
        raise UnreadableImageError(f"a mask needs one channel of 8-bit integers; this is an image of mode {image.mode}")
    return Image.fromarray(np.asarray(image).astype(np.uint8))


def _to_colours(image: Image.Image, channels: int) -> Image.Image:
    """As grey as it is, or RGB; luma for one channel. What is grey becomes RGB when it is small."""
    if image.mode.startswith("I;16"):  # convert() would clip 16-bit values, not scale them
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode == "I" and getattr(image, "format", None) == "PPM":  # which Pillow has scaled to 16 bits
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("F", "I"):
        kind = "floating-point" if image.mode == "F" else "32-bit or signed"
        raise UnreadableImageError(f"unsupported: {kind} pixels, whose range is not known; convert it to 8 or 16 bits")
    if image.mode in ("1", "L", "LA"):
        return _in_mode(image, "L")
    return _in_mode(_in_mode(image, "RGB"), _MODES[channels])


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # which would copy it
