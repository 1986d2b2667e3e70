"""The classes of a user's photos, for the terminal and in files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfinpaint.storage.atomic import write_csv, write_json
from tfinpaint.system.wording import counted

MOST_SHOWN = 3  # classes of each photo on the terminal
MOST_COUNTED = 20  # classes, beyond which those of no photo are only counted


@dataclass(frozen=True)
class PhotoClasses:
    """What a classifier says about photos.

    Attributes:
        classes: the names of the classes.
        photos: the paths of the photos that could be read.
        probabilities: float32 [photos, classes].
        unreadable: path -> reason, of the photos that could not be read.
    """

    classes: tuple[str, ...]
    photos: tuple[str, ...]
    probabilities: np.ndarray
    unreadable: Mapping[str, str]

    def best(self) -> list[str]:
        """Return the most probable class of each photo; of equally probable ones, the first."""
        return [self.classes[index] for index in self.probabilities.argmax(axis=1)]

    def table(self) -> list[list[str]]:
        """Return a heading row, and a row for each photo: its path and its most probable classes, best first."""
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :MOST_SHOWN]
        rows = zip(self.photos, order, self.probabilities, strict=True)
        cells = [
            [photo, *(f"{self.classes[index]} {100 * values[index]:.1f} %" for index in best)]
            for photo, best, values in rows
        ]
        return [["photo", *("class", "second", "third")[: order.shape[1]]], *cells]

    def counts(self) -> str:
        """Return how many photos are of which class, such as "4 photos: cat (3), dog (1), bird (0)"."""
        found = Counter(self.best())
        named = [f"{name} ({count})" for name, count in found.most_common()]
        absent = [f"{name} (0)" for name in self.classes if name not in found]
        if len(self.classes) > MOST_COUNTED and absent:
            absent = [f"none of {counted(len(absent), 'other class', 'other classes')}"]
        return f"{counted(len(self.photos), 'photo')}: {', '.join([*named, *absent])}"

    def write_csv(self, path: Path) -> None:
        """Write a row for each photo that could be read: its path, class, and the probability of every class."""
        head = ["image", "class", "probability", *(f"probability_{name}" for name in self.classes)]
        rows = zip(self.photos, self.best(), self.probabilities, strict=True)
        lines = [[photo, best, *(f"{value:.6f}" for value in (row.max(), *row))] for photo, best, row in rows]
        write_csv(path, [head, *lines])

    def write_json(self, path: Path, checkpoint: str) -> None:
        """Write the class and all probabilities of each photo, and the reasons why others could not be read.

        Args:
            checkpoint: the path of the model.
        """
        photos: list[dict[str, Any]] = [
            {"image": photo, "class": best, "probabilities": dict(zip(self.classes, row.tolist(), strict=True))}
            for photo, best, row in zip(self.photos, self.best(), self.probabilities, strict=True)
        ]
        unreadable = [{"image": photo, "reason": reason} for photo, reason in self.unreadable.items()]
        write_json(path, {"checkpoint": checkpoint, "images": photos, "unreadable": unreadable})
