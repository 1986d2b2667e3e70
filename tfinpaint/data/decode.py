"""Image files -> pixels. Every image of the project is decoded here. No TensorFlow: files and numpy only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from tfinpaint.config_transforms import Transform, shape_after

ImageFile.LOAD_TRUNCATED_IMAGES = False  # half an image is a bad image

MAX_FILE_BYTES = 256 * 2**20  # a single image larger than this is not packed, nor read from an archive


class UnreadableImageError(Exception):
    """A file that should be an image and cannot be decoded. The message is the reason, without the path."""


@dataclass(frozen=True)
class Reading:
    """How the files of a listing become pixels.

    Attributes:
        steps: `resize` and `center_crop` steps to do while decoding; without any, images keep their own sizes.
        channels: 3 (RGB) or 1 (luma, or a mask's values).
        is_mask: pixels are integers: they are neither scaled nor interpolated.
        classes: values of a mask are 0 to classes - 1; None: anything goes.
    """

    steps: tuple[Transform, ...] = ()
    channels: int = 3
    is_mask: bool = False
    classes: int | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels of every image, None where they keep their own."""
        height, width, _ = shape_after(self.steps, self.channels)
        return (height, width) if height and width else None


CHECK = Reading((Transform(resize=[32, 32]),))  # whether a file can be decoded; small, so that JPEG files are fast


def read_image(path: str | os.PathLike[str] | IO[bytes], reading: Reading) -> np.ndarray:
    """Decode a file (by path, or opened), resize and crop it.

    A resize is bilinear and anti-aliased: when shrinking, the triangle filter widens to cover all source pixels.
    EXIF rotation is applied; grey, palette, alpha and CMYK images become RGB.

    Returns:
        uint8 array [height, width, channels]: RGB or luma, 0 to 255; or a mask's integers.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated, oversized, smaller than a crop, or not an image.
    """
    try:
        with Image.open(path) as file:
            if reading.is_mask and file.format == "JPEG":
                raise UnreadableImageError("a mask in JPEG has not kept its integers; save masks as PNG")
            first = reading.steps[0].resize if reading.steps else None
            if file.format == "JPEG" and first and not reading.is_mask:
                # lets libjpeg decode at 1/2, 1/4 or 1/8 of the size
                file.draft("RGB" if reading.channels == 3 else "L", (2 * first[0], 2 * first[1]))
            image = ImageOps.exif_transpose(file)
            image = _to_mask(image) if reading.is_mask else _to_rgb(image).convert(_MODES[reading.channels])
            for step in reading.steps:
                image = _resized(image, step, reading)
            pixels = np.asarray(image).reshape(image.height, image.width, reading.channels)
            if reading.classes and pixels.max() >= reading.classes:
                raise UnreadableImageError(f"the value {pixels.max()} is no class: there are {reading.classes}")
            return pixels
    except (MemoryError, UnreadableImageError):
        raise
    except Exception as error:  # damaged metadata alone makes Pillow raise struct.error, TypeError and more
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UnreadableImageError(reason or type(error).__name__) from None


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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # convert() would clip 16-bit values, not scale them
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("F", "I"):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise UnreadableImageError(f"{kind} pixels, whose range is not known; convert it to 8 or 16 bits")
    return image if image.mode == "L" else image.convert("RGB")
