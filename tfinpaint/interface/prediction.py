"""Predict the classes of photos, or restore a photo, from a Python program."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from tfinpaint.checkpoint.find import FoundCheckpoint, find_checkpoint, find_reported
from tfinpaint.checkpoint.recorded import recorded_kind
from tfinpaint.cli.encoder_options import require_single_process
from tfinpaint.config.sections import Distributed
from tfinpaint.data.listing.listing import Listing, list_images
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError
from tfinpaint.interface.process import FilePath, as_path, one_call
from tfinpaint.interface.results import PredictResult, RestoreResult
from tfinpaint.runs.photo_restoration import restore

if TYPE_CHECKING:
    from tfinpaint.report.photo_classes import PhotoClasses

log = logging.getLogger(__name__)


@overload
def predict(
    run: FilePath, photos: FilePath | Sequence[FilePath], *, mask: None = None, verbose: bool = True
) -> PredictResult: ...


@overload
def predict(
    run: FilePath,
    photos: FilePath,
    *,
    mask: FilePath,
    output: FilePath | None = None,
    overwrite: bool = False,
    verbose: bool = True,
) -> RestoreResult: ...


def predict(
    run: FilePath,
    photos: FilePath | Sequence[FilePath],
    *,
    mask: FilePath | None = None,
    output: FilePath | None = None,
    overwrite: bool = False,
    verbose: bool = True,
) -> PredictResult | RestoreResult:
    """Predict the classes of photos by a classifier or, with `mask`, restore a photo by an inpainter.

    Args:
        run: a run folder (its newest checkpoint; the best one where validation images have chosen it), a checkpoint
            folder, or `best` in a run folder.
        photos: photos and folders of photos; with `mask` a single photo.
        mask: an image of the photo's size, white where the photo is to be restored.
        output: with `mask`: the image to write; its suffix names the format. None: nothing is written.
        overwrite: replace an existing output.
        verbose: print what is logged.

    Raises:
        UserError: the model is of the other kind, no photo can be read, the mask erases nothing or everything, there
            is an output without a mask, or it cannot be written.
    """
    require_single_process("predict")
    place = as_path(run)
    given = [as_path(each) for each in ([photos] if isinstance(photos, str | os.PathLike) else photos)]
    if output is not None and mask is None:
        raise UserError("output: is for a restored photo, and there is no mask; give the mask too, or leave it out")
    with one_call(verbose):
        if mask is not None:
            if len(given) != 1:
                raise UserError(f"with a mask, one photo is restored; given: {len(given)} photos")
            if kind_of(find_checkpoint(place).path) == "classifier":
                raise UserError(f"{run}: is a classifier, which predicts the classes of photos: leave the mask out")
            written = as_path(output) if output is not None else None
            done = restore(place, given[0], as_path(mask), written, overwrite)
            return RestoreResult(done.checkpoint, done.photo.colours(), done.hole, written, done.lines)
        found = find_reported(place)
        if kind_of(found.path) != "classifier":
            raise UserError(f"{run}: is an inpainter, which restores a photo where a mask is white: give the mask too")
        classes, unreadable = photo_classes(found, given)
        return PredictResult(
            found.path, classes.classes, classes.photos, classes.probabilities, {**unreadable, **classes.unreadable}
        )


def photo_classes(checkpoint: FoundCheckpoint, places: Sequence[Path]) -> tuple[PhotoClasses, dict[str, str]]:
    """Return what a classifier says about photos, and place -> reason of the places that have none.

    Args:
        checkpoint: the checkpoint folder of a classifier.
        places: photos, and folders of photos.

    Raises:
        UserError: no place can be read, or the classifier cannot be used.
    """
    failures: dict[str, str] = {}
    listings: list[Listing] = []
    for place in places:
        try:
            listings.append(list_images(place, single=True))
        except UserError as error:
            failures[str(place)] = str(error)
    if not listings:
        raise UserError("\n".join(failures.values()) or "there are no photos: name at least one")
    start_single_rank(Distributed())
    from tfinpaint.runs.photo_classes import classify_photos, load_classifier

    classifier = load_classifier(checkpoint.path)
    for line in (checkpoint.note, *(_excluded(listing) for listing in listings)):
        if line:
            log.info(line)
    return classify_photos(classifier, listings), failures


def _excluded(listing: Listing) -> str:
    summary = listing.excluded.summary()
    return f"{listing.root}: {summary}" if summary else ""  # as the photos in the table: as they were typed


def kind_of(checkpoint: Path) -> str:
    """Return the kind of model in a checkpoint; TensorFlow is loaded only for a weight file without its folder."""
    if checkpoint.is_dir() and (kind := recorded_kind(checkpoint)):
        return kind
    start_single_rank(Distributed())
    from tfinpaint.checkpoint.reader import read_header

    return read_header(checkpoint).kind
