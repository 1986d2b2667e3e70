"""What `prepare` has done: counts by class, what was left out, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfinpaint.data.ingest.layout import class_of
from tfinpaint.data.ingest.split import SIDES, Split
from tfinpaint.data.listing.excluded import Skipped
from tfinpaint.data.listing.walk import in_one_line


@dataclass(frozen=True)
class Report:
    """What `prepare` did.

    Attributes:
        counts: class -> number of images on each side, in the order of `SIDES`; without validation mostly.
        skipped: the files that are not images of a class.
        bad: (path in the source, reason) of each image that could not be read; they are left out.
        notes: what else is worth knowing, a line each.
    """

    dest: Path
    counts: dict[str, tuple[int, ...]]
    skipped: Skipped
    bad: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, dest: Path, facts: Mapping[str, Any], lost: Mapping[str, Sequence[tuple[str, str]]]) -> Report:
        """Return what was planned (`facts_of`), without what was lost.

        Args:
            lost: side -> (path in the source, reason) of the images that could no longer be read in their turn.
        """
        sides = {side: Counter(counts) for side, counts in facts["sides"].items()}
        for side, images in lost.items():
            sides[side].subtract(class_of(path) for path, _ in images)
        names = sorted({name for counts in sides.values() for name in counts})
        counts = {name: tuple(sides[side][name] for side in SIDES if side in sides) for name in names}
        bad = [(path, reason) for path, reason in facts["bad"]]
        bad += [image for images in lost.values() for image in images]
        return cls(dest, counts, Skipped.of_json(facts["skipped"]), tuple(bad), tuple(facts["notes"]))

    def lines(self) -> list[str]:
        totals = [sum(column) for column in zip(*self.counts.values(), strict=True)]
        sums = [f"{total} {side}" for total, side in zip(totals, SIDES, strict=False)]
        return [
            *_left_out(self.bad),
            *self.notes,
            *(f"{name:>16}  {_columns(numbers)}" for name, numbers in self.counts.items()),
            f"{self.dest}: {', '.join(sums[:-1])} and {sums[-1]} images in {len(self.counts)} classes"
            f"{_counted(self.skipped, len(self.bad))}",
        ]


@dataclass(frozen=True)
class PackReport:
    """What `pack` did; attributes as those of `Report`."""

    dest: Path
    images: int
    skipped: Skipped
    bad: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        counted = f"{self.images} images{_counted(self.skipped, len(self.bad))}"
        return [*_left_out(self.bad), *self.notes, f"{self.dest}: {counted}"]


def _columns(numbers: Sequence[int]) -> str:
    widths = (6, 5, 5)
    return "  ".join(f"{number:{width}} {side}" for number, width, side in zip(numbers, widths, SIDES, strict=False))


def _left_out(bad: Sequence[tuple[str, str]]) -> list[str]:
    return [f"Unreadable, left out: {in_one_line(path)}: {reason}" for path, reason in bad]


def _counted(skipped: Skipped, bad: int) -> str:
    return f", {bad} unreadable" + (f"; {skipped.line()}" if skipped.line() else "")


def facts_of(split: Split) -> dict[str, Any]:
    """Return what a report needs to know of a split, as JSON can hold it."""
    sides = {side: Counter(name.partition("/")[0] for _, name in pairs) for side, pairs in split.sides.items()}
    return {"sides": sides, "skipped": split.skipped.to_json(), "bad": split.bad, "notes": split.notes}
