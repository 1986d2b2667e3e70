"""The check of all images of a run before it begins: each rank reads its share, and all exclude the same bad ones."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfinpaint.data.examples import Preprocessing, RankShare
from tfinpaint.data.images.depth import low_range_message
from tfinpaint.data.listing.check import check_images_once
from tfinpaint.data.listing.duplicates import duplicates_message, find_duplicates
from tfinpaint.data.listing.excluded import multiple_pictures_message
from tfinpaint.data.listing.listing import Listing
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.runs.bad_images import BadImage, report_checked
from tfinpaint.runs.run import Run
from tfinpaint.system.paths import display_path

log = logging.getLogger(__name__)

Side = tuple[Listing, Preprocessing]  # inputs or targets


@dataclass(frozen=True)
class ImageCheck:
    """What the check of one folder of images has found.

    Attributes:
        found: all images, the bad ones too.
        fingerprints: uint8 [share, bytes], of this rank's share of them, for finding copies.
        excluded: the places among them of the images that are not used.
        bad: the bad images that are reported.
        listed: a digest of the names of all of them in training, "" otherwise.
    """

    found: Listing
    fingerprints: np.ndarray
    excluded: tuple[int, ...]
    bad: tuple[BadImage, ...]
    listed: str


def check_all_images(
    run: Run, world: World, folder: Path, sides: list[Side], *, training: bool, labelled: bool
) -> tuple[ImageCheck, list[Side]]:
    """Check all images and their targets; every rank calls this.

    Args:
        folder: of the run, where bad images are listed.
        sides: the inputs, then perhaps the targets.
        labelled: the classes of the inputs are what outputs are compared with.

    Returns:
        What was found, and the sides without the bad images.

    Raises:
        UserError: there are more bad images than `data.max_bad_images`, a class has no readable image left, or the
            ranks see different folders.
    """
    found, limit = sides[0][0], run.config.data.max_bad_images
    bad, fingerprints = _find_bad(world, sides)
    listed = found.paths.digest() if training else ""
    before = _excluded_before(run, listed) if training else None
    excluded = tuple(sorted(bad)) if before is None else before
    reported = tuple(bad[i] for i in (sorted(bad) if len(bad) > limit else [i for i in excluded if i in bad]))
    report_checked(world, folder, reported, limit)
    if excluded:
        good = np.delete(np.arange(len(found)), excluded)
        sides = [(files.select(good), steps) for files, steps in sides]
    if found.classes and labelled:
        _check_classes(found, sides[0][0], training)
    return ImageCheck(found, fingerprints, excluded, reported, listed), sides


def _find_bad(world: World, sides: Sequence[Side]) -> tuple[dict[int, BadImage], np.ndarray]:
    """Return the bad images of all ranks by index (an image is bad where its target is), and the fingerprints.

    Raises:
        UserError: the ranks see different folders.
    """
    bad: dict[int, BadImage] = {}
    fingerprints = []
    for files, steps in sides:
        world.report_task(f"checking the images of {files.root}")
        if len(set(world.all_gather(files.paths.digest()))) > 1:
            raise UserError(f"{files.root}: the ranks see different files there; every host needs the same images")
        share = RankShare(world.rank, world.size).indices(len(files))
        checked = check_images_once(files, world.rank, share, steps.decoding)
        more: list[int] = []
        brightest: list[int] = []
        for part, of_more, of_brightest in world.all_gather([checked.bad, checked.multiple, checked.brightest]):
            bad |= {int(i): (files.place(int(i)), why) for i, why in part.items()}
            more += of_more
            brightest += of_brightest
        if more:
            log.info(f"{display_path(files.root)}: {multiple_pictures_message(len(more), files.paths[min(more)])}")
        if dark := low_range_message(brightest):
            log.warning(f"{display_path(files.root)}: {dark}")
        fingerprints.append(checked.fingerprints)
    return bad, fingerprints[0]


def _excluded_before(run: Run, listed: str) -> tuple[int, ...] | None:
    """Return the images that the resumed run has excluded from its beginning; None where these need not be the same.

    An image that has become unreadable since keeps its number, so that all others keep theirs: training comes to it,
    and replaces it.
    """
    if run.resumed is None or run.config.data.preload or run.resumed.progress.listed != listed:
        return None
    return run.resumed.progress.left_out


def _check_classes(found: Listing, good: Listing, training: bool) -> None:
    """Refuse a class that has no readable image; log the classes that have a single one to train on.

    Raises:
        UserError: a class has no readable image left.
    """
    before, after = (np.bincount(each.labels, minlength=len(found.classes)) for each in (found, good))
    if lost := [name for name, had, has in zip(found.classes, before, after, strict=True) if had and not has]:
        raise UserError(
            f"{found.root}: no readable image is left in class {', '.join(lost[:20])}; repair the images or remove the "
            "class"
        )
    if training and (single := [name for name, has in zip(found.classes, after, strict=True) if has == 1]):
        more = ", ..." * (len(single) > 5)
        log.info(f"{display_path(found.root)}: only one training image in class {', '.join(single[:5])}{more}")


def warn_of_copies(world: World, training: ImageCheck, held_out: ImageCheck) -> None:
    """Warn of held-out images that are training images too; every rank calls this."""
    test, known = _gather_fingerprints(world, held_out), _gather_fingerprints(world, training)
    if not world.is_rank0:
        return
    for line in duplicates_message(find_duplicates(test, known), held_out.found.place, training.found.place, len(test)):
        log.warning(line)


def _gather_fingerprints(world: World, check: ImageCheck) -> np.ndarray:
    """Return uint8 [images, bytes]: the fingerprints of all images that were found, from all ranks."""
    if world.size == 1:
        return check.fingerprints
    whole = np.zeros((len(check.found), check.fingerprints.shape[1]), np.uint8)
    for rank, part in enumerate(world.all_gather(base64.b64encode(check.fingerprints.tobytes()).decode())):
        whole[rank :: world.size] = np.frombuffer(base64.b64decode(part), np.uint8).reshape(-1, whole.shape[1])
    return whole
