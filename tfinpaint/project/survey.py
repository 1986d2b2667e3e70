"""Look at a user's images: how many of which class, how large, grey or coloured, and what cannot be used."""

from __future__ import annotations

import io
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from tfinpaint.config.transforms import Transform
from tfinpaint.data.images.decode import CHECK_OPTIONS, DecodeOptions, open_image, read_image
from tfinpaint.data.images.depth import low_range_message
from tfinpaint.data.images.unreadable import UnreadableImageError
from tfinpaint.data.ingest.layout import class_of, folder_of
from tfinpaint.data.ingest.source import DIGITS, Source, open_source
from tfinpaint.data.ingest.split import split_classes
from tfinpaint.data.ingest.summary import few_images_warning
from tfinpaint.data.listing.check import check_images
from tfinpaint.data.listing.listing import list_images
from tfinpaint.data.listing.walk import printable
from tfinpaint.errors import UserError
from tfinpaint.system.parallel import parallel_map
from tfinpaint.system.wording import counted

LEAST_IMAGES = 20  # fewer can neither be learnt from nor tested on
SAMPLE = 400  # images whose size and colours are looked at
GREY_DIFFERENCE = 12  # of 255, between channels: JPEG shifts the colours of a grey image a little
MOST_NAMED = 12  # classes or files, on the terminal
TESTED = 200  # test images that are wanted: an accuracy of 0.9 then has a standard error of 2 points
TEST_FRACTIONS = (0.1, 0.3)  # the smallest and the largest fraction of test images

_COLOURS = DecodeOptions((Transform(resize=[32, 32]),))


@dataclass(frozen=True)
class Survey:
    """What is known about a user's images.

    Attributes:
        source: as the user has named it.
        classes: class -> number of images for training and for testing; {} for images without classes.
        images: number of all images that can be used.
        test_fraction: of each class, for testing; 0 without classes.
        bad: (path in the source, reason) of each image that cannot be read.
        excluded: the other files that are not used, in words; "" for none.
        sides: smallest, median and largest of the shorter sides of images, in pixels.
        is_grey: True if no image has colours.
        notes: other facts, a sentence each.
    """

    source: Path
    classes: dict[str, tuple[int, int]]
    images: int
    test_fraction: float
    bad: tuple[tuple[str, str], ...]
    excluded: str
    sides: tuple[int, int, int]
    is_grey: bool
    notes: tuple[str, ...]

    @property
    def training_images(self) -> int:
        """Number of images to train on."""
        return sum(training for training, _ in self.classes.values()) or self.images

    @property
    def test_images(self) -> int:
        """Number of images to test on."""
        return sum(testing for _, testing in self.classes.values())


def survey_images(source: Path, *, skip_empty_classes: bool = False) -> Survey:
    """Read every image of a folder or an archive once.

    Args:
        source: folder, archive, or "digits", as `prepare` takes it. Only a folder may lack class folders.
        skip_empty_classes: exclude class folders without a usable image, which are errors otherwise.

    Raises:
        UserError: There is no such source, nothing in it can be used, or its classes are not clear.
    """
    with tempfile.TemporaryDirectory() as scratch, open_source(source, Path(scratch)) as opened:
        if _has_classes(opened):
            found = _survey_classes(opened, skip_empty_classes)
        else:
            found = _survey_unlabelled(source, opened)
    if found.images < LEAST_IMAGES:
        unreadable = f" ({len(found.bad)} more cannot be read)" if found.bad else ""
        raise UserError(
            f"{source}: {counted(found.images, 'usable image')}{unreadable}; expected at least {LEAST_IMAGES} to learn "
            "from and to test on; add more"
        )
    return found


def _has_classes(source: Source) -> bool:
    """Return True if there are two folders of images, or one and another that has none."""
    return len({folder_of(path) for path in source.images} - {""}) > 1 or bool(_empty_beside(source))


def _empty_beside(source: Source) -> set[str]:
    """Return the folders that lie beside the only one with images: classes without images, perhaps."""
    folders = {folder_of(path) for path in source.images} - {""}
    parents = {folder_of(folder) for folder in folders}
    return {folder for folder in source.folders if folder_of(folder) in parents} - folders if folders else set()


def _survey_classes(source: Source, skip_empty_classes: bool) -> Survey:
    fraction = min(max(round(TESTED / max(1, len(source.images)), 1), TEST_FRACTIONS[0]), TEST_FRACTIONS[1])
    split = split_classes(source, fraction, 0, skip_empty_classes=skip_empty_classes)
    sides = {side: Counter(class_of(path) for path, _ in pairs) for side, pairs in split.sides.items()}
    names = sorted({name for counts in sides.values() for name in counts})
    classes = {name: (sides["training"][name], sides["testing"][name]) for name in names}
    paths = [path for pairs in split.sides.values() for path, _ in pairs]
    return Survey(
        source.path, classes, len(paths), fraction, split.bad, split.excluded.summary(),
        *_looks(paths, lambda path: io.BytesIO(source.read(path))), split.notes,
    )  # fmt: skip


def _survey_unlabelled(path: Path, source: Source) -> Survey:
    excluded = source.excluded_below().summary()
    if not source.images:
        raise UserError(f"{path}: no images in it{f' ({excluded})' if excluded else ''}; name a folder of photos")
    if not path.is_dir():
        raise UserError(f"{path}: holds images, but no class folders; unpack it, and name the folder of the images")
    listing = list_images(path)
    checked = check_images(listing, range(len(listing)), CHECK_OPTIONS)
    bad, dark = checked.bad, low_range_message(checked.brightest)
    good = [listing.paths[index] for index in range(len(listing)) if index not in bad]
    return Survey(
        path, {}, len(good), 0.0, tuple((listing.paths[index], reason) for index, reason in sorted(bad.items())),
        excluded, *_looks(good, lambda name: (path / name).open("rb")),
        (dark,) if dark else (),
    )  # fmt: skip


def _looks(paths: Sequence[str], open_file: Callable[[str], IO[bytes]]) -> tuple[tuple[int, int, int], bool]:
    """Return (smallest, median and largest shorter side, whether all images are grey) of a sample of images."""
    places = sorted({int(place) for place in np.linspace(0, len(paths) - 1, min(SAMPLE, len(paths)))})

    def look(place: int) -> tuple[int, bool] | None:
        try:
            with open_file(paths[place]) as file:
                with open_image(file) as image:
                    side = min(image.size)
                pixels = read_image(file, _COLOURS).astype(np.int16)
        except (UnreadableImageError, OSError):  # it has changed since it was checked
            return None
        return side, int(np.ptp(pixels, axis=2).max()) <= GREY_DIFFERENCE

    looks = [found for found in parallel_map(look, places) if found]
    if not looks:
        return (0, 0, 0), False
    sides = [side for side, _ in looks]
    return (min(sides), int(statistics.median(sides)), max(sides)), all(grey for _, grey in looks)


def absolute_source(source: Path) -> str:
    """Return the source as a path that is valid in every working directory."""
    return DIGITS if str(source) == DIGITS and not source.exists() else str(source.resolve())


def describe(survey: Survey) -> list[str]:
    """Return what was found, in lines for the terminal."""
    looks = f"{'grey' if survey.is_grey else 'colour'}, {_sides(survey.sides)}"
    if survey.classes:
        counts = _some([f"{name} {training + testing}" for name, (training, testing) in survey.classes.items()])
        lines = [
            f"{survey.source}: {survey.images:,} images in {len(survey.classes)} classes ({counts}); {looks}",
            f"{counted(survey.training_images, 'image')} to train on, {survey.test_images:,} to test on",
        ]
    else:
        lines = [f"{survey.source}: {survey.images:,} images without classes; {looks}"]
    lines += [f"Unreadable: {printable(path)}: {reason}" for path, reason in survey.bad[:MOST_NAMED]]
    if len(survey.bad) > MOST_NAMED:
        lines.append(f"Unreadable: {len(survey.bad) - MOST_NAMED:,} more")
    if survey.excluded:
        lines.append(f"Not used: {survey.excluded}")
    return [*lines, *survey.notes, *_doubts(survey)]


def _sides(sides: tuple[int, int, int]) -> str:
    smallest, median, largest = sides
    if smallest == largest:
        return f"the shorter side has {smallest} pixels"
    return f"the shorter side has {smallest} to {largest} pixels, mostly about {median}"


def _doubts(survey: Survey) -> list[str]:
    """Return what the user should expect of very few images."""
    lines = [few] if (few := few_images_warning(survey.classes)) else []
    if survey.classes and survey.test_images < TESTED // 2:
        lines.append(
            f"With {counted(survey.test_images, 'test image')}, an accuracy of 0.8 is uncertain by "
            f"{_points(survey.test_images)} points; only a large difference can be distinguished from chance"
        )
    return lines


def _points(images: int) -> int:
    """Return half the width of a 95 % interval of an accuracy of 0.8, in points."""
    return round(196 * (0.8 * 0.2 / images) ** 0.5)


def _some(parts: Sequence[str]) -> str:
    """Return the first few parts as a text."""
    more = [f"and {len(parts) - MOST_NAMED:,} more"] if len(parts) > MOST_NAMED else []
    return ", ".join([*parts[:MOST_NAMED], *more])
