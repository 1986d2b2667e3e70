"""Dividing class folders into training and testing: stratified, seeded, every image checked; or as they are divided."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tfinpaint.data.images.decode import CHECK, Look, is_of_the_process, look_at_image
from tfinpaint.data.ingest.layout import UNDIVIDED, class_of, find_roots, folder_of, root_of
from tfinpaint.data.ingest.source import UNREADABLE, Source
from tfinpaint.data.listing.duplicates import copies_in_words, find_copies, print_of, width_of
from tfinpaint.data.listing.excluded import BESIDE_CLASSES, Skipped, more_in_words
from tfinpaint.data.listing.listing import path_hash
from tfinpaint.data.listing.walk import check_class_names
from tfinpaint.errors import UserError
from tfinpaint.system.parallel import parallel_map
from tfinpaint.system.progress import log_progress

SIDES = ("training", "testing", "validation")  # the last where a source has one beside the others
MOST_NAMED = 20

Bad = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Split:
    """What goes where.

    Attributes:
        sides: "training", "testing", perhaps "validation" -> (path in the origin, `<class>/<file>`) of each image.
        skipped: the files that are not images of a class.
        bad: (path in the origin, reason) of each image that could not be decoded; they are left out.
        notes: what is worth knowing, a line each.
    """

    sides: dict[str, list[tuple[str, str]]]
    skipped: Skipped
    bad: Bad
    notes: tuple[str, ...]


def split_classes(origin: Source, test_fraction: float, seed: int, *, skip_empty_classes: bool = False) -> Split:
    """Divide each class alike. It depends on the seed and the files' contents; copies of a file stay on one side.

    A source that is divided already stays so. Of a class with one image, or copies of one, all is for training.

    Args:
        skip_empty_classes: leave out class folders without a usable image; otherwise these are errors.

    Raises:
        UserError: there are no class folders or just one, they are at several places, or a class is empty.
    """
    roots, notes = find_roots(origin)
    found = {side: [path for path in origin.images if root_of(path) == root] for side, root in roots.items()}
    check_class_names(origin.path, {class_of(path) for paths in found.values() for path in paths})
    checked = _check(origin, [path for paths in found.values() for path in paths])
    digests, bad = checked.digests, checked.bad
    notes += checked.notes
    good = {side: [path for path in paths if path in digests] for side, paths in found.items()}
    notes += check_empty_folders(origin, roots.values(), bad, skip=skip_empty_classes)
    classes = sorted({class_of(path) for path in digests})
    if len(classes) < 2:
        raise UserError(f"{origin.path}: found one class only ({', '.join(classes)}); a classifier needs at least two")
    sides = _divide(origin, good[UNDIVIDED], digests, test_fraction, seed) if UNDIVIDED in good else good
    trained, tested = ({class_of(path) for path in sides[side]} for side in SIDES[:2])
    if unknown := sorted(set(classes) - trained):
        raise UserError(
            f"{origin.path}: no training image of class {listed(unknown)}, which the other sides have; add some, or "
            "remove the class there"
        )
    if untested := sorted(trained - tested):
        notes.append(f"No test image of class {listed(untested)}{_ONE_IMAGE if UNDIVIDED in good else ''}")
    notes += checked.copies(sides)
    placed = {
        side: [(path, f"{class_of(path)}/{path.rpartition('/')[2]}") for path in paths] for side, paths in sides.items()
    }
    return Split(placed, _skipped(origin, found), bad, tuple(notes))


_ONE_IMAGE = ": one image, or copies of one, which are for training"


def listed(names: Sequence[str]) -> str:
    """Return names for a message, the first of many."""
    return ", ".join(names[:MOST_NAMED]) + ", ..." * (len(names) > MOST_NAMED)


def _skipped(origin: Source, found: dict[str, list[str]]) -> Skipped:
    skipped, used = origin.skipped_below(), {path for paths in found.values() for path in paths}
    for path in origin.images if len(used) < len(origin.images) else ():
        if path not in used:
            skipped.add(path, BESIDE_CLASSES)
    return skipped


def check_empty_folders(origin: Source, roots: Iterable[str], bad: Bad, *, skip: bool) -> list[str]:
    """Refuse subfolders of these folders without a usable image: they are classes that have lost their images.

    Args:
        bad: the images that are known to be of no use.
        skip: they are left out; say so.

    Returns:
        No line, or one.

    Raises:
        UserError: there are some.
    """
    empty = [_emptiness(origin, folder, bad) for root in roots for folder in _empty_folders(origin, root, bad)]
    if empty and not skip:
        raise UserError(
            f"{origin.path}: class folder without a usable image: {listed(empty)}; fill it, remove it, or leave it out "
            "with --skip-empty-classes"
        )
    return [f"Left out, without a usable image: {listed(empty)}"] if empty else []


def _empty_folders(origin: Source, root: str, bad: Bad) -> list[str]:
    """The subfolders of a folder in which, and below which, is no usable image."""
    begin, unusable = f"{root}/" if root else "", {path for path, _ in bad}

    def subfolders(paths: Iterable[str]) -> set[str]:
        return {begin + path[len(begin) :].partition("/")[0] for path in paths if path.startswith(begin)}

    return sorted(subfolders(origin.folders) - subfolders(path for path in origin.images if path not in unusable))


def _emptiness(origin: Source, folder: str, bad: Bad) -> str:
    """A folder without a usable image, and what is there instead."""
    reasons = [f"{path}: {reason}" for path, reason in bad if folder_of(path) == folder]
    found = [origin.skipped_below(folder).line(), f"{len(reasons)} unreadable: {reasons[0]}" if reasons else ""]
    return f"{folder} ({'; '.join(filter(None, found)) or 'empty'})"


def _divide(
    origin: Source, paths: Iterable[str], digests: dict[str, str], test_fraction: float, seed: int
) -> dict[str, list[str]]:
    by_class: dict[str, list[str]] = {}
    for path in paths:
        by_class.setdefault(class_of(path), []).append(path)
    sides: dict[str, list[str]] = {"training": [], "testing": []}
    for _, files in sorted(by_class.items()):
        tests = _sort_for_split(files, digests, test_fraction, seed)
        sides["testing"] += files[:tests]
        sides["training"] += files[tests:]
    if not sides["testing"]:
        raise UserError(f"{origin.path}: no class has two different images; nothing is left to test with")
    return sides


def _sort_for_split(files: list[str], digests: dict[str, str], test_fraction: float, seed: int) -> int:
    """Put a class's files into random order; the first so many, which is returned, are for testing.

    Copies of one file stand together, and the boundary never falls between them.
    """
    files.sort(key=lambda path: (path_hash(seed, digests[path]), path))
    wanted = max(1, round(test_fraction * len(files)))
    boundaries = [i for i in range(1, len(files)) if digests[files[i]] != digests[files[i - 1]]]
    return min(boundaries, key=lambda i: abs(i - wanted), default=0)


@dataclass(frozen=True)
class _Checked:
    """The good ones of some images: digest of each one's contents, and its print; the bad ones; what is to be said."""

    digests: dict[str, str]
    prints: dict[str, np.ndarray]
    bad: Bad
    notes: list[str]

    def copies(self, sides: dict[str, list[str]]) -> list[str]:
        """Lines that name the test images that are training images too."""
        test, training = sides["testing"], sides["training"]
        prints = [np.array([self.prints[path] for path in paths]) for paths in (test, training)]
        return copies_in_words(find_copies(*prints), test.__getitem__, training.__getitem__, len(test))


def _check(origin: Source, paths: Sequence[str]) -> _Checked:
    """Decode every file once."""
    width = width_of(len(paths))

    def check(path: str) -> tuple[str, str, Look | None, np.ndarray | None]:
        try:
            contents = origin.read(path)
            look = look_at_image(io.BytesIO(contents), CHECK)
        except UNREADABLE as error:
            if is_of_the_process(error):
                raise
            return "", str(error), None, None
        assert look.thumbnail is not None  # no mask
        return hashlib.sha256(contents).hexdigest(), "", look, print_of(look.thumbnail)[:width].copy()

    results = log_progress(parallel_map(check, paths), len(paths), f"Checking the images of {origin.path}")
    found, bad, more = _Checked({}, {}, (), []), [], []
    for path, (digest, reason, look, its_print) in zip(paths, results, strict=True):
        if look is None or its_print is None:
            bad.append((path, reason))
            continue
        found.digests[path], found.prints[path] = digest, its_print
        if look.has_more:
            more.append(path)
    notes = [more_in_words(len(more), more[0])] if more else []
    return _Checked(found.digests, found.prints, tuple(bad), notes)
