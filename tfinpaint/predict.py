"""Restore a photo where a mask is white, with a context encoder that was trained by `tfinpaint.pretrain`.

usage: python -m tfinpaint.predict runs/demo/pretrain photo.jpg mask.png --output restored.png
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from tfinpaint import cli, dist, restoration, run_folder
from tfinpaint.config import Distributed
from tfinpaint.data import decode
from tfinpaint.errors import UserError

if TYPE_CHECKING:
    from tfinpaint.checkpoint import Header

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
}  # fmt: skip
SAVE_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True, "exact": True}}
HOLDS_ALPHA = ("PNG", "WEBP", "TIFF")
MOST_PIXELS = {"JPEG": 65500, "WEBP": 16383}  # along a side
OPAQUE_LIGHT = 128  # from this luma and this alpha on, a mask's pixel is the hole
PLAIN_INTERVAL_SECONDS = 15.0


@dataclass(frozen=True)
class Photo:
    """An image as it is displayed.

    Attributes:
        pixels: uint8 [height, width, 3], RGB.
        alpha: uint8 [height, width], its opacity; None for an image without transparency.
        profile: its ICC profile, if there is one.
        is_first: its file holds more images.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    profile: bytes | None
    is_first: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


def predict(checkpoint: Path, photo: Path, mask: Path, output: Path, overwrite: bool = False) -> list[str]:
    """Restore the photo where the mask is white, and write the result.

    Outside the hole the result has the photo's pixels (in a JPEG nearly), 8 bits a channel, upright, with the photo's
    transparency and colour profile where the format can hold them.

    Args:
        checkpoint: checkpoint folder or model.weights.h5 of an inpainter; a run folder stands for its newest, and
            `best` in a run folder for that of the lowest loss on held-out images.
        photo: a JPEG, PNG, WebP, TIFF, BMP or GIF file.
        mask: an image of the photo's size as displayed; the hole is where it is light and opaque.
        output: its ending names the format.
        overwrite: the output may be there already.

    Returns:
        What was done and what was left out, a line each.

    Raises:
        UserError: a file cannot be used; the mask erases nothing or everything; the network does not restore images.
    """
    found = run_folder.find(checkpoint)
    _check_output(output, (photo, mask), overwrite)
    if photo.exists() and mask.exists() and photo.samefile(mask):
        raise UserError(f"{mask}: is the photo itself; the mask is another image, white where to restore it")
    picture = read_photo(photo)
    hole = read_hole(mask, photo, picture.size)
    kind = FORMATS[output.suffix.lower()]
    if max(picture.size) > MOST_PIXELS.get(kind, max(picture.size)):
        raise UserError(f"--output {output}: {kind} holds {MOST_PIXELS[kind]} pixels a side; take .png")
    dist.start_alone(Distributed())
    lines = [found.note] if found.note else []
    header, network = load_network(found.path)
    pixels = picture.pixels if header.target_channels == 3 else _luma(picture.pixels)
    if picture.is_first:
        lines.append(f"Only the first image of {photo.name} is restored: it holds several")
    coloured = np.ptp(picture.pixels, axis=2) > 0
    if pixels.shape[2] == 1 and coloured.any():
        lines.append(f"The colours of {photo.name} are left out: the network was trained on grey images")
    if picture.alpha is not None and kind not in HOLDS_ALPHA:
        lines.append(f"The transparency of {photo.name} is left out: {kind} has none")
    plan = restoration.plan(hole, (header.height, header.width))
    with _progress() as progress:
        restored = restoration.restore(pixels, plan, network, progress)
    if pixels.shape[2] == 3 and not coloured[~hole].any():  # a grey photo stays grey
        restored = np.repeat(_luma(restored), 3, axis=2)
    write_image(output, Photo(restored, picture.alpha, picture.profile))
    count = len(plan.windows)
    size, windows = f"{picture.size[0]} x {picture.size[1]}", f"{count} window{'s' * (count != 1)}"
    return [*lines, f"Restored {_in_percent(hole.mean())} of {photo.name} ({size}) in {windows}: {output}"]


def _in_percent(share: float) -> str:
    """In words where a figure would say all or nothing: the mask has left something, and erased something."""
    if share < 0.001:
        return "less than 0.1 %"
    return f"{100 * share:.1f} %" if share <= 0.999 else "more than 99.9 %"


def _check_output(output: Path, originals: Sequence[Path], overwrite: bool) -> None:
    """All that would keep the result from being written, before any work."""
    if output.suffix.lower() not in FORMATS:
        raise UserError(f"--output {output}: the ending names no format; take one of {' '.join(FORMATS)}")
    try:
        if output.exists() and any(path.exists() and output.samefile(path) for path in originals):
            raise UserError(f"--output {output}: is the photo or the mask itself; name another file")
        if output.is_dir():
            raise UserError(f"--output {output}: is a folder; name the image to write")
        if output.exists() and not overwrite:
            raise UserError(f"{output} already exists; add --overwrite to replace it, or name another --output")
        if not output.parent.is_dir():
            raise UserError(f"--output {output}: there is no folder {output.parent}")
        if not os.access(output.parent, os.W_OK):
            raise UserError(f"--output {output}: the folder may not be written to; name another --output")
    except OSError as error:
        raise UserError(f"--output {output}: {error.strerror}") from None


def read_photo(path: Path) -> Photo:
    """Read an image of any size, up to `config.USUAL_MPIXELS`.

    Raises:
        UserError: there is none, or it cannot be decoded.
    """
    pixels = _read(path, 3)
    with _opened(path) as file:
        profile, is_first = file.info.get("icc_profile"), getattr(file, "is_animated", False)
    return Photo(pixels, _read_alpha(path), profile, is_first)


def read_hole(path: Path, photo: Path, size: tuple[int, int]) -> np.ndarray:
    """bool [height, width], true where a mask is light and opaque.

    Args:
        photo: the photo's name, for messages.
        size: (width, height) of the photo as displayed.

    Raises:
        UserError: the file is no image or of another size, or it erases nothing or everything.
    """
    light = _read(path, 1)[..., 0]
    hole = light >= OPAQUE_LIGHT
    if (hole.shape[1], hole.shape[0]) != size:
        raise UserError(
            f"{path}: is {hole.shape[1]} x {hole.shape[0]} pixels, {photo} is {size[0]} x {size[1]} as displayed; "
            "draw the mask at the photo's size"
        )
    alpha = _read_alpha(path)
    if alpha is not None:
        hole &= alpha >= OPAQUE_LIGHT
    if not hole.any():
        why = "what is light in it is transparent"
        if light.max() < OPAQUE_LIGHT:
            why = f"its lightest pixel is {light.max()} of 255"
        raise UserError(f"{path}: erases nothing; paint the parts to restore white on black ({why})")
    if hole.all():
        raise UserError(f"{path}: erases all of {photo}; paint the parts to keep black")
    return hole


def _read(path: Path, channels: int) -> np.ndarray:
    if path.is_dir() or not path.exists():
        raise UserError(f"{path}: {'is a folder, not an image' if path.is_dir() else 'no such file'}")
    with _in_words(path):
        return decode.read_image(path, decode.Reading(channels=channels))


def _read_alpha(path: Path) -> np.ndarray | None:
    """The opacity of an image that has been read, uint8 [height, width] as displayed; None without transparency."""
    with _opened(path) as file:
        if not file.has_transparency_data or file.mode.startswith("I"):
            return None
        return np.asarray(ImageOps.exif_transpose(file).convert("RGBA").getchannel("A"))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with _in_words(path), decode.open_image(path) as file:
        yield file


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except decode.UnreadableImageError as error:
        raise UserError(f"{path}: {error}") from None


def _luma(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def load_network(path: Path) -> tuple[Header, restoration.Network]:
    """The network of a checkpoint, with its weights.

    Returns:
        What it takes and makes, and a function as `restoration.restore` needs it.

    Raises:
        UserError: not a checkpoint, or of a network that does not restore images.
    """
    import tensorflow as tf

    from tfinpaint import checkpoint
    from tfinpaint.data import erasing, transforms
    from tfinpaint.train import build

    header = checkpoint.read_header(path, allowed=("inpainter",))
    trained = header.restoration
    if trained is None:
        raise UserError(
            f"{path}: its network was not trained to restore images: that takes a mask in data.transforms of "
            "tfinpaint.pretrain and the images themselves as targets"
        )
    model = build.build_model(header, checkpoint.read_network(path), str(path), checkpoint.most_weights(path))
    checkpoint.load_weights(path, model)
    steps, view = tuple(enumerate(trained.input_transforms)), (None, header.height, header.width)

    signature = [tf.TensorSpec((*view, header.target_channels)), tf.TensorSpec((*view, 1))]

    @tf.function(input_signature=signature, autograph=False)
    def run(images: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
        keys = transforms.Keys(0, tf.constant(0, tf.int64), tf.range(tf.shape(images, tf.int64)[0]))
        filled = erasing.fill_hole(images, masks, trained.fill, keys)
        return model(transforms.apply(filled, steps, keys), training=False)

    def network(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        made = run(images, masks).numpy()
        if not np.isfinite(made).all():
            raise UserError(f"{path}: its network makes no numbers; take an earlier checkpoint")
        return made.clip(0, 1)

    return header, network


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Shows the windows done: a live bar on a terminal, a plain line now and then elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    live = sys.stdout.isatty() and not dist.launched()
    columns = (TextColumn("windows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not live, transient=True) as bar:
        task, printed = bar.add_task("windows", total=None), time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal printed
            bar.update(task, completed=done, total=total)
            if not live and time.monotonic() - printed > PLAIN_INTERVAL_SECONDS:
                printed = time.monotonic()
                print(f"  window {done} of {total}", flush=True)

        yield show


def write_image(path: Path, photo: Photo) -> None:
    """Write an image in the format that its ending names, whole or not at all.

    Args:
        photo: its pixels may have one channel; transparency and profile are left out where they do not fit.

    Raises:
        UserError: it cannot be written.
    """
    kind = FORMATS[path.suffix.lower()]
    image = Image.fromarray(photo.pixels if photo.pixels.shape[2] == 3 else photo.pixels[..., 0])
    options = SAVE_OPTIONS.get(kind, {})
    # A profile of CMYK, or of grey for what is colour now, would spoil all colours. Its space stands at byte 16.
    if photo.profile and photo.profile[16:20] == {"RGB": b"RGB ", "L": b"GRAY"}[image.mode]:
        options = options | {"icc_profile": photo.profile}
    if photo.alpha is not None and kind in HOLDS_ALPHA:
        image.putalpha(Image.fromarray(photo.alpha))
    partial = path.with_name(f".{path.name}.partial")
    try:
        image.save(partial, kind, **options)
        partial.replace(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        partial.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = cli.make_parser("predict")
        parser.add_argument(
            "checkpoint",
            type=Path,
            help="run folder (its newest checkpoint), RUN/best, checkpoint folder or model.weights.h5",
        )
        parser.add_argument("photo", type=Path, help="image to restore")
        parser.add_argument("mask", type=Path, help="image of the same size: white where the photo is to be restored")
        parser.add_argument("--output", type=Path, help="image to write; default: PHOTO_restored.png beside the photo")
        parser.add_argument("--overwrite", action="store_true", help="replace the output if it is there already")
        parsed = parser.parse_args(arguments)
        if dist.launched_rank():
            return  # one process does it all; ranks have nothing to divide here
        output = parsed.output or parsed.photo.with_name(f"{parsed.photo.stem}_restored.png")
        try:
            lines = predict(parsed.checkpoint, parsed.photo, parsed.mask, output, parsed.overwrite)
        except MemoryError:
            raise UserError(f"{parsed.photo}: is too large for this machine's memory; scale it and the mask") from None
        print("\n".join(lines))

    return cli.guard(command)


if __name__ == "__main__":
    sys.exit(main())
