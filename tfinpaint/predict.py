"""Tell the classes of photos by a trained classifier, or restore a photo where a mask is white by an inpainter.

usage: python -m tfinpaint.predict runs/demo/pretrained photo.jpg more_photos/ --csv classes.csv
       python -m tfinpaint.predict runs/demo/pretrain photo.jpg mask.png --output restored.png
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfinpaint.checkpoint.find import FoundCheckpoint, find_checkpoint, find_reported, recorded_kind
from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.cli.tables import print_listing, terminal_width
from tfinpaint.config.sections import Distributed
from tfinpaint.data.listing.listing import Listing, list_images
from tfinpaint.distributed.environment import launched_rank
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError
from tfinpaint.inpainting.mistakes import find_mistakes
from tfinpaint.inpainting.photo import Photo, grey_photo, luma, read_hole, read_photo, restored_photo
from tfinpaint.inpainting.photo_output import check_output, check_size, write_photo
from tfinpaint.inpainting.tiling import Network, plan_tiles, restore_photo
from tfinpaint.storage.write_errors import explain_os_error
from tfinpaint.system.paths import display_path

if TYPE_CHECKING:
    from tfinpaint.checkpoint.header import Header

log = logging.getLogger(__name__)

MOST_NAMED = 20  # photos that could not be read; a JSON file names all


def restore(checkpoint: Path, photo: Path, mask: Path, output: Path, overwrite: bool = False) -> list[str]:
    """Restore the photo where the mask is white, and write the result.

    Outside the hole the result has the photo's pixels, bit by bit (in a JPEG nearly), upright, in the photo's mode and
    depth and with its colour profile, resolution and EXIF data, as far as the output's format can hold them.

    Args:
        checkpoint: the checkpoint folder or model.weights.h5 of an inpainter; a run folder stands for its newest
            checkpoint, and `best` in a run folder for the one with the lowest loss on held-out images.
        photo: a JPEG, PNG, WebP, TIFF, BMP or GIF file.
        mask: an image of the photo's size as displayed; the hole is where it is light and opaque.
        output: the file to write; its suffix names the format.
        overwrite: replace an existing output.

    Returns:
        Lines that say what was done, what could not be kept, and what is probably wrong.

    Raises:
        UserError: A file cannot be used, the mask erases nothing or everything, or the model was not trained to restore
            images.
    """
    found = find_checkpoint(checkpoint)
    check_output(output, (photo, mask), overwrite)
    if photo.exists() and mask.exists() and photo.samefile(mask):
        raise UserError(f"{mask}: is the photo itself; the mask is another image, white where to restore it")
    picture = read_photo(photo)
    hole = read_hole(mask, photo, picture.size)
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
    lines += write_photo(output, restored, photo.name)
    size, windows = f"{picture.size[0]} x {picture.size[1]}", f"{count} window{'s' * (count != 1)}"
    return [*lines, f"Restored {_percent(hole.mean())} of {photo.name} ({size}) in {windows}: {output}"]


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
            raise UserError(
                f"{path}: its model was not trained to restore images; train it by tfinpaint.pretrain with a mask in "
                "data.transforms and the images themselves as targets"
            )
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


def classify_all(checkpoint: FoundCheckpoint, places: Sequence[str], csv: Path | None, json: Path | None) -> None:
    """Print the classes of photos, and write them into files.

    Args:
        checkpoint: the checkpoint folder of a classifier.
        places: photos, and folders of photos.
        csv, json: the files to write; None for none.

    Raises:
        UserError: A photo or a folder cannot be read, after all others were classified; or the classifier or a file
            cannot be used.
    """
    failures: list[str] = []
    listings: list[Listing] = []
    for place in places:
        try:
            listings.append(list_images(Path(place), single=True))
        except UserError as error:
            failures.append(str(error))
    if not listings:
        raise UserError("\n".join(failures))
    start_single_rank(Distributed())
    from tfinpaint.runs.photo_classes import classify_photos, load_classifier

    classifier = load_classifier(checkpoint.path)
    for line in (checkpoint.note, *(_excluded(listing) for listing in listings)):
        if line:
            log.info(line)
    found = classify_photos(classifier, listings)
    if found.photos:
        print_listing(found.table(), terminal_width())
    if len(found.photos) > 1:
        log.info(found.counts())
    try:
        if csv:
            found.write_csv(csv)
        if json:
            found.write_json(json, str(checkpoint.path))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {explain_os_error(error)}") from None
    failures += [f"{photo}: {reason}" for photo, reason in found.unreadable.items()]
    if failures:
        more = [f"{len(failures) - MOST_NAMED} more could not be read"] if len(failures) > MOST_NAMED else []
        raise UserError("\n".join([*failures[:MOST_NAMED], *more]))


def _excluded(listing: Listing) -> str:
    summary = listing.excluded.summary()
    return f"{display_path(listing.root)}: {summary}" if summary else ""


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parsed = _parser().parse_args(arguments)
        if launched_rank():
            return  # rank 0 does all the work
        found = find_reported(parsed.checkpoint)
        if _kind(found.path) == "classifier":
            _check_tables(parsed)
            classify_all(found, parsed.photos, parsed.csv, parsed.json)
        else:
            _restore_one(parsed)

    return run_command(command)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("predict")
    parser.add_argument(
        "checkpoint", type=Path, metavar="RUN",
        help="run folder (its newest checkpoint; the best one where validation images have chosen it), RUN/best, "
        "checkpoint folder or model.weights.h5",
    )  # fmt: skip
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO",
        help="classifier: photos, and folders of photos; inpainter: a photo, then its mask, which is white where the "
        "photo is to be restored",
    )  # fmt: skip
    parser.add_argument("--csv", type=Path, metavar="FILE", help="classifier: write all probabilities as CSV")
    parser.add_argument("--json", type=Path, metavar="FILE", help="classifier: write all probabilities as JSON")
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="inpainter: image to write; default: PHOTO_restored.png beside the photo",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace what is there already")
    return parser


def _kind(checkpoint: Path) -> str:
    """Return the kind of model in a checkpoint; TensorFlow is loaded only for a weight file without its folder."""
    if checkpoint.is_dir() and (kind := recorded_kind(checkpoint)):
        return kind
    from tfinpaint.checkpoint.reader import read_header

    return read_header(checkpoint).kind


def _check_tables(parsed: argparse.Namespace) -> None:
    """Refuse options that do not suit a classifier, and files that cannot be written."""
    run = shlex.quote(str(parsed.checkpoint))
    if parsed.output:
        raise UserError(
            f"--output: {parsed.checkpoint} is a classifier, which tells the classes of photos; type: tfinpaint "
            f"predict {run} {_quoted(parsed.photos)} --csv FILE"
        )
    if parsed.csv and parsed.json and parsed.csv.resolve() == parsed.json.resolve():
        raise UserError(f"--csv and --json name the same file, {parsed.csv}; name two files")
    for path in filter(None, (parsed.csv, parsed.json)):
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name the file to write")
        if path.exists() and not parsed.overwrite:
            raise UserError(f"{path} already exists; add --overwrite, or name another file")
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
            raise UserError(f"{path}: cannot be written: there is no folder {path.parent}, or no permission to write")


def _restore_one(parsed: argparse.Namespace) -> None:
    photo, *masks = map(Path, parsed.photos)
    if len(masks) != 1 or parsed.csv or parsed.json or photo.is_dir():
        what = "PHOTO" if photo.is_dir() else shlex.quote(str(photo))
        mask = shlex.quote(str(masks[0])) if len(masks) == 1 else "MASK"
        raise UserError(
            f"{parsed.checkpoint}: is an inpainter, which restores one photo where a mask is white; type: tfinpaint "
            f"predict {shlex.quote(str(parsed.checkpoint))} {what} {mask} (a run of tfinpaint "
            "classify tells the classes of photos)"
        )
    output = parsed.output or photo.with_name(f"{photo.stem}_restored.png")
    try:
        lines = restore(parsed.checkpoint, photo, masks[0], output, parsed.overwrite)
    except MemoryError:
        raise UserError(f"{photo}: is too large for this machine's memory; shrink it and the mask") from None
    print("\n".join(lines))


def _quoted(words: Sequence[str]) -> str:
    return " ".join(map(shlex.quote, words))


if __name__ == "__main__":
    sys.exit(main())
