"""Choose and arrange test images of the pairs of classes that are confused most often."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from tfinpaint.report.confusion import Confusion
from tfinpaint.report.figures import short_name
from tfinpaint.report.image_rows import MOST_IMAGES, MOST_ROWS, ImageRow, draw_image_rows

Examples = list[list[tuple[int, float]]]  # for each pair: index of an image and probability of its predicted class


def confused_examples(
    confusion: Confusion, indices: np.ndarray, true: np.ndarray, predicted: np.ndarray, confidence: np.ndarray
) -> Examples:
    """Return images of the MOST_ROWS pairs of classes that are confused most often, the most confident errors first.

    Args:
        confusion: of all test images.
        indices, true, predicted, confidence: [images] of a part of them: index, classes, and the probability of the
            predicted class.
    """
    found = []
    for own, other, _ in confusion.confused_pairs(MOST_ROWS):
        places = np.flatnonzero((true == own) & (predicted == other))
        found.append([(int(indices[place]), float(confidence[place])) for place in places])
    return merge_examples([found])


def merge_examples(parts: Iterable[Examples]) -> Examples:
    """Return the most confident images of several parts, at most MOST_IMAGES for each pair."""
    together = [[tuple(each) for of_part in of_pair for each in of_part] for of_pair in zip(*parts, strict=True)]
    return [sorted(images, key=lambda each: (-each[1], each[0]))[:MOST_IMAGES] for images in together]


def draw_confused(
    confusion: Confusion, examples: Examples, read: Callable[[Sequence[int]], np.ndarray], path: Path
) -> None:
    """Draw the images, a row for each pair of classes; nothing where no image is classified wrongly.

    Args:
        examples: as `confused_examples` returns them.
        read: returns images by their indices, float [images, height, width, channels], 0 to 1.
    """
    if not examples:
        return
    rows, names, first = [], confusion.classes, 0
    pictures = read([index for images in examples for index, _ in images])
    for (own, other, count), images in zip(confusion.confused_pairs(MOST_ROWS), examples, strict=True):
        truth, found = (short_name(names[place], place) for place in (own, other))
        title = f"{truth}, predicted as {found}: {count} {'image' if count == 1 else 'images'}"
        captions = [f"probability {confidence:.2f}" for _, confidence in images]
        rows.append(ImageRow(title, pictures[first : first + len(images)], captions, [None] * len(images)))
        first += len(images)
    draw_image_rows(rows, path, f"Test images that are classified wrongly. {'; '.join(row.title for row in rows)}.")
