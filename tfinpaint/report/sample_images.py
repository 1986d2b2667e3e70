"""Show a sample of test images with the classes that a classifier has predicted, right and wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfinpaint.report.figures import short_name
from tfinpaint.report.image_rows import ImageRow, draw_image_rows

SAMPLE_SIZE, IN_ROW = 16, 4
MOST_NAME = 12  # characters of a class below an image


class Predicted(NamedTuple):
    """A prediction for one test image: index of the image, its class, the predicted class and its probability."""

    image: int
    true: int
    predicted: int
    probability: float


def draw_sample(
    classes: Sequence[str], sample: Sequence[Predicted], read: Callable[[Sequence[int]], np.ndarray], path: Path
) -> None:
    """Draw the images with their predictions; nothing without any.

    Args:
        read: returns images by their indices, float [images, height, width, channels], 0 to 1.
    """
    if not sample:
        return
    images = read([each.image for each in sample])
    rows = []
    for first in range(0, len(sample), IN_ROW):
        part = sample[first : first + IN_ROW]
        right = [each.true == each.predicted for each in part]
        captions = [f"{_name(classes, each.predicted)} {each.probability:.2f}" for each in part]
        truths = ["" if each.true == each.predicted else f"is {_name(classes, each.true)}" for each in part]
        rows.append(ImageRow("", images[first : first + len(part)], captions, right, truths))
    count = sum(each.true == each.predicted for each in sample)
    told = "; ".join(
        f"{classes[each.true]} predicted as {classes[each.predicted]}" for each in sample if each.true != each.predicted
    )
    alt = f"{len(sample)} test images with their predicted classes and probabilities; {count} are right"
    draw_image_rows(rows, path, f"{alt}{f'. Wrong: {told}' if told else ''}.")


def _name(classes: Sequence[str], number: int) -> str:
    name = short_name(classes[number], number)
    return name if len(name) <= MOST_NAME else f"{name[: MOST_NAME - 1]}…"
