"""Accuracies over test images and draws of labels, and bootstrap intervals of paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfinpaint.sweeping.plan import Method
from tfinpaint.sweeping.rows import Row

RESAMPLES = 10_000
CONFIDENCE = 0.95
_BLOCK = 4_000_000  # weights of kinds of images that are in memory at once
# What is compared: with pretraining, and without.
PAIRS: tuple[tuple[Method, Method], ...] = (
    ("fine_tuned", "from_scratch"),
    ("pretrained_frozen", "from_scratch"),
    ("pretrained_frozen", "random_frozen"),
)


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Return whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Point:
    """The accuracy of one method at one share of the labels.

    Attributes:
        draws: test accuracy of each draw.
        interval: of their mean.
    """

    share: float
    labels: int
    method: Method
    draws: tuple[float, ...]
    interval: Interval

    @property
    def deviation(self) -> float | None:
        """Return the standard deviation over the draws; None for a single one."""
        return float(np.std(self.draws, ddof=1)) if len(self.draws) > 1 else None


@dataclass(frozen=True)
class Difference:
    """The difference in accuracy of two methods at one share, over the draws that both have.

    Attributes:
        ours, theirs: mean accuracies; `interval` is of `ours - theirs`.
        draws: difference of each draw.
    """

    share: float
    labels: int
    pair: tuple[Method, Method]
    ours: float
    theirs: float
    draws: tuple[float, ...]
    interval: Interval


def bootstrap(values: np.ndarray, resamples: int = RESAMPLES) -> Interval:
    """Return the mean of values and its percentile interval; images and draws are resampled, each with replacement.

    All draws have the same images, so a resample takes some rows and some columns (Owen, "The pigeonhole bootstrap",
    Annals of Applied Statistics 1(2), 2007). With a single draw this is the ordinary bootstrap of the images.

    Args:
        values: float64 [draws, images].
    """
    generator = np.random.default_rng(0)
    draws, images = values.shape
    # Images with the same values in all draws are drawn together, as there are few kinds of them.
    kinds, numbers = np.unique(values, axis=1, return_counts=True)
    means = []
    for first in range(0, resamples, block := max(1, _BLOCK // len(numbers))):
        count = min(block, resamples - first)
        rows = generator.multinomial(draws, np.full(draws, 1 / draws), size=count)
        columns = generator.multinomial(images, numbers / images, size=count)
        # Whole numbers up to the last step: a bound that is 0 would be something else after rounding, and seem clear.
        means.append(np.sum((rows @ kinds) * columns, axis=1) / (draws * images))
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def points(rows: Sequence[Row], labels: np.ndarray) -> list[Point]:
    """Return the accuracy of each method at each share, over the draws that are finished.

    Args:
        rows: in the order of `read_rows`.
        labels: int [test images].
    """
    found = []
    for share, method in dict.fromkeys((row.share, row.method) for row in rows):
        own = [row for row in rows if (row.share, row.method) == (share, method)]
        right = _right(own, labels)
        found.append(Point(share, own[0].labels, method, tuple(right.mean(axis=1).tolist()), bootstrap(right)))
    return found


def differences(rows: Sequence[Row], labels: np.ndarray, counted: np.ndarray | None = None) -> list[Difference]:
    """Return the difference of each pair at each share where both have a draw in common, smallest share first.

    Args:
        labels: int [test images].
        counted: bool [test images]: those that count, at least one; None: all.
    """
    found = []
    for share in dict.fromkeys(row.share for row in rows):
        for pair in PAIRS:
            by_draw = [{row.draw: row for row in rows if (row.share, row.method) == (share, method)} for method in pair]
            common = sorted(by_draw[0].keys() & by_draw[1].keys())
            if not common:
                continue
            ours, theirs = (_right([rows_of[draw] for draw in common], labels) for rows_of in by_draw)
            if counted is not None:
                ours, theirs = ours[:, counted], theirs[:, counted]
            change = ours - theirs
            found.append(
                Difference(
                    share, by_draw[0][common[0]].labels, pair, float(ours.mean()), float(theirs.mean()),
                    tuple(change.mean(axis=1).tolist()), bootstrap(change),
                )
            )  # fmt: skip
    return found


def _right(rows: Sequence[Row], labels: np.ndarray) -> np.ndarray:
    """Return which test images are right in each row: float64 [rows, images], 0 or 1."""
    return np.array([np.asarray(row.predicted) == labels for row in rows], np.float64)
