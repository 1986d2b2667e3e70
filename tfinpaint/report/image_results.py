"""Write what a classifier predicts for each of its test images, and read which of them are right."""

from __future__ import annotations

import csv
import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfinpaint.errors import UserError
from tfinpaint.report.sample_images import Predicted
from tfinpaint.storage.atomic import write_csv
from tfinpaint.system.paths import display_path

MOST_BYTES = 2**28  # of a table that is read: some million images
_HEAD = ["image", "true class", "predicted class", "probability"]


@dataclass(frozen=True, eq=False)
class ImageResults:
    """The test images of a classifier, and which of them it has right.

    Attributes:
        path: of the table.
        digest: of the names of the images and of their classes, whatever their order is.
        right: bool [images], in the same order for the same images.
    """

    path: Path
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
    """Return what `write_image_results` has written, in any order; None where there is no such file.

    Raises:
        UserError: It cannot be read, is too large, or is not such a table.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            raise UserError(f"{display_path(path)} is no file of at most {MOST_BYTES >> 20} MiB")
        images, right = _read_rows(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{display_path(path)} cannot be read ({error.strerror})") from None
    order = np.argsort(images, kind="stable")
    return ImageResults(path, hashlib.sha256(images[order].tobytes()).hexdigest(), right[order])


def _read_rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for the name and the class of each image, uint64 [images], and which are right, bool [images]."""
    images, right = [], []
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = csv.reader(file)
        try:
            if next(lines, None) != _HEAD:
                raise ValueError
            for name, true, predicted, _ in lines:
                number = hashlib.blake2b(repr((name, true)).encode(), digest_size=8)
                images.append(int.from_bytes(number.digest(), "big"))
                right.append(true == predicted)
        except (ValueError, csv.Error):
            raise UserError(f"{display_path(path)} is damaged in line {max(lines.line_num, 1)}") from None
    return np.array(images, np.uint64), np.array(right, np.bool_)
