"""The reports of `prepare`: the images of each class, and the files that are excluded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfinpaint.config.sections import FEW_OF_A_CLASS
from tfinpaint.data.ingest.layout import class_of
from tfinpaint.data.ingest.split import SIDES, Split
from tfinpaint.data.listing.excluded import ExcludedFiles
from tfinpaint.data.listing.walk import printable
from tfinpaint.system.paths import display_path
from tfinpaint.system.wording import counted

_MOST_NAMED = 12  # classes


@dataclass(frozen=True)
class Report:
    """The result of `prepare` or `pack`.

    Attributes:
        images: number of all images.
        counts: class -> number of images on each side, in the order of `SIDES`; {} for `pack`.
        excluded: the files that are not images of a class.
        bad: (path in the source, reason) of each image that cannot be read and is excluded.
        notes: other facts, a line each.
    """

    dest: Path
    images: int
    counts: dict[str, tuple[int, ...]]
    excluded: ExcludedFiles
    bad: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, dest: Path, facts: Mapping[str, Any], lost: Mapping[str, Sequence[tuple[str, str]]]) -> Report:
        """Return the report of a split, without the images that were lost.

        Args:
            facts: as `facts_of` returns them.
            lost: side -> (path in the source, reason) of the images that became unreadable after the split.
        """
        sides = {side: Counter(counts) for side, counts in facts["sides"].items()}
        for side, pairs in lost.items():
            sides[side].subtract(class_of(path) for path, _ in pairs)
        names = sorted({name for counts in sides.values() for name in counts})
        counts = {name: tuple(sides[side][name] for side in SIDES if side in sides) for name in names}
        bad = [(path, reason) for path, reason in facts["bad"]]
        bad += [pair for pairs in lost.values() for pair in pairs]
        images = sum(sum(numbers) for numbers in counts.values())
        return cls(dest, images, counts, ExcludedFiles.from_json(facts["skipped"]), tuple(bad), tuple(facts["notes"]))

    def lines(self) -> list[str]:
        """Return the report for the terminal."""
        images = counted(self.images, "image")
        if self.counts:
            totals = [sum(column) for column in zip(*self.counts.values(), strict=True)]
            sums = [f"{total} {side}" for total, side in zip(totals, SIDES, strict=False)]
            images = f"{', '.join(sums[:-1])} and {sums[-1]} images in {len(self.counts)} classes"
        excluded = f"; {self.excluded.summary()}" if self.excluded.summary() else ""
        return [
            *(f"Unreadable, excluded: {printable(path)}: {reason}" for path, reason in self.bad),
            *self.notes,
            *(f"{name:>16}  {_columns(numbers)}" for name, numbers in self.counts.items()),
            *filter(None, [few_images_warning(self.counts)]),
            f"{display_path(self.dest)}: {images}, {len(self.bad)} unreadable{excluded}",
        ]


def few_images_warning(counts: Mapping[str, Sequence[int]]) -> str:
    """Return a line about the classes of very few images; "" without any.

    Args:
        counts: class -> number of images for training, for testing and, where there are any, for validation.
    """
    few = [name for name, numbers in counts.items() if sum(numbers) < FEW_OF_A_CLASS]
    if not few:
        return ""
    named = [
        f"{name} ({', '.join(f'{number} {side}' for number, side in zip(counts[name], SIDES, strict=False))})"
        for name in few[:_MOST_NAMED]
    ]
    more = [f"and {len(few) - _MOST_NAMED:,} more"] if len(few) > _MOST_NAMED else []
    return (
        f"Too few images to learn or to test a class: {', '.join([*named, *more])}; add some, or expect nothing of it"
    )


def _columns(numbers: Sequence[int]) -> str:
    widths = (6, 5, 5)
    return "  ".join(f"{number:{width}} {side}" for number, width, side in zip(numbers, widths, SIDES, strict=False))


def facts_of(split: Split) -> dict[str, Any]:
    """Return the facts about a split that a report needs, for JSON."""
    sides = {side: Counter(name.partition("/")[0] for _, name in pairs) for side, pairs in split.sides.items()}
    return {"sides": sides, "skipped": split.excluded.to_json(), "bad": split.bad, "notes": split.notes}
