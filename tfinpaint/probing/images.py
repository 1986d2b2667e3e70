"""The labelled images of a probe: list them, check that they can be read, and set a part aside for testing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfinpaint.data.images.decode import CHECK_OPTIONS
from tfinpaint.data.listing.check import check_images_once
from tfinpaint.data.listing.duplicates import Copy, duplicates_message, find_duplicates
from tfinpaint.data.listing.listing import (
    Listing,
    fraction_indices,
    list_class_folders,
    list_images,
)
from tfinpaint.errors import UserError
from tfinpaint.system.paths import display_path, shorten_paths
from tfinpaint.system.wording import counted

log = logging.getLogger(__name__)

HELD_OUT = 0.2  # of each class, without a folder of test images
SPLIT_SEED = 2**31  # beyond the seeds of a configuration and of the draws of labels
_MOST_NAMED = 5  # classes in a message
_MOST_LISTED = 20  # images that cannot be read


@dataclass(frozen=True)
class LabelledImages:
    """Training and test images of the same classes.

    Attributes:
        train, test: the images; both have the classes of `train`.
        held_out: the test images were taken from the same folder as the training images.
        copies: the test images that are near-duplicates of training images.
    """

    train: Listing
    test: Listing
    held_out: bool
    copies: Sequence[Copy]

    @property
    def distinct(self) -> np.ndarray:
        """Return bool [test images]: False for a near-duplicate of a training image."""
        distinct = np.ones(len(self.test), bool)
        distinct[[copy.test for copy in self.copies]] = False
        return distinct


def open_labelled(data: Path, test: Path | None) -> LabelledImages:
    """List class folders of images and check each image once; warn of near-duplicates among the test images.

    Images that cannot be read are named and left out.

    Args:
        test: folder of test images with the same classes; None: a stratified fifth of `data` is set aside.

    Raises:
        UserError: A folder cannot be used, or a class has too few images that can be read.
    """
    listing, fingerprints = leave_out_unreadable(list_class_folders(data))
    counts = np.bincount(listing.labels, minlength=len(listing.classes))
    if empty := [name for name, count in zip(listing.classes, counts, strict=True) if not count]:
        raise UserError(
            f"{data}: class {', '.join(empty[:_MOST_NAMED])}{', ...' * (len(empty) > _MOST_NAMED)} has no image that "
            "can be read; repair one, or remove the folder"
        )
    if test is not None:
        tested, prints = leave_out_unreadable(list_class_folders(test, listing.classes))
        copies = find_duplicates(prints, fingerprints)
        return _with_warning(LabelledImages(listing, tested, False, copies))
    if single := [name for name, count in zip(listing.classes, counts, strict=True) if count < 2]:
        raise UserError(
            f"{data}: class {', '.join(single[:_MOST_NAMED])}{', ...' * (len(single) > _MOST_NAMED)} has a single "
            "image; without --test each class needs two, one to train and one to test on"
        )
    chosen = fraction_indices(listing, HELD_OUT, SPLIT_SEED)
    rest = np.delete(np.arange(len(listing)), chosen)
    copies = find_duplicates(fingerprints[chosen], fingerprints[rest])
    return _with_warning(LabelledImages(listing.select(rest), listing.select(chosen), True, copies))


def _with_warning(images: LabelledImages) -> LabelledImages:
    for line in duplicates_message(images.copies, images.test.place, images.train.place, len(images.test)):
        log.warning(line)
    return images


def leave_out_unreadable(listing: Listing) -> tuple[Listing, np.ndarray]:
    """Decode each image once, unless it was before; name those that cannot be read, and log how many others there are.

    Returns:
        The listing of the others, and their fingerprints, uint8 [images, bytes], of `data.listing.duplicates`.

    Raises:
        UserError: No image can be read.
    """
    found = check_images_once(listing, 0, range(len(listing)), CHECK_OPTIONS)
    bad = sorted(found.bad.items())
    if len(bad) == len(listing):
        raise UserError(
            f"{listing.root}: none of {counted(len(bad), 'image')} can be read, such as {listing.place(bad[0][0])}: "
            f"{bad[0][1]}; name another folder"
        )
    for index, reason in bad[:_MOST_LISTED]:
        log.warning(f"Unreadable, excluded: {shorten_paths(listing.place(index))}: {reason}")
    if len(bad) > _MOST_LISTED:
        log.warning(f"Unreadable, excluded: {len(bad) - _MOST_LISTED:,} more")
    kept = np.delete(np.arange(len(listing)), [index for index, _ in bad])
    readable = listing.select(kept) if bad else listing
    _log_number(readable, len(bad))
    return readable, found.fingerprints[kept]


def check_readable(listing: Listing) -> np.ndarray:
    """Decode each image once, unless it was before, and log how many images there are.

    Returns:
        uint8 [images, bytes], the fingerprints of `data.listing.duplicates`.

    Raises:
        UserError: An image cannot be read.
    """
    found = check_images_once(listing, 0, range(len(listing)), CHECK_OPTIONS)
    if found.bad:
        index, reason = min(found.bad.items())
        raise UserError(
            f"{listing.place(index)}: {reason} ({len(found.bad)} of {len(listing)} images of {listing.root} cannot be "
            "read); repair or remove them"
        )
    _log_number(listing, 0)
    return found.fingerprints


def _log_number(listing: Listing, unreadable: int) -> None:
    skipped = f"; {listing.excluded.summary()}" if listing.excluded.summary() else ""
    classes = f" in {len(listing.classes)} classes" if listing.classes else ""
    bad = f", {unreadable:,} unreadable" if unreadable else ""
    log.info(f"{display_path(listing.root)}: {counted(len(listing), 'image')}{classes}{bad}{skipped}")


def list_labelled_or_not(folder: Path) -> Listing:
    """List the images of a folder, with classes if it has at least two class folders, otherwise without.

    Raises:
        UserError: There is no such folder, no image in it, or its subfolders are no classes.
    """
    listing = list_images(folder)
    classes = {path.partition("/")[0] for path in listing.paths if "/" in path}
    return list_class_folders(folder) if len(classes) >= 2 else listing
