"""Split class folders into training and testing, stratified and seeded, and check every image."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tfinpaint.data.images.decode import CHECK_OPTIONS, inspect_image
from tfinpaint.data.images.depth import low_range_message
from tfinpaint.data.images.unreadable import UnreadableImageError
from tfinpaint.data.ingest.layout import UNDIVIDED, class_of, find_roots, folder_of, root_of
from tfinpaint.data.ingest.source import Source
from tfinpaint.data.listing.duplicates import duplicates_message, find_duplicates, fingerprint_of, fingerprint_width
from tfinpaint.data.listing.excluded import BESIDE_CLASSES, ExcludedFiles, multiple_pictures_message
from tfinpaint.data.listing.listing import path_hash
from tfinpaint.data.listing.walk import check_class_names, printable
from tfinpaint.errors import UserError
from tfinpaint.system.parallel import parallel_map
from tfinpaint.system.paths import typed_path
from tfinpaint.system.progress import log_progress

SIDES = ("training", "testing", "validation")  # the last only if the source has it
MOST_NAMED = 20

BadImages = tuple[tuple[str, str], ...]  # (path in the source, reason)


@dataclass(frozen=True)
class Split:
    """The division of a source into sides.

    Attributes:
        sides: "training", "testing", perhaps "validation" -> (path in the source, `<class>/<file>`) of each image.
        excluded: the files that are not images of a class.
        bad: the images that could not be decoded and are excluded.
        notes: lines for the report.
    """

    sides: dict[str, list[tuple[str, str]]]
    excluded: ExcludedFiles
    bad: BadImages
    notes: tuple[str, ...]


def check_test_fraction(test_fraction: float) -> None:
    """Raise UserError unless the fraction is between 0 and 1."""
    if not 0 < test_fraction < 1:
        raise UserError(f"--test-fraction {test_fraction}: expected a number between 0 and 1, such as 0.1")


def split_classes(source: Source, test_fraction: float, seed: int, *, skip_empty_classes: bool = False) -> Split:
    """Split each class alike, depending only on the seed and the contents of the files.

    Copies of a file are on one side. A source that is already divided keeps its division. A class with one image, or
    with copies of one, is for training.

    Args:
        skip_empty_classes: exclude class folders without a usable image, which are errors otherwise.

    Raises:
        UserError: There are no class folders or just one, they are at several places, or a class is empty.
    """
    roots, notes = find_roots(source)
    found = {side: [path for path in source.images if root_of(path) == root] for side, root in roots.items()}
    check_class_names(source.path, {class_of(path) for paths in found.values() for path in paths})
    checked = _check(source, [path for paths in found.values() for path in paths])
    notes += checked.notes
    good = {side: [path for path in paths if path in checked.digests] for side, paths in found.items()}
    notes += check_empty_folders(source, roots.values(), checked.bad, skip=skip_empty_classes)
    classes = {class_of(path) for path in checked.digests}
    if len(classes) < 2:
        raise UserError(
            f"{source.path}: only one class ({', '.join(classes)}) has a usable image; a classifier needs at least "
            f"two. Pretraining needs no classes: {_without_classes(source, [*good.values()])}"
        )
    is_divided = UNDIVIDED not in good
    sides = good if is_divided else _divide(source, good[UNDIVIDED], checked.digests, test_fraction, seed)
    trained, tested = ({class_of(path) for path in sides[side]} for side in SIDES[:2])
    if unknown := sorted(classes - trained):
        raise UserError(
            f"{source.path}: no training image of class {_join_names(unknown)}, which the other sides have; add some, "
            "or remove the class there"
        )
    if untested := sorted(trained - tested):
        reason = "" if is_divided else ": a single image, or copies of one, which are for training"
        notes.append(f"No test image of class {_join_names(untested)}{reason}")
    notes += _duplicates(sides, checked.fingerprints)
    placed = {
        side: [(path, f"{class_of(path)}/{path.rpartition('/')[2]}") for path in paths] for side, paths in sides.items()
    }
    return Split(placed, _excluded(source, found), checked.bad, tuple(map(printable, notes)))


def _without_classes(source: Source, images: Sequence[Sequence[str]]) -> str:
    """Return how to pretrain on the images of a single class."""
    folders = sorted({folder_of(path) for paths in images for path in paths})
    if not source.path.is_dir() or not folders:
        return "name a folder of images: tfinpaint init FOLDER"
    return f"tfinpaint init {typed_path(source.path / folders[0])}"


def check_empty_folders(source: Source, roots: Iterable[str], bad: BadImages, *, skip: bool) -> list[str]:
    """Check that every subfolder of some folders contains a usable image: others are classes without images.

    Args:
        bad: the images that are known to be unusable.
        skip: exclude such folders instead of raising an error.

    Returns:
        A line that names the excluded folders, if there are any.

    Raises:
        UserError: there is a folder without a usable image, and not `skip`.
    """
    empty = [_describe_empty(source, folder, bad) for root in roots for folder in _empty_folders(source, root, bad)]
    if empty and not skip:
        raise UserError(
            f"{source.path}: class folder without a usable image: {_join_names(empty)}; fill it, remove it, or exclude "
            "it with --skip-empty-classes"
        )
    return [f"Excluded, without a usable image: {_join_names(empty)}"] if empty else []


def _empty_folders(source: Source, root: str, bad: BadImages) -> list[str]:
    """Return the subfolders of a folder without a usable image in them or below them."""
    begin, unusable = f"{root}/" if root else "", {path for path, _ in bad}

    def subfolders(paths: Iterable[str]) -> set[str]:
        return {begin + path[len(begin) :].partition("/")[0] for path in paths if path.startswith(begin)}

    return sorted(subfolders(source.folders) - subfolders(path for path in source.images if path not in unusable))


def _describe_empty(source: Source, folder: str, bad: BadImages) -> str:
    """Return the name of a folder without a usable image, and what it contains instead."""
    reasons = [f"{path}: {reason}" for path, reason in bad if folder_of(path) == folder]
    found = [source.excluded_below(folder).summary(), f"{len(reasons)} unreadable: {reasons[0]}" if reasons else ""]
    return f"{folder} ({'; '.join(filter(None, found)) or 'empty'})"


def _join_names(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + ", ..." * (len(names) > MOST_NAMED)


def _excluded(source: Source, found: dict[str, list[str]]) -> ExcludedFiles:
    """Return the files that are not images of a class."""
    excluded, used = source.excluded_below(), {path for paths in found.values() for path in paths}
    for path in source.images if len(used) < len(source.images) else ():
        if path not in used:
            excluded.add(path, BESIDE_CLASSES)
    return excluded


def _divide(
    source: Source, paths: Iterable[str], digests: dict[str, str], test_fraction: float, seed: int
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
        raise UserError(f"{source.path}: no class has two different images; nothing is left for testing")
    return sides


def _sort_for_split(files: list[str], digests: dict[str, str], test_fraction: float, seed: int) -> int:
    """Sort a class's files into random order, and return how many of the first ones are for testing.

    Copies of one file stand together, and are not divided.
    """
    files.sort(key=lambda path: (path_hash(seed, digests[path]), path))
    wanted = max(1, round(test_fraction * len(files)))
    boundaries = [i for i in range(1, len(files)) if digests[files[i]] != digests[files[i - 1]]]
    return min(boundaries, key=lambda i: abs(i - wanted), default=0)


@dataclass(frozen=True)
class _Checked:
    """The result of checking images: SHA-256 and fingerprint of each good one, the bad ones, lines for the report."""

    digests: dict[str, str]
    fingerprints: dict[str, np.ndarray]
    bad: BadImages
    notes: list[str]


def readable(source: Source, paths: Sequence[str]) -> list[str]:
    """Return those of some images that can be used, after decoding all of them."""
    return [*_check(source, paths).digests]


def _check(source: Source, paths: Sequence[str]) -> _Checked:
    """Decode every file once."""
    width = fingerprint_width(len(paths))

    def check(path: str) -> tuple[str, np.ndarray, bool, int | None] | str:
        try:
            contents = source.read(path)
            image = inspect_image(io.BytesIO(contents), CHECK_OPTIONS)
        except UnreadableImageError as error:
            return str(error)
        assert image.thumbnail is not None  # it is not a label map
        fingerprint = fingerprint_of(image.thumbnail)[:width].copy()
        return hashlib.sha256(contents).hexdigest(), fingerprint, image.has_more, image.brightest

    results = log_progress(parallel_map(check, paths), len(paths), f"Checking the images of {source.path}")
    digests, fingerprints, bad, multiple, brightest = {}, {}, [], [], []
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, str):
            bad.append((path, result))
            continue
        digests[path], fingerprints[path], has_more, most = result
        if has_more:
            multiple.append(path)
        if most is not None:
            brightest.append(most)
    notes = [multiple_pictures_message(len(multiple), multiple[0])] if multiple else []
    notes += filter(None, [low_range_message(brightest)])
    return _Checked(digests, fingerprints, tuple(bad), notes)


def _duplicates(sides: dict[str, list[str]], fingerprints: dict[str, np.ndarray]) -> list[str]:
    """Return lines that name the test images that are training images too."""
    test, training = sides["testing"], sides["training"]
    found = find_duplicates(*(np.array([fingerprints[path] for path in paths]) for paths in (test, training)))
    return duplicates_message(found, test.__getitem__, training.__getitem__, len(test))
