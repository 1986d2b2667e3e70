"""Tell how well the probabilities of predicted classes agree with accuracies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tfinpaint.report.colours import TEST
from tfinpaint.report.figures import own_style, save_figure
from tfinpaint.system.wording import counted

INTERVALS = 15  # of the probability, all of the same width
LEAST_IMAGES = 10  # in an interval, for its accuracy to say something
DEFINITION = (
    f"The range of the probability of the predicted class is divided into {INTERVALS} intervals of equal width. The "
    "expected calibration error is the mean, over the test images, of the absolute difference between the mean "
    "probability and the accuracy of an image's interval (Guo et al., arXiv 1706.04599)."
)


@dataclass(frozen=True)
class Calibration:
    """Probabilities and accuracies of test images, by intervals of the probability of the predicted class.

    Attributes:
        sums: float64 [INTERVALS, 3]: number of images, sum of their probabilities, number of right ones.
    """

    sums: np.ndarray

    @classmethod
    def of(cls, confidence: np.ndarray, right: np.ndarray) -> Calibration:
        """Sort images into the intervals.

        Args:
            confidence: float [images], 0 to 1: probability of the predicted class.
            right: bool [images]: whether it is the true one.
        """
        values = confidence.astype(np.float64)
        places = np.minimum((values * INTERVALS).astype(int), INTERVALS - 1)
        sums = np.zeros((INTERVALS, 3))
        np.add.at(sums, places, np.column_stack([np.ones_like(values), values, right]))
        return cls(sums)

    @classmethod
    def added(cls, parts: Iterable[Any]) -> Calibration:
        """Add up the `sums` of several parts of the test images."""
        return cls(np.sum([np.asarray(part, np.float64) for part in parts], axis=0))

    @property
    def images(self) -> int:
        return int(self.sums[:, 0].sum())

    @property
    def intervals(self) -> np.ndarray:
        """Return float64 [intervals with images, 3]: number of images, mean probability, accuracy."""
        found = self.sums[self.sums[:, 0] > 0]
        return np.column_stack([found[:, 0], found[:, 1] / found[:, 0], found[:, 2] / found[:, 0]])

    @property
    def error(self) -> float:
        """Return the expected calibration error; NaN without images."""
        images, confidence, right = self.sums.T
        return float(np.abs(confidence - right).sum() / images.sum()) if self.images else float("nan")

    def sentence(self) -> str:
        """Say how probabilities and accuracy compare; at least one image."""
        images, confidence, right = self.sums.sum(axis=0)
        gap = 100 * (confidence - right) / images
        tendency = (
            "as high as the accuracy"
            if abs(gap) < 0.5
            else f"{counted(round(abs(gap)), 'point')} {'above' if gap > 0 else 'below'} the accuracy, "
            f"{right / images:.3f}"
        )
        return (
            f"The mean probability of the predicted class, {confidence / images:.3f}, is {tendency}; the expected "
            f"calibration error is {self.error:.3f}."
        )

    def note(self) -> str:
        """Return what the grey points of the diagram are; "" where it has none."""
        if not (self.intervals[:, 0] < LEAST_IMAGES).any():
            return ""
        return (
            f"Grey points are intervals of fewer than {LEAST_IMAGES} images, whose accuracy is mostly chance. Points "
            "on the dashed line are calibrated."
        )

    def as_json(self) -> dict[str, Any]:
        """Return error, definition and intervals as JSON values."""
        names = ("images", "mean_probability", "accuracy")
        return {
            "expected_calibration_error": self.error,
            "definition": DEFINITION,
            "intervals": [dict(zip(names, row, strict=True)) for row in self.intervals.tolist()],
        }


@own_style()
def draw_reliability(calibration: Calibration, path: Path) -> None:
    """Draw accuracy against the probability of the predicted class, above the number of images in each interval.

    Points on the diagonal are calibrated; below it, the probabilities are too high. Those of fewer than LEAST_IMAGES
    images are grey and not connected: chance moves them far from the diagonal.
    """
    many = calibration.intervals[:, 0] >= LEAST_IMAGES
    figure = Figure(figsize=(4.4, 5), layout="constrained")
    axes, bars = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], "--", color="grey", linewidth=1, label="calibrated")
    for chosen, style in (
        (many, {"color": TEST, "marker": "o", "linewidth": 1, "label": "test images"}),
        (~many, {"color": "0.75", "marker": "o", "linewidth": 0, "label": f"fewer than {LEAST_IMAGES} images"}),
    ):
        if chosen.any():
            axes.plot(*calibration.intervals[chosen, 1:].T, markersize=5, **style)
    axes.set(ylabel="accuracy", xlim=(0, 1), ylim=(-0.03, 1.03))
    axes.set_title(f"expected calibration error {calibration.error:.3f}", fontsize=10)
    axes.legend(fontsize=8)  # where it covers least
    bars.bar((np.arange(INTERVALS) + 0.5) / INTERVALS, calibration.sums[:, 0], 0.9 / INTERVALS, color=TEST)
    bars.set(xlabel="probability of the predicted class", ylabel="images")
    for each in (axes, bars):
        each.grid(alpha=0.3)
    told = ", ".join(f"{a:.2f} at {p:.2f} ({counted(int(n), 'image')})" for n, p, a in calibration.intervals)
    alt = (
        "Reliability diagram: accuracy against the probability of the predicted class, above a histogram of the images"
    )
    save_figure(figure, path, f"{alt}. Accuracies: {told}.")
