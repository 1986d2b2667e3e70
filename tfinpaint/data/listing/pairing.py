"""List pairs of images: each input image and the target image of the same name."""

from __future__ import annotations

import posixpath
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfinpaint.data.listing.listing import Listing, list_images
from tfinpaint.data.listing.names import Names
from tfinpaint.errors import UserError

MOST_NAMED = 20


def list_pairs(
    inputs: Path, targets: Path | None, *, has_mask: bool, single: bool = False
) -> tuple[Listing, Listing | None]:
    """List the input images, and their target images in the same order; None if there are no target images.

    Args:
        targets: a folder; None, or `inputs` if there is a mask: the targets are made of the inputs.
        has_mask: parts of the inputs are erased.
        single: also accept an image file as `inputs`.

    Raises:
        UserError: as `list_images` and `pair_by_name`.
    """
    listing = list_images(inputs, single=single)
    if targets is None or (has_mask and targets == inputs):
        return listing, None
    return listing, pair_by_name(listing, targets)


def pair_by_name(inputs: Listing, root: Path) -> Listing:
    """Return for each input the image below `root` with the same path except the extension, in the inputs' order.

    An image file as `root` is the target of a single input, whatever its name.

    Raises:
        UserError: an input has no target, or two. The first of them are listed.
    """
    targets = list_images(root, single=True)
    if len(inputs) == 1 and root.is_file():
        return replace(targets, labels=inputs.labels, classes=inputs.classes)
    chosen = np.empty(len(inputs), np.int64)
    missing, ambiguous, near = [], [], 0
    for index, path in enumerate(inputs.paths):
        places = _find_targets(path, targets.paths, near)
        if not places:
            missing.append(path)
            continue
        chosen[index] = places[0]
        near = places[0] + 1
        if len(places) > 1:
            ambiguous.append(" and ".join(targets.paths[i] for i in places))
    if missing:
        raise UserError(_with_names(f"{root}: no image of the same name for {len(missing)} of {inputs.root}", missing))
    if ambiguous:
        raise UserError(_with_names(f"{root}: {len(ambiguous)} names differ only in the extension", ambiguous))
    return replace(targets, paths=targets.paths.select(chosen), labels=inputs.labels, classes=inputs.classes)


def _find_targets(path: str, targets: Names, near: int) -> Sequence[int]:
    """Return the place of a path in sorted paths or, if it is not there, of those that differ only in the extension.

    Args:
        near: a guess of the place, which saves time.
    """
    place = _bisect(path, targets, near)
    if place < len(targets) and targets[place] == path:
        return [place]
    stem = posixpath.splitext(path)[0]
    places = range(_bisect(f"{stem}.", targets, near), _bisect(f"{stem}/", targets, near))  # "/" is next after "."
    return [place for place in places if posixpath.splitext(targets[place])[0] == stem]


def _bisect(path: str, targets: Names, near: int) -> int:
    """Return what `bisect_left` returns, faster if the guess is good."""
    first, last = max(0, near - 2), min(len(targets), near + 2)
    if (first == 0 or targets[first] < path) and (last == len(targets) or path <= targets[last]):
        return bisect_left(targets, path, first, last)
    return bisect_left(targets, path)


def _with_names(head: str, names: Sequence[str]) -> str:
    more = [f"... and {len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return "\n".join([f"{head}:", *names[:MOST_NAMED], *more])
