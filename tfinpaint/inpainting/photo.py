"""Read a user's photo and mask, and put restored pixels into the photo without changing any others.

A photo keeps its mode (bilevel, grey, palette, RGB, CMYK; with or without transparency), its depth of 1, 8 or 16 bits,
its colour profile, its resolution and its descriptive EXIF data, as far as the format of the output can hold them.
Notes name what is lost. A photo is turned upright as its EXIF data say, and is then written without that entry.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps
from scipy.spatial import cKDTree

from tfinpaint.data.images import decode
from tfinpaint.data.images.depth import deep_grey, raw_mode
from tfinpaint.data.images.unreadable import UnreadableImageError, is_resource_shortage
from tfinpaint.errors import UserError

OPAQUE_LIGHT = 128  # a pixel of a mask belongs to the hole if its luma and its alpha are at least this
WITHOUT_ALPHA = {"LA": "L", "RGBA": "RGB"}  # mode with transparency -> the same mode without
# EXIF entries that describe the photo. Others describe the layout of its file, or are previews of the unrestored photo.
_DESCRIBING = (
    ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software,
    ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.Copyright,
)  # fmt: skip
_PARTS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_NOT_KEPT = (ExifTags.Base.MakerNote, ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, ExifTags.IFD.Interop)
_KEPT = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")


@dataclass(frozen=True)
class Photo:
    """An image as it is displayed, upright.

    Attributes:
        pixels: [height, width] or [height, width, channels]: bool if the mode is 1, else uint8 or uint16.
        mode: 1, L, LA, P, RGB, RGBA or CMYK as in Pillow; L, LA, RGB or RGBA if the pixels are uint16.
        palette: uint8 [entries, 4], RGBA, if the mode is P.
        profile: its ICC profile.
        exif: its descriptive EXIF data, encoded.
        dpi: its resolution, pixels per inch along width and height.
        is_first_of_several: its file holds more images.
        notes: lines about what was lost when it was read.
    """

    pixels: np.ndarray
    mode: str
    palette: np.ndarray | None = None
    profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    is_first_of_several: bool = False
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Return (width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def is_deep(self) -> bool:
        """Return whether the photo has 16 bits per channel."""
        return self.pixels.dtype == np.uint16

    @property
    def is_transparent(self) -> bool:
        return self.mode in WITHOUT_ALPHA or (self.palette is not None and bool((self.palette[:, 3] < 255).any()))

    def colours(self) -> np.ndarray:
        """Return uint8 or uint16 [height, width, channels]: RGB, or one channel if the mode has no colours."""
        if self.mode == "1":
            return self.pixels[..., None].astype(np.uint8) * 255
        if self.palette is not None:
            return self.palette[self.pixels, :3]
        if self.mode == "CMYK":
            return np.asarray(Image.frombytes("CMYK", self.size, self.pixels.tobytes()).convert("RGB"))
        if self.pixels.ndim == 2:
            return self.pixels[..., None]
        return self.pixels[..., : len(WITHOUT_ALPHA.get(self.mode, "RGB"))]


def luma(colours: np.ndarray) -> np.ndarray:
    """Return the luma of RGB values, [..., 3] -> [..., 1], of the same dtype; return a single channel unchanged."""
    if colours.shape[-1] == 1:
        return colours
    red, green, blue = np.moveaxis(colours.astype(np.uint32), -1, 0)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(colours.dtype)[..., None]  # as Pillow's


def restored_photo(photo: Photo, restored: np.ndarray, hole: np.ndarray) -> Photo:
    """Return the photo with restored colours in the hole, in its own mode and depth; other pixels are identical.

    Args:
        restored: [height, width, 1 or 3], of the dtype of `photo.colours()`.
        hole: bool [height, width].
    """
    pixels, colours = photo.pixels.copy(), restored[hole]
    if photo.mode == "1":
        pixels[hole] = luma(colours)[:, 0] >= OPAQUE_LIGHT
        note = "The restored pixels are black or white, because the photo has 1 bit per pixel"
        return replace(photo, pixels=pixels, notes=(*photo.notes, note))
    if photo.palette is not None:
        pixels[hole] = _nearest_entries(photo.palette, pixels[hole], np.broadcast_to(colours, (len(colours), 3)))
        note = f"The restored pixels have the nearest of the {len(photo.palette)} colours of the photo's palette"
        return replace(photo, pixels=pixels, notes=(*photo.notes, note))
    if photo.mode == "CMYK":
        rgb = Image.fromarray(np.ascontiguousarray(np.broadcast_to(colours, (len(colours), 3)))[None])
        pixels[hole] = np.asarray(rgb.convert("CMYK"))[0]
    elif photo.mode == "L":
        pixels[hole] = luma(colours)[:, 0]
    elif photo.mode == "LA":
        pixels[hole, :1] = luma(colours)
    else:
        pixels[hole, :3] = colours
    return replace(photo, pixels=pixels)


def grey_photo(photo: Photo, grey: np.ndarray) -> Photo:
    """Return a photo with these grey values, [height, width, 1], and the transparency of `photo`."""
    mode, pixels = "L", grey[..., 0]
    if photo.is_transparent:
        alpha = photo.palette[photo.pixels, 3] if photo.palette is not None else photo.pixels[..., -1]
        mode, pixels = "LA", np.dstack([grey, alpha])
    return replace(photo, pixels=pixels, mode=mode, palette=None)


def _nearest_entries(palette: np.ndarray, entries: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return the palette entries nearest to these colours, among those as opaque as the entries there before."""
    found = entries.copy()
    for alpha in np.unique(palette[entries, 3]):
        chosen, candidates = palette[entries, 3] == alpha, np.flatnonzero(palette[:, 3] == alpha)
        if alpha:  # invisible pixels keep their entries
            tree = cKDTree(palette[candidates, :3].astype(np.float64))
            found[chosen] = candidates[tree.query(colours[chosen].astype(np.float64))[1]]
    return found


def read_photo(path: Path) -> Photo:
    """Read an image of up to `config.sections.DEFAULT_MPIXELS` megapixels.

    Raises:
        UserError: The file does not exist or cannot be decoded.
    """
    _check_exists(path)
    with _naming_image(path), decode.open_image(path) as file:
        raw = raw_mode(file)  # before EXIF data are read, which decodes some kinds of files
        if raw.startswith("LA;16"):
            _set_raw_mode(file, "RGBA")  # read two channels of 16 bits as four of 8
        facts: dict[str, Any] = {
            "profile": file.info.get("icc_profile"),
            "is_first_of_several": bool(getattr(file, "is_animated", False)),
        }
        facts["dpi"], (facts["exif"], notes) = _resolution(file), _exif(file, path)
        transparent = file.info.get("transparency")
        if raw.startswith(("RGB;16", "RGBA;16", "LA;16")):
            pixels = _deep_pixels(path, file, raw)
            mode = raw.partition(";")[0]
        elif not file.mode.startswith("I;16") and (";16" in raw or file.mode not in _KEPT):
            notes += [f"{path.name} has pixels of type {raw or file.mode}, which are converted to 8-bit RGB"]
            has_alpha = file.has_transparency_data
            mode, pixels = "RGB", decode.read_image(path, decode.DecodeOptions())
            if has_alpha and (alpha := _read_alpha(path)) is not None:
                mode, pixels = "RGBA", np.dstack([pixels, alpha])
        else:
            ImageOps.exif_transpose(file, in_place=True)
            if file.mode == "P":
                return Photo(np.asarray(file), "P", _palette(file), notes=tuple(notes), **facts)
            is_deep = file.mode.startswith("I;16")
            mode, pixels = ("L", deep_grey(file)) if is_deep else (file.mode, np.asarray(file))
        if transparent is not None and mode in ("1", "L", "RGB"):
            mode, pixels = _with_alpha(mode, pixels, transparent)
        return Photo(pixels, mode, notes=tuple(notes), **facts)


def _deep_pixels(path: Path, file: Image.Image, raw: str) -> np.ndarray:
    """Return 16-bit colours as uint16 [height, width, channels].

    Pillow's decoder keeps only the high bytes; with the opposite byte order it keeps the low ones.
    """
    ImageOps.exif_transpose(file, in_place=True)
    high = np.asarray(file).astype(np.uint16)
    if raw.startswith("LA;16"):
        return high[..., ::2] << 8 | high[..., 1::2]
    with decode.open_image(path) as again:
        native = "L" if sys.byteorder == "little" else "B"
        order = raw[-1] if raw[-1] in "LB" else native
        _set_raw_mode(again, raw[:-1] + {"L": "B", "B": "L"}[order])
        ImageOps.exif_transpose(again, in_place=True)
        low = np.asarray(again)
    if low.shape != high.shape:
        raise UnreadableImageError("changed while it was read")
    return high << 8 | low


def _set_raw_mode(file: Any, raw: str) -> None:
    file.tile = [tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:])) for tile in file.tile]


def _palette(file: Image.Image) -> np.ndarray:
    file.apply_transparency()
    entries = np.array(file.getpalette("RGBA"), np.uint8).reshape(-1, 4)
    lacking = int(np.asarray(file).max()) + 1 - len(entries)  # entries that the file uses but lacks are black
    black = np.tile(np.array([[0, 0, 0, 255]], np.uint8), (max(0, lacking), 1))
    return np.concatenate([entries, black])


def _with_alpha(mode: str, pixels: np.ndarray, transparent: Any) -> tuple[str, np.ndarray]:
    """Return mode and pixels with an alpha channel, in which the value that a PNG file calls transparent is 0."""
    if mode == "1":
        mode, pixels = "L", pixels.astype(np.uint8) * 255
    hidden = pixels == np.asarray(transparent)
    hidden = hidden.all(axis=-1) if pixels.ndim == 3 else hidden
    alpha = np.where(hidden, 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
    return {"L": "LA", "RGB": "RGBA"}[mode], np.dstack([pixels, alpha])


def _resolution(file: Image.Image) -> tuple[float, float] | None:
    """Return the pixels per inch along the width and the height of the image as it is displayed."""
    try:
        across, down = (float(value) for value in file.info.get("dpi", ()))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (0 < across < 1e5 and 0 < down < 1e5):
        return None
    return (down, across) if decode.is_turned(file) else (across, down)


def _exif(file: Image.Image, path: Path) -> tuple[bytes | None, list[str]]:
    """Return the descriptive EXIF data, encoded, and a note if they cannot be read."""
    try:
        found, kept = file.getexif(), Image.Exif()
        for tag in _DESCRIBING:
            if tag in found:
                kept[tag] = found[tag]
        for part in _PARTS:
            if values := {tag: value for tag, value in found.get_ifd(part).items() if tag not in _NOT_KEPT}:
                kept.get_ifd(part).update(values)
                kept[part] = kept.get_ifd(part)
        return (kept.tobytes() if len(kept) else None), []
    except Exception as error:
        if is_resource_shortage(error):
            raise
        return None, [f"The EXIF data of {path.name} are dropped because they are damaged"]


def read_hole(path: Path, photo: Path, size: tuple[int, int]) -> np.ndarray:
    """Read a mask; return bool [height, width], True where it is light and opaque.

    Args:
        photo: the photo's path, for messages.
        size: (width, height) of the photo as displayed, in pixels.

    Raises:
        UserError: The file is not an image or has another size, or it erases nothing or everything.
    """
    _check_exists(path)
    with _naming_image(path):
        light = decode.read_image(path, decode.DecodeOptions(channels=1))[..., 0]
    hole = light >= OPAQUE_LIGHT
    if (hole.shape[1], hole.shape[0]) != size:
        raise UserError(
            f"{path}: is {hole.shape[1]} x {hole.shape[0]} pixels, {photo} is {size[0]} x {size[1]} as displayed; "
            "draw the mask at the photo's size"
        )
    with _naming_image(path):
        alpha = _read_alpha(path)
    if alpha is not None:
        hole &= alpha >= OPAQUE_LIGHT
    if not hole.any():
        why = "its light pixels are transparent"
        if light.max() < OPAQUE_LIGHT:
            why = f"its lightest pixel is {light.max()} of 255"
        raise UserError(f"{path}: erases nothing; paint the parts to restore white on black ({why})")
    if hole.all():
        raise UserError(f"{path}: erases all of {photo}; paint the parts to keep black")
    return hole


def _read_alpha(path: Path) -> np.ndarray | None:
    """Return the opacity of a readable image, uint8 [height, width] as displayed; None without transparency."""
    with decode.open_image(path) as file:
        if not file.has_transparency_data or file.mode.startswith("I"):
            return None
        return np.asarray(ImageOps.exif_transpose(file).convert("RGBA").getchannel("A"))


def _check_exists(path: Path) -> None:
    if path.is_dir() or not path.exists():
        raise UserError(f"{path}: {'is a folder, not an image' if path.is_dir() else 'no such file'}")


@contextmanager
def _naming_image(path: Path) -> Iterator[None]:
    try:
        yield
    except UnreadableImageError as error:
        raise UserError(f"{path}: {error}") from None
