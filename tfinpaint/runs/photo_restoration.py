"""Restore a user's photo where a mask is white, by an inpainter. Imports TensorFlow only once all files are checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfinpaint.checkpoint.find import find_checkpoint
from tfinpaint.checkpoint.recorded import cannot_restore, refuse_not_restoring
from tfinpaint.config.sections import Distributed
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError
from tfinpaint.inpainting.mistakes import find_mistakes
from tfinpaint.inpainting.photo import Photo, grey_photo, luma, read_hole, read_photo, restored_photo
from tfinpaint.inpainting.photo_output import check_output, check_size, write_photo
from tfinpaint.inpainting.tiling import Network, plan_tiles, restore_photo
from tfinpaint.system.wording import counted

if TYPE_CHECKING:
    from tfinpaint.checkpoint.header import Header


@dataclass(frozen=True)
class Restoration:
    """A restored photo.

    Attributes:
        checkpoint: of the inpainter.
        photo: the photo, upright, restored in the hole.
        hole: bool [height, width]: where the mask is white.
        lines: what was done, what could not be kept, and what is probably wrong.
    """

    checkpoint: Path
    photo: Photo
    hole: np.ndarray
    lines: tuple[str, ...]


def restore(checkpoint: Path, photo: Path, mask: Path, output: Path | None, overwrite: bool = False) -> Restoration:
    """Restore the photo where the mask is white, and write the result.

    Outside the hole the result has the photo's pixels, bit by bit (in a JPEG nearly), upright, in the photo's mode and
    depth and with its colour profile, resolution and EXIF data, as far as the output's format can hold them.

    Args:
        checkpoint: the checkpoint folder or model.weights.h5 of an inpainter; a run folder stands for its newest
            checkpoint, and `best` in a run folder for the one with the lowest loss on held-out images.
        photo: a JPEG, PNG, WebP, TIFF, BMP or GIF file.
        mask: an image of the photo's size as displayed; the hole is where it is light and opaque.
        output: the file to write; its suffix names the format. None: nothing is written.
        overwrite: replace an existing output.

    Raises:
        UserError: A file cannot be used, the mask erases nothing or everything, the model was not trained to restore
            images, or the photo is too large.
    """
    found = find_checkpoint(checkpoint)
    refuse_not_restoring(found.path)
    if output:
        check_output(output, (photo, mask), overwrite)
    if photo.exists() and mask.exists() and photo.samefile(mask):
        raise UserError(f"{mask}: is the photo itself; the mask is another image, white where to restore it")
    try:
        picture = read_photo(photo)
        hole = read_hole(mask, photo, picture.size)
        if output:
            check_size(output, picture)
        start_single_rank(Distributed())
        header, network = load_network(found.path)
        from tfinpaint.runs.baseline_warning import below_baselines

        restored, count = _restore(picture, hole, header, network)
        lines = [found.note] if found.note else []
        lines += find_mistakes(picture.colours(), mask, hole)
        lines += [weak] if (weak := below_baselines(found.path, header)) else []
        if picture.is_first_of_several:
            lines.append(f"Only the first image of {photo.name} was restored, because it holds several")
        if restored.mode in ("L", "LA") and picture.mode not in ("L", "LA", "1"):
            lines.append(f"The colours of {photo.name} are dropped: the model was trained on grey images")
        lines += write_photo(output, restored, photo.name) if output else restored.notes
    except MemoryError:
        raise UserError(f"{photo}: is too large for this machine's memory; shrink it and the mask") from None
    size, windows = f"{picture.size[0]} x {picture.size[1]}", counted(count, "window")
    done = f"Restored {_percent(hole.mean())} of {photo.name} ({size}) in {windows}"
    return Restoration(found.path, restored, hole, (*lines, f"{done}: {output}" if output else done))


def _restore(photo: Photo, hole: np.ndarray, header: Header, network: Network) -> tuple[Photo, int]:
    """Return the photo with its hole restored, and the number of windows that this took."""
    colours = photo.colours()
    coloured = colours.shape[2] == 3 and np.ptp(colours, axis=2) > 0
    is_grey = header.target_channels == 1
    seen = luma(colours) if is_grey else np.broadcast_to(colours, (*colours.shape[:2], 3))
    plan = plan_tiles(hole, (header.height, header.width))
    restored = restore_photo(seen, plan, network)
    if is_grey and np.any(coloured):
        return grey_photo(photo, restored), len(plan.windows)
    if not np.any(coloured & ~hole):  # a grey photo stays grey
        restored = luma(restored)
    return restored_photo(photo, restored, hole), len(plan.windows)


def _percent(share: float) -> str:
    """Return a share in percent, without rounding it to nothing or to everything."""
    if share < 0.001:
        return "less than 0.1 %"
    return f"{100 * share:.1f} %" if share <= 0.999 else "more than 99.9 %"


def load_network(path: Path) -> tuple[Header, Network]:
    """Load the model of a checkpoint.

    Returns:
        The checkpoint's header, and the model as a function that `tiling.restore_photo` takes.

    Raises:
        UserError: It is not a checkpoint, or its model was not trained to restore images.
    """
    import tensorflow as tf

    from tfinpaint.checkpoint.reader import open_checkpoint
    from tfinpaint.data.masks import fill_hole
    from tfinpaint.data.transforms import Keys, apply_transforms

    with open_checkpoint(path, allowed=("inpainter",)) as saved:
        header, trained = saved.header, saved.header.restoration
        if trained is None:
            raise cannot_restore(path)
        model = saved.model()
    steps, view = tuple(enumerate(trained.input_transforms)), (None, header.height, header.width)
    signature = [tf.TensorSpec((*view, header.target_channels)), tf.TensorSpec((*view, 1))]

    @tf.function(input_signature=signature, autograph=False)
    def run(images: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
        keys = Keys(0, tf.constant(0, tf.int64), tf.range(tf.shape(images, tf.int64)[0]))
        filled = fill_hole(images, masks, trained.fill, keys)
        return model(apply_transforms(filled, steps, keys), training=False)

    def network(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        outputs = run(images, masks).numpy()
        if not np.isfinite(outputs).all():
            raise UserError(f"{path}: the model produced NaN or Inf; use an earlier checkpoint")
        return outputs.clip(0, 1)

    return header, network
