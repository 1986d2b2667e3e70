"""Restore a photo where a mask is white, with a context encoder that was trained by `tfinpaint.pretrain`.

usage: python -m tfinpaint.predict runs/demo/pretrain photo.jpg mask.png --output restored.png
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfinpaint.checkpoint.find import find_checkpoint
from tfinpaint.cli import command as cli
from tfinpaint.cli.command import run_command
from tfinpaint.config.schema import Distributed
from tfinpaint.distributed.environment import launched_rank, was_launched
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError
from tfinpaint.inpainting import tiling
from tfinpaint.inpainting.photo import Photo, grey_photo, luma, read_hole, read_photo, restored_photo
from tfinpaint.inpainting.photo_output import FORMATS, MOST_PIXELS, write_photo
from tfinpaint.inpainting.tiling import plan_tiles, restore_photo

if TYPE_CHECKING:
    from tfinpaint.checkpoint.header import Header

PLAIN_INTERVAL_SECONDS = 15.0


def predict(checkpoint: Path, photo: Path, mask: Path, output: Path, overwrite: bool = False) -> list[str]:
    """Restore the photo where the mask is white, and write the result.

    Outside the hole the result has the photo's pixels, bit by bit (in a JPEG nearly), upright, in the photo's mode and
    depth and with its colour profile, resolution and EXIF data, so far as the format can hold them.

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
    found = find_checkpoint(checkpoint)
    _check_output(output, (photo, mask), overwrite)
    if photo.exists() and mask.exists() and photo.samefile(mask):
        raise UserError(f"{mask}: is the photo itself; the mask is another image, white where to restore it")
    picture = read_photo(photo)
    hole = read_hole(mask, photo, picture.size)
    kind = FORMATS[output.suffix.lower()]
    if max(picture.size) > MOST_PIXELS.get(kind, max(picture.size)):
        raise UserError(f"--output {output}: {kind} holds {MOST_PIXELS[kind]} pixels a side; take .png")
    start_single_rank(Distributed())
    lines = [found.note] if found.note else []
    header, network = load_network(found.path)
    if picture.is_first_of_several:
        lines.append(f"Only the first image of {photo.name} is restored: it holds several")
    restored, count = _restore(picture, hole, header, network)
    if restored.mode in ("L", "LA") and picture.mode not in ("L", "LA", "1"):
        lines.append(f"The colours of {photo.name} are left out: the network was trained on grey images")
    lines += write_photo(output, restored, photo.name)
    size, windows = f"{picture.size[0]} x {picture.size[1]}", f"{count} window{'s' * (count != 1)}"
    return [*lines, f"Restored {_in_percent(hole.mean())} of {photo.name} ({size}) in {windows}: {output}"]


def _restore(photo: Photo, hole: np.ndarray, header: Header, network: tiling.Network) -> tuple[Photo, int]:
    """(the photo with its hole restored, the number of windows that it took)."""
    colours = photo.colours()
    coloured = colours.shape[2] == 3 and np.ptp(colours, axis=2) > 0
    plan = plan_tiles(hole, (header.height, header.width))
    with _progress() as progress:
        if header.target_channels == 1:
            restored = restore_photo(luma(colours), plan, network, progress)
        else:
            seen = colours if colours.shape[2] == 3 else np.repeat(colours, 3, axis=2)
            restored = restore_photo(seen, plan, network, progress)
    if np.any(coloured) and header.target_channels == 1:
        return grey_photo(photo, restored), len(plan.windows)
    if not np.any(coloured & ~hole):  # a grey photo stays grey
        restored = luma(restored)
    return restored_photo(photo, restored, hole), len(plan.windows)


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


def load_network(path: Path) -> tuple[Header, tiling.Network]:
    """The network of a checkpoint, with its weights.

    Returns:
        What it takes and makes, and a function as `restoration.restore` needs it.

    Raises:
        UserError: not a checkpoint, or of a network that does not restore images.
    """
    import tensorflow as tf

    from tfinpaint.checkpoint.reader import open_checkpoint
    from tfinpaint.data import transforms
    from tfinpaint.data.masks import fill_hole

    with open_checkpoint(path, allowed=("inpainter",)) as saved:
        header, trained = saved.header, saved.header.restoration
        if trained is None:
            raise UserError(
                f"{path}: its model was not trained to restore images; train it by tfinpaint.pretrain with a mask in "
                "data.transforms and the images themselves as targets"
            )
        model = saved.model()
    steps, view = tuple(enumerate(trained.input_transforms)), (None, header.height, header.width)

    signature = [tf.TensorSpec((*view, header.target_channels)), tf.TensorSpec((*view, 1))]

    @tf.function(input_signature=signature, autograph=False)
    def run(images: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
        keys = transforms.Keys(0, tf.constant(0, tf.int64), tf.range(tf.shape(images, tf.int64)[0]))
        filled = fill_hole(images, masks, trained.fill, keys)
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

    live = sys.stdout.isatty() and not was_launched()
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
        if launched_rank():
            return  # one process does it all; ranks have nothing to divide here
        output = parsed.output or parsed.photo.with_name(f"{parsed.photo.stem}_restored.png")
        try:
            lines = predict(parsed.checkpoint, parsed.photo, parsed.mask, output, parsed.overwrite)
        except MemoryError:
            raise UserError(f"{parsed.photo}: is too large for this machine's memory; scale it and the mask") from None
        print("\n".join(lines))

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
