"""Decode image files into pixels, with numpy and Pillow alone. Every image of the project is decoded here."""

from __future__ import annotations

import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from tfinpaint.config.sections import DEFAULT_MPIXELS, MAX_MPIXELS
from tfinpaint.config.transforms import Transform, shape_after
from tfinpaint.data.images.depth import DIVISOR, brightest_of, deep_grey, is_deep
from tfinpaint.data.images.signatures import HEAD_BYTES, image_format, unsupported_format
from tfinpaint.data.images.streams import open_stream
from tfinpaint.data.images.tiff import tile_size
from tfinpaint.data.images.unreadable import (
    UnreadableImageError,
    as_fault_of_file,
    is_resource_shortage,
    reason_not_recognised,
)

# Pillow's decoders of other formats are never used, whatever a file claims. PPM: binary PBM, PGM and PPM files.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
THUMBNAIL = 32  # pixels a side
MAX_PACKED_BYTES = 256 * 2**20  # of an image that is packed, or read from an archive
JPEG_MARGIN = 1.5  # a JPEG file is decoded at a fraction of its size that is at least this many times the wanted size
MOST_FILE_BYTES = 2**32  # of any file that is decoded; a TIFF cannot have more

ImageFile.LOAD_TRUNCATED_IMAGES = False
# The user's limit is checked below. Pillow's own remains for what a decoder allocates before the size is known.
Image.MAX_IMAGE_PIXELS = int(MAX_MPIXELS * 10**6) // 2  # Pillow refuses more than twice this number
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")  # about damaged metadata, without the file's name
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # the same

_JPEG = ("JPEG", "MPO")  # Pillow's name for a JPEG file in which a camera stored further pictures
_MODES = {1: "L", 3: "RGB"}  # by the number of channels
_BITS_PER_SAMPLE, _PLANAR_CONFIGURATION, _SEPARATE = 258, 284, 2  # tags of TIFF files, and a value of the second

_Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class DecodeOptions:
    """How the files of a listing are decoded.

    Attributes:
        steps: `resize` and `center_crop` steps that are done while decoding; without any, images keep their own sizes.
        channels: 3 (RGB) or 1 (luma, or the values of a label map).
        is_label_map: pixels are integers, which are neither scaled nor interpolated.
        classes: values of a label map are 0 to classes - 1; None: any values.
        max_mpixels: `data.max_image_mpixels`; None: DEFAULT_MPIXELS, where there is no configuration.
        jpeg_scaling: `data.jpeg_scaling`: libjpeg may decode at 1/2, 1/4 or 1/8 of the size before the first `resize`.
    """

    steps: tuple[Transform, ...] = ()
    channels: int = 3
    is_label_map: bool = False
    classes: int | None = None
    max_mpixels: float | None = None
    jpeg_scaling: bool = True

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels of every image; None if they keep their own sizes."""
        height, width, _ = shape_after(self.steps, self.channels)
        return (height, width) if height and width else None


CHECK_OPTIONS = DecodeOptions((Transform(resize=[32, 32]),))  # small, so that JPEG files are decoded fast


@dataclass(frozen=True)
class ImageInspection:
    """What is known about an image that was decoded, besides its pixels.

    Attributes:
        has_more: its file holds more pictures (pages, or frames of an animation), of which this is the first.
        thumbnail: uint8 [THUMBNAIL, THUMBNAIL], luma of the whole image, squeezed to a square; None for a label map.
        brightest: of an image of 16 bits per channel, `brightest_of` it; None for others.
    """

    has_more: bool
    thumbnail: np.ndarray | None
    brightest: int | None


def inspect_image(source: str | os.PathLike[str] | IO[bytes], options: DecodeOptions) -> ImageInspection:
    """Decode a file as `read_image` does, to check that it can be decoded. Raises what `read_image` raises."""
    with open_image(source, options.max_mpixels) as file:
        has_more, has_depth = _has_more(file), is_deep(file)
        _, thumbnail = _decode(file, options)
        return ImageInspection(has_more, thumbnail, brightest_of(file) if has_depth else None)


def _has_more(file: Image.Image) -> bool:
    try:
        return file.format not in _JPEG and bool(getattr(file, "is_animated", False))
    except Exception as error:  # the second picture is damaged
        if is_resource_shortage(error):
            raise
        return False


def read_image(source: str | os.PathLike[str] | IO[bytes], options: DecodeOptions) -> np.ndarray:
    """Decode a file (by path, or opened), then resize and crop it.

    The format is recognised by the contents: a PNG file named .jpg is read as PNG. Resizing is bilinear with
    anti-aliasing (when shrinking, the triangle filter covers all source pixels). EXIF rotation is applied; grey,
    palette, alpha and CMYK images become RGB.

    Returns:
        uint8 array [height, width, channels]: RGB or luma, 0 to 255; or the integers of a label map.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated, damaged, not an image, oversized, smaller than a
            crop, or may not be read.
        OSError, MemoryError: the process has no descriptors or memory left.
    """
    with open_image(source, options.max_mpixels) as file:
        return _decode(file, options, with_thumbnail=False)[0]


@contextmanager
def open_image(source: str | os.PathLike[str] | IO[bytes], max_mpixels: float | None = None) -> Iterator[Image.Image]:
    """Open an image file (by path, or opened) and check its size, without decoding it.

    Args:
        max_mpixels: as in `DecodeOptions`.

    Raises:
        UnreadableImageError, OSError, MemoryError: as `read_image`, also for what fails while the image is in use.
    """
    with as_fault_of_file():
        if not isinstance(source, str | os.PathLike):
            with _open(source, max_mpixels) as file:
                yield file
            return
        # Given a path, Pillow maps some formats into memory, and crashes if the file is truncated meanwhile.
        with open_stream(source) as stream, _open(stream, max_mpixels) as file:
            yield file


def _open(stream: IO[bytes], max_mpixels: float | None) -> Image.Image:
    size = stream.seek(0, os.SEEK_END)
    if not size:
        raise UnreadableImageError("empty: 0 bytes")
    if size > MOST_FILE_BYTES:
        raise UnreadableImageError(f"oversized: {size} bytes, at most {MOST_FILE_BYTES}")
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    kind = image_format(head)
    # Pillow says nothing but that it cannot decode a truncated WebP file.
    if kind == "WebP" and (length := int.from_bytes(head[4:8], "little") + 8) > size:
        raise UnreadableImageError(f"truncated: {size} of {length} bytes")
    if name := "" if kind else unsupported_format(head):
        raise UnreadableImageError(f"unsupported: {name}; convert to JPEG")
    try:
        # Pillow recognises more kinds of PNM files than are supported here.
        file = Image.open(stream, formats=("PPM",) if kind == "PNM" else FORMATS[:-1])
    except UnidentifiedImageError:
        raise UnreadableImageError(reason_not_recognised(stream, head)) from None
    _check_pixels(file.width, file.height, max_mpixels)
    _check_pixels(*_tile_size(file), max_mpixels, "a tile of ")
    if _has_deep_planes(file):
        raise UnreadableImageError("unsupported: 16-bit channels in separate planes; save it with interleaved channels")
    return file


def _tile_size(file: Image.Image) -> tuple[int, int]:
    if isinstance(file, TiffImagePlugin.TiffImageFile) and file.fp:
        return tile_size(file.fp, file.tag_v2.offset)
    return 0, 0


def _has_deep_planes(file: Image.Image) -> bool:
    """Return whether a TIFF file has 16-bit channels one after the other, which Pillow misreads as 8 bits."""
    tags = getattr(file, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, ())
    return len(bits) > 1 and 16 in bits and tags.get(_PLANAR_CONFIGURATION) == _SEPARATE


def _check_pixels(width: int, height: int, max_mpixels: float | None, of: str = "") -> None:
    mpixels, limit = width * height / 1e6, max_mpixels or DEFAULT_MPIXELS
    if mpixels > limit:
        allowed = f"data.max_image_mpixels allows {limit:g}" if max_mpixels else f"at most {limit:g}"
        raise UnreadableImageError(f"oversized: {of}{width} x {height} is {mpixels:.6g} Mpixel, {allowed}")


class _PixelBudget:
    """The number of pixels that all threads together decode at once; a larger image waits until it is alone."""

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


_PIXEL_BUDGET = _PixelBudget(int(DEFAULT_MPIXELS * 1e6))


def _decode(
    file: Image.Image, options: DecodeOptions, *, with_thumbnail: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (pixels, thumbnail or None), within the pixel budget."""
    if options.is_label_map and file.format in _JPEG:
        raise UnreadableImageError("label maps must be lossless; JPEG is not supported, use PNG")
    size, extent = file.size, _scale_jpeg(file, options)
    if not file.info.get("progressive"):  # for these libjpeg keeps the coefficients of the full size
        size = file.size
    with _PIXEL_BUDGET.hold(max(math.prod(size), math.prod(_tile_size(file)))):
        return _decode_now(file, options, extent, with_thumbnail and not options.is_label_map)


def _scale_jpeg(file: Image.Image, options: DecodeOptions) -> _Box | None:
    """Have a JPEG file decoded at a fraction of its size, if a resize follows and that suffices for it.

    Returns:
        The part of the decoded image, after EXIF rotation, that the photo covers; None if it is decoded whole. Of 270
        rows at 1/4, libjpeg makes 68, of which the photo covers 67.5: resizing all of them would shift it.
    """
    resize = options.steps[0].resize if options.steps else None
    if file.format != "JPEG" or not resize or not options.jpeg_scaling or options.is_label_map:
        return None
    width, height = (math.ceil(JPEG_MARGIN * side) for side in (resize[::-1] if is_turned(file) else resize))
    drafted = file.draft("RGB" if options.channels == 3 else "L", (width, height))
    if not drafted:
        return None
    covered, decoded, orientation = drafted[1][2:], file.size, _orientation(file)
    if is_turned(file):
        covered, decoded = covered[::-1], decoded[::-1]
    # The rest of the last column and row is at the left or at the top of an image that was turned or mirrored.
    left = decoded[0] - covered[0] if orientation in (2, 3, 6, 7) else 0.0
    top = decoded[1] - covered[1] if orientation in (3, 4, 7, 8) else 0.0
    return left, top, left + covered[0], top + covered[1]


def _orientation(file: Image.Image) -> int:
    return file.getexif().get(ExifTags.Base.Orientation, 1)


def is_turned(file: Image.Image) -> bool:
    """Return whether EXIF rotation exchanges the width and the height of an image."""
    return _orientation(file) in (5, 6, 7, 8)


def _decode_now(
    file: Image.Image, options: DecodeOptions, extent: _Box | None, with_thumbnail: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    ImageOps.exif_transpose(file, in_place=True)
    image = _to_label_map(file) if options.is_label_map else _to_colours(file, options.channels)
    steps = list(options.steps)
    if steps and steps[0].resize:
        image = _apply(image, steps.pop(0), options, extent)
    thumbnail = None
    if with_thumbnail:  # before anything is cropped
        size = (THUMBNAIL, THUMBNAIL)
        thumbnail = np.asarray(image.resize(size, Image.Resampling.BOX, reducing_gap=2.0).convert("L"))
    for step in steps:
        image = _apply(image, step, options)
    image = _in_mode(image, _MODES[options.channels])
    pixels = np.asarray(image).reshape(image.height, image.width, options.channels)
    if options.classes and pixels.max() >= options.classes:
        raise UnreadableImageError(f"the value {pixels.max()} is not a class; expected 0 to {options.classes - 1}")
    return pixels, thumbnail


def _apply(image: Image.Image, step: Transform, options: DecodeOptions, extent: _Box | None = None) -> Image.Image:
    """Resize (the extent of) or crop an image."""
    if step.resize:
        if options.is_label_map:
            return image.resize(step.resize, Image.Resampling.NEAREST)
        # One side after the other: which one Pillow resizes first, and so how it rounds, depends on its version.
        (width, height), (left, top, right, bottom) = step.resize, extent or (0, 0, *image.size)
        if width != image.width:
            image = image.resize((width, image.height), Image.Resampling.BILINEAR, (left, 0, right, image.height))
        if height != image.height:
            image = image.resize((width, height), Image.Resampling.BILINEAR, (0, top, width, bottom))
        return image
    assert step.center_crop
    width, height = step.center_crop
    if image.width < width or image.height < height:
        raise UnreadableImageError(f"{image.width} x {image.height} pixels, center_crop needs {width} x {height}")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _to_label_map(image: Image.Image) -> Image.Image:
    if image.mode in ("RGB", "RGBA"):  # often grey values that were saved as colours
        red, green, blue = image.split()[:3]
        if red.tobytes() == green.tobytes() == blue.tobytes():
            return red
    if image.mode not in ("1", "L", "P"):
        raise UnreadableImageError(f"a label map needs one channel of 8-bit integers; this image has mode {image.mode}")
    return Image.fromarray(np.asarray(image).astype(np.uint8))


def _to_colours(image: Image.Image, channels: int) -> Image.Image:
    """Return a grey image in mode L, any other in RGB, or in L for one channel. Grey becomes RGB after resizing."""
    # convert() would clip 16-bit values instead of scaling them. Pillow scales PNM files of 16 bits into mode I.
    if image.mode.startswith("I;16") or (image.mode == "I" and getattr(image, "format", None) == "PPM"):
        return Image.fromarray((deep_grey(image) // DIVISOR).astype(np.uint8))
    if image.mode in ("F", "I"):
        kind = "floating-point" if image.mode == "F" else "32-bit or signed"
        raise UnreadableImageError(f"unsupported: {kind} pixels, whose range is unknown; convert to 8 or 16 bits")
    if image.mode in ("1", "L", "LA"):
        return _in_mode(image, "L")
    return _in_mode(_in_mode(image, "RGB"), _MODES[channels])


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # convert() would copy it
