"""Compare pretrained classifiers with those from scratch on the same test images, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfinpaint.report.image_results import ImageResults
from tfinpaint.system.paths import display_path
from tfinpaint.system.wording import counted

Tested = ImageResults | str | None  # of a run: its results, why its table cannot be used, or None where it has none

MOST_SUM = 200_000  # of the sizes of the differences, for the exact probability; many runs would take minutes


@dataclass(frozen=True)
class Pairs:
    """Pretrained classifiers and those from scratch on the same test images.

    Attributes:
        ours, theirs: images on which the pretrained ones are right more often, and those on which the others are.
        probability: how likely a difference in accuracy as large as theirs is, if on each image either kind might as
            well have been the other one (two-sided).
        single: whether each kind was trained once.
    """

    ours: int
    theirs: int
    probability: float
    single: bool

    def sentence(self) -> str:
        """Return on how many images each kind is better."""
        images = counted(self.ours, "test image")
        if self.single:
            return f"On {images} only the pretrained classifier is right, on {self.theirs:,} only the one from scratch."
        return f"On {images} the pretrained classifiers are right more often, on {self.theirs:,} those from scratch."


def compare_pairs(ours: Sequence[Tested], theirs: Sequence[Tested]) -> Pairs | None:
    """Compare pretrained classifiers with those from scratch; each kind is one run or, with several seeds, several.

    Each image counts once, with the difference between the shares of the classifiers that have it right. Of two single
    classifiers this is McNemar's exact test. The test takes the classifiers as they are: whether those of other seeds
    differ as much, it cannot tell.

    Returns:
        None where the result on each image is not known, or not of the same images.
    """
    known = [each for each in (*ours, *theirs) if isinstance(each, ImageResults)]
    if len(known) < len(ours) + len(theirs) or len({each.digest for each in known}) > 1:
        return None
    first, second = (np.sum([each.right for each in kind], axis=0) for kind in (known[: len(ours)], known[len(ours) :]))
    differences = first * len(theirs) - second * len(ours)  # of the shares, times a number that makes them whole
    better, worse = (int(each.sum()) for each in (differences > 0, differences < 0))
    return Pairs(better, worse, chance_of_signs(differences), single=len(known) == 2)


def why_not_paired(tested: Sequence[Tested]) -> str:
    """Return why runs that have their tables cannot be compared on each image; "" where they can, or lack a table."""
    for each in tested:
        if isinstance(each, str):
            return each
    known = [each for each in tested if isinstance(each, ImageResults)]
    other = next((each for each in known if each.digest != known[0].digest), None)
    if other is None or len(known) < len(tested):
        return ""
    return f"{display_path(other.path)} has other images or classes than {display_path(known[0].path)}"


def chance_of_signs(differences: np.ndarray) -> float:
    """Return how likely a sum as far from 0 as that of these integers is, if the sign of each is left to chance.

    This is exact, unless the sizes add up to more than MOST_SUM: the sum is then taken for normally distributed.
    """
    from scipy.signal import convolve
    from scipy.stats import binom, norm

    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    differences = differences // np.gcd.reduce(differences)
    if np.abs(differences).sum() > MOST_SUM:
        nearer = abs(differences.sum()) - 1  # the middle between this sum and the next smaller one
        return float(min(1.0, 2 * norm.sf(nearer / np.linalg.norm(differences))))
    chances = np.ones(1)  # of 0, 1, 2, ... as the sum of the sizes of those whose sign is positive
    for size, count in zip(*np.unique(np.abs(differences), return_counts=True), strict=True):
        own = np.zeros(size * count + 1)
        own[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = convolve(chances, own)
    sums = 2 * np.arange(len(chances)) - (len(chances) - 1)
    return float(min(1.0, chances[np.abs(sums) >= abs(differences.sum())].sum()))
