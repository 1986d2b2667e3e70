"""Write photos to files, in the modes that each format can hold, with notes on what is lost."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from tfinpaint.errors import UserError
from tfinpaint.inpainting.photo import WITHOUT_ALPHA, Photo
from tfinpaint.storage.atomic import atomic_file
from tfinpaint.storage.write_errors import why_not_writable

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
}  # fmt: skip
SAVE_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True, "exact": True}}
MOST_PIXELS = {"JPEG": 65500, "WEBP": 16383}  # of a side
_MODES = {  # format -> modes that it can hold
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK"),
    "BMP": ("1", "L", "P", "RGB"),
}
_DEEP_MODES = {"PNG": ("L", "LA", "RGB", "RGBA"), "TIFF": ("L", "RGB", "RGBA")}  # the same with 16 bits per channel
# mode -> ICC's name of its colour space
_SPACES = {"RGB": b"RGB ", "P": b"RGB ", "L": b"GRAY", "1": b"GRAY", "CMYK": b"CMYK"}
_PROFILE_SPACE = slice(16, 20)  # the bytes of a profile that name its colour space
_SIGNATURE_BYTES = 33  # of a PNG file: signature and header, before all other chunks
_INCH = 0.0254  # metres


def check_output(output: Path, originals: Sequence[Path], overwrite: bool) -> None:
    """Refuse, before any work, an output that could not be written or would replace one of the originals.

    Raises:
        UserError: The output cannot be used.
    """
    if output.suffix.lower() not in FORMATS:
        raise UserError(f"--output {output}: the suffix names no format; use one of {' '.join(FORMATS)}")
    try:
        if output.exists() and any(path.exists() and output.samefile(path) for path in originals):
            raise UserError(f"--output {output}: is the photo or the mask itself; name another file")
        if output.is_dir():
            raise UserError(f"--output {output}: is a folder; name the image to write")
        if output.exists() and not overwrite:
            raise UserError(f"{output} already exists; add --overwrite to replace it, or name another --output")
        if reason := why_not_writable(output.parent):
            raise UserError(f"--output {output}: {reason}")
    except OSError as error:
        raise UserError(f"--output {output}: {error.strerror}") from None


def check_size(output: Path, photo: Photo) -> None:
    """Raise UserError if the output's format cannot hold as many pixels a side as the photo has."""
    kind = FORMATS[output.suffix.lower()]
    if max(photo.size) > MOST_PIXELS.get(kind, max(photo.size)):
        raise UserError(f"--output {output}: {kind} holds at most {MOST_PIXELS[kind]} pixels a side; name a .png")


def write_photo(path: Path, photo: Photo, name: str) -> list[str]:
    """Write a photo in the format that the suffix of `path` names, whole or not at all.

    Args:
        name: the photo's name, for the notes.

    Returns:
        A line for each property of the photo that the file cannot hold.

    Raises:
        UserError: The file cannot be written.
    """
    kind = FORMATS[path.suffix.lower()]
    fitted, notes = _fitted(photo, kind, name)
    try:
        with atomic_file(path) as partial:
            _writer(fitted, kind)(partial, fitted, kind)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    return [*photo.notes, *notes]


def _fitted(photo: Photo, kind: str, name: str) -> tuple[Photo, list[str]]:
    """Return the photo in a mode that the format can hold, and a line for each property that it cannot hold."""
    notes = []
    if photo.is_deep and photo.mode not in _DEEP_MODES.get(kind, ()):
        notes.append(f"{kind} holds 8 bits per channel, {name} has 16: they are rounded; name a .png to keep them")
        photo = replace(photo, pixels=((photo.pixels.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if photo.is_transparent and not set(WITHOUT_ALPHA) & set(_MODES[kind]):
        notes.append(f"The transparency of {name} is dropped: {kind} has none")
        photo = _opaque(photo)
    if photo.mode == "CMYK" and "CMYK" not in _MODES[kind]:
        notes.append(f"The CMYK colours of {name} are converted to RGB: {kind} holds no CMYK; name a .tif to keep them")
    if photo.mode not in _MODES[kind] or (photo.is_transparent and photo.mode == "P" and kind != "PNG"):
        photo = _converted(photo, kind)
    if kind == "JPEG":
        notes.append("JPEG changes all pixels a little; name a .png to keep those outside the hole exactly")
    if photo.profile and (
        kind == "BMP" or photo.profile[_PROFILE_SPACE] != _SPACES[WITHOUT_ALPHA.get(photo.mode, photo.mode)]
    ):
        why = "BMP has none" if kind == "BMP" else "it belongs to another colour space"
        notes.append(f"The colour profile of {name} is dropped: {why}")
        photo = replace(photo, profile=None)
    if photo.exif and (kind == "BMP" or (kind == "TIFF" and photo.is_deep and photo.mode != "L")):
        notes.append(f"The EXIF data of {name} are dropped: this kind of {kind} file has none")
        photo = replace(photo, exif=None)
    return photo, notes


def _opaque(photo: Photo) -> Photo:
    if photo.palette is not None:
        return replace(photo, palette=photo.palette | np.array([0, 0, 0, 255], np.uint8))
    mode = WITHOUT_ALPHA[photo.mode]
    return replace(photo, mode=mode, pixels=photo.pixels[..., 0] if mode == "L" else photo.pixels[..., :3])


def _converted(photo: Photo, kind: str) -> Photo:
    """Return the photo in a mode that the format can hold and that shows the same colours."""
    colours = photo.colours()
    channels = [colours]
    if photo.is_transparent:
        alpha = photo.palette[photo.pixels, 3] if photo.palette is not None else photo.pixels[..., -1]
        channels.append(alpha[..., None])
    if colours.shape[2] == 1 and "L" in _MODES[kind]:
        return replace(photo, mode="L", pixels=colours[..., 0])
    channels[0] = np.broadcast_to(colours, (*colours.shape[:2], 3))
    return replace(photo, mode="RGBA" if len(channels) > 1 else "RGB", pixels=np.dstack(channels), palette=None)


def _writer(photo: Photo, kind: str) -> Callable[[Path, Photo, str], None]:
    """Return the function that writes a photo: Pillow's, except for several channels of 16 bits."""
    if not photo.is_deep or photo.mode == "L":
        return _write_by_pillow
    return _write_deep_png if kind == "PNG" else _write_deep_tiff


def _write_by_pillow(path: Path, photo: Photo, kind: str) -> None:
    if photo.mode in ("P", "CMYK"):
        image = Image.frombytes(photo.mode, photo.size, photo.pixels.tobytes())
    else:
        image = Image.fromarray(photo.pixels)
    if photo.palette is not None:
        transparent = photo.is_transparent
        image.putpalette(photo.palette[:, : 4 if transparent else 3].tobytes(), "RGBA" if transparent else "RGB")
    facts = {"icc_profile": photo.profile, "exif": photo.exif, "dpi": photo.dpi}
    kept = {name: value for name, value in facts.items() if value}
    image.save(path, kind, **SAVE_OPTIONS.get(kind, {}), **kept)


def _write_deep_png(path: Path, photo: Photo, kind: str) -> None:
    import tensorflow as tf

    encoded = tf.io.encode_png(photo.pixels).numpy()
    chunks = b""
    if photo.profile:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.profile))
    if photo.dpi:
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *(round(value / _INCH) for value in photo.dpi), 1))
    if photo.exif:
        chunks += _chunk(b"eXIf", photo.exif.removeprefix(b"Exif\0\0"))
    path.write_bytes(encoded[:_SIGNATURE_BYTES] + chunks + encoded[_SIGNATURE_BYTES:])


def _chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _write_deep_tiff(path: Path, photo: Photo, kind: str) -> None:
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "iccprofile": photo.profile}
    if photo.dpi:
        options |= {"resolution": photo.dpi, "resolutionunit": "INCH"}
    if photo.mode == "RGBA":
        options["extrasamples"] = ["unassalpha"]
    with path.open("wb") as file:
        tifffile.imwrite(file, photo.pixels, **options)
