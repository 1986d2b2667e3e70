"""Write what a classifier predicts for each of its test images, and read which of them are right."""

from __future__ import annotations

import csv
import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfinpaint.report.sample_images import Predicted
from tfinpaint.storage.atomic import write_csv

MOST_BYTES = 2**28  # of a table that is read: some million images
_HEAD = ["image", "true class", "predicted class", "probability"]


@dataclass(frozen=True, eq=False)
class ImageResults:
    """The test images of a classifier, and which of them it has right.

    Attributes:
        digest: of the names of the images and of their classes, in order.
        right: bool [images].
    """

    digest: str
    right: np.ndarray


def write_image_results(
    path: Path, names: Sequence[str], classes: Sequence[str], predictions: Sequence[Predicted]
) -> None:
    """Write a CSV file with a line for each prediction.

    Args:
        names: of all test images.
        classes: names of the classes, by number.
    """
    lines = [
        [names[each.image], classes[each.true], classes[each.predicted], f"{each.probability:.6f}"]
        for each in predictions
    ]
    write_csv(path, [_HEAD, *lines])


def read_image_results(path: Path) -> ImageResults | None:
    """Return what `write_image_results` has written; None where it is missing, too large or not such a table."""
    digest, right = hashlib.sha256(), []
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            return None
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file)
            if next(lines, None) != _HEAD:
                return None
            for name, true, predicted, _ in lines:
                digest.update(repr((name, true)).encode())
                right.append(true == predicted)
    except (OSError, ValueError, csv.Error):
        return None
    return ImageResults(digest.hexdigest(), np.array(right, np.bool_))
