"""Predict the classes of photos by a trained classifier, or restore a photo where a mask is white by an inpainter.

usage: python -m tfinpaint.predict runs/demo/pretrained photo.jpg more_photos/ --csv classes.csv
       python -m tfinpaint.predict runs/demo/pretrain photo.jpg mask.png --output restored.png
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.checkpoint.find import FoundCheckpoint, checkpoints_folder, find_reported
from tfinpaint.checkpoint.recorded import refuse_not_restoring
from tfinpaint.cli.arguments import add_run_argument, make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.cli.tables import print_listing, table_width
from tfinpaint.data.images.signatures import image_format, read_head
from tfinpaint.distributed.environment import launched_rank
from tfinpaint.errors import UserError
from tfinpaint.interface.prediction import kind_of, photo_classes
from tfinpaint.layout import BEST, BEST_PROBE, PROJECT
from tfinpaint.project.choice import predicting_run
from tfinpaint.runs.photo_restoration import restore
from tfinpaint.storage.write_errors import explain_os_error, why_not_writable

log = logging.getLogger(__name__)

WEIGHTS = (".h5", ".pt")  # endings of files of weights
MOST_NAMED = 20  # photos that could not be read; a JSON file names all


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
    found, unlisted = photo_classes(checkpoint, [Path(place) for place in places])
    if found.photos:
        print_listing(found.table(), table_width())
    if len(found.photos) > 1:
        log.info(found.counts())
    try:
        if csv:
            found.write_csv(csv)
        if json:
            found.write_json(json, str(checkpoint.path))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {explain_os_error(error)}") from None
    failures = [*unlisted.values(), *(f"{photo}: {reason}" for photo, reason in found.unreadable.items())]
    if failures:
        more = [f"{len(failures) - MOST_NAMED} more could not be read"] if len(failures) > MOST_NAMED else []
        raise UserError("\n".join([*failures[:MOST_NAMED], *more]))


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parsed = _parser().parse_args(arguments)
        if launched_rank():
            return  # rank 0 does all the work
        _refuse_wrong_order(parsed)
        parsed.run = predicting_run(parsed.run)
        found = find_reported(parsed.run)
        if kind_of(found.path) == "classifier":
            _check_tables(parsed)
            classify_all(found, parsed.photos, parsed.csv, parsed.json)
        else:
            refuse_not_restoring(found.path)
            _restore_one(parsed)

    return run_command(command)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("predict")
    add_run_argument(parser, "checkpoint folder or model.weights.h5")
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


def _refuse_wrong_order(parsed: argparse.Namespace) -> None:
    """Raise UserError where an image, or a folder of images, stands in the place of the run."""
    first, others = parsed.run, [Path(photo) for photo in parsed.photos]
    run = next((each for each in others if _is_run(each)), None)
    is_image = first.is_file() and _is_image(first)
    if is_image or (run and first.is_dir() and not _is_run(first)):
        photos = [str(each) for each in (first, *others) if each != run]
        raise UserError(
            f"{first}: is {'an image' if is_image else 'a folder'}, and no run; the run comes first: tfinpaint predict "
            f"{shlex.quote(str(run)) if run else 'RUN'} {_quoted(photos)}"
        )


def _is_image(path: Path) -> bool:
    try:
        return bool(image_format(read_head(str(path))))
    except OSError:
        return False


def _is_run(path: Path) -> bool:
    """Return whether a path names a project, a run, or a checkpoint as `find_reported` takes it."""
    if (path / PROJECT).is_file() or (path.is_dir() and checkpoints_folder(path) is not None):
        return True
    if path.name in (BEST, BEST_PROBE):
        return checkpoints_folder(path.parent) is not None
    if path.is_file() and path.suffix not in WEIGHTS:
        return False
    try:
        return find_reported(path) is not None
    except UserError:
        return False


def _check_tables(parsed: argparse.Namespace) -> None:
    """Refuse options that do not suit a classifier, and files that cannot be written."""
    run = shlex.quote(str(parsed.run))
    if parsed.output:
        raise UserError(
            f"--output: {parsed.run} is a classifier, which predicts the classes of photos; type: tfinpaint "
            f"predict {run} {_quoted(parsed.photos)} --csv FILE"
        )
    if parsed.csv and parsed.json and parsed.csv.resolve() == parsed.json.resolve():
        raise UserError(f"--csv and --json name the same file, {parsed.csv}; name two files")
    for path in filter(None, (parsed.csv, parsed.json)):
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name the file to write")
        if path.exists() and not parsed.overwrite:
            raise UserError(f"{path} already exists; add --overwrite, or name another file")
        if reason := why_not_writable(path.parent):
            raise UserError(f"{path}: cannot be written: {reason}")


def _restore_one(parsed: argparse.Namespace) -> None:
    photo, *masks = map(Path, parsed.photos)
    if len(masks) != 1 or parsed.csv or parsed.json or photo.is_dir():
        what = "PHOTO" if photo.is_dir() else shlex.quote(str(photo))
        mask = shlex.quote(str(masks[0])) if len(masks) == 1 else "MASK"
        raise UserError(
            f"{parsed.run}: is an inpainter, which restores one photo where a mask is white; type: tfinpaint "
            f"predict {shlex.quote(str(parsed.run))} {what} {mask} (a run of tfinpaint "
            "classify predicts the classes of photos)"
        )
    output = parsed.output or photo.with_name(f"{photo.stem}_restored.png")
    print("\n".join(restore(parsed.run, photo, masks[0], output, parsed.overwrite).lines))


def _quoted(words: Sequence[str]) -> str:
    return " ".join(map(shlex.quote, words))


if __name__ == "__main__":
    sys.exit(main())
