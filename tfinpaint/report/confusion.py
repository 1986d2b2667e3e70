"""Show how a classifier confuses the classes of its test images, in a figure and in tables.

Their size is bounded for any number of classes: the counts of a thousand classes would be a million texts, which take
gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tfinpaint.layout import CLASS_TABLE, CONFUSED_PAIRS
from tfinpaint.report import figures
from tfinpaint.report.figures import own_style, save_figure
from tfinpaint.report.intervals import accuracy_interval
from tfinpaint.storage.atomic import write_csv

MOST_NUMBERS = 20  # classes whose counts are written into the figure
MOST_NAMED = 50  # classes that the figure shows; of more, it shows MOST_NUMBERS and all others together
OTHERS = "all others"
LEGEND = "numbers: images; colour: share of the row"
MOST_PAIRS_SHOWN, MOST_CLASSES_SHOWN = 20, 100  # rows of the report's tables
MOST_PAIRS_WRITTEN = 100_000
MOST_WORST = 2  # classes of the lowest recall that a sentence names


@dataclass(frozen=True)
class Confusion:
    """The number of test images by true and predicted class.

    Attributes:
        classes: the names of the classes; the number of a class is its index.
        pairs: int64 [n, 3]: true class, predicted class, number of images, at least 1; each pair once, sorted.
    """

    classes: Sequence[str]
    pairs: np.ndarray

    @classmethod
    def of(cls, classes: Sequence[str], parts: Iterable[np.ndarray]) -> Confusion:
        """Add up counts.

        Args:
            parts: arrays like `pairs`, in any order; a pair may occur several times.
        """
        rows = np.concatenate([np.zeros((0, 3), np.int64), *parts]).astype(np.int64)
        codes, place = np.unique(rows[:, 0] * len(classes) + rows[:, 1], return_inverse=True)
        counts = np.zeros(len(codes), np.int64)
        np.add.at(counts, place, rows[:, 2])
        return cls(classes, np.column_stack([*np.divmod(codes, len(classes)), counts]))

    @property
    def images(self) -> int:
        return int(self.pairs[:, 2].sum())

    @property
    def accuracy(self) -> float:
        """Return the share of the images whose class was predicted correctly; NaN without images."""
        right = self.pairs[self.pairs[:, 0] == self.pairs[:, 1], 2].sum()
        return float(right / self.images) if self.images else float("nan")

    def by_class(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of images of each true class, and of the correct ones among them, int64 [classes]."""
        images, right = np.zeros((2, len(self.classes)), np.int64)
        true, predicted, counts = self.pairs.T
        np.add.at(images, true, counts)
        np.add.at(right, true, np.where(true == predicted, counts, 0))
        return images, right

    def scores(self) -> np.ndarray:
        """Return precision, recall and F1 of each class, float64 [classes, 3]; NaN where one is not defined.

        Precision is undefined for a class that is never predicted, recall for one without test images, F1 for both.
        """
        from sklearn.metrics import precision_recall_fscore_support

        if not self.images:
            return np.full((len(self.classes), 3), np.nan)
        true, predicted, counts = self.pairs.T
        found = precision_recall_fscore_support(
            true, predicted, labels=range(len(self.classes)), sample_weight=counts, zero_division=np.nan
        )
        return np.column_stack(found[:3])

    def confused_pairs(self, most: int) -> list[tuple[int, int, int]]:
        """Return (true class, predicted class, images) of the pairs that are confused most often, at most `most`."""
        wrong = self.pairs[self.pairs[:, 0] != self.pairs[:, 1]]
        true, predicted, counts = wrong.T
        order = np.lexsort((predicted, true, -counts / self.by_class()[0][true], -counts))[:most]
        return [(int(own), int(other), int(count)) for own, other, count in wrong[order]]


@own_style()
def draw_confusion(confusion: Confusion, path: Path) -> None:
    """Draw the confusion matrix: colours show the share of the true class; counts are added if there is room.

    Of more than MOST_NAMED classes, those of the most frequent confusions are drawn, and all others together; if fewer
    than MOST_NUMBERS classes are confused, the first of the other classes are drawn too.
    """
    names, counts, title = _drawn(confusion)
    number = len(names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(1.8 + 0.55 * number, 11.5)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, "Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(title or (LEGEND if number <= MOST_NUMBERS else ""), fontsize=10 if title else 8)
    size = 10 if number <= MOST_NUMBERS else 8
    axes.set_xticks(range(number), names, rotation=45, ha="right", fontsize=size)
    axes.set_yticks(range(number), names, fontsize=size)
    if number > MOST_NUMBERS + 1:
        figure.colorbar(image, label="share of the true class", shrink=0.6)
    else:
        _write_counts(axes, counts, share)
    alt = f"Confusion matrix: true classes by predicted classes{f', {title}' if title else ''}. "
    save_figure(figure, path, alt + " ".join(verdict(confusion)))


def _drawn(confusion: Confusion) -> tuple[list[str], np.ndarray, str]:
    """Return the names of the rows and columns, int64 counts of images, and a title; "" if all classes are shown."""
    number = len(confusion.classes)
    shown, is_confused = np.arange(number), False
    if number > MOST_NAMED:
        shown, is_confused = _most_confused(confusion, MOST_NUMBERS)
    names = [figures.short_name(confusion.classes[place], place) for place in shown.tolist()]
    place_of = np.full(number, len(shown))  # all others
    place_of[shown] = np.arange(len(shown))
    counts = np.zeros((len(shown) + 1,) * 2, np.int64)
    true, predicted, images = confusion.pairs.T
    np.add.at(counts, (place_of[true], place_of[predicted]), images)
    if len(shown) == number:
        return names, counts[:-1, :-1], ""
    title = f"{len(shown)} of {number:,} classes"
    return [*names, OTHERS], counts, f"{title}, with those in the most frequent confusions" if is_confused else title


def _most_confused(confusion: Confusion, most: int) -> tuple[np.ndarray, bool]:
    """Return the numbers of the classes in the most frequent confusions, sorted; and whether there are any.

    They are `most` in any case: if fewer classes are confused, the first of the others follow.
    """
    pairs = confusion.confused_pairs(most)
    found = dict.fromkeys([place for own, other, _ in pairs for place in (own, other)])
    return np.sort([*found, *(place for place in range(most) if place not in found)][:most]), bool(found)


def _write_counts(axes: Any, counts: np.ndarray, share: np.ndarray) -> None:
    for (true, predicted), count in np.ndenumerate(counts):
        colour = "white" if share[true, predicted] > 0.5 else "black" if count else "0.7"
        axes.text(predicted, true, str(count), ha="center", va="center", color=colour, fontsize=8)


def verdict(confusion: Confusion) -> list[str]:
    """Return sentences: how many images are right, which classes are recognised least, and what is confused most.

    [] without test images.
    """
    if not confusion.images:
        return []
    images, right = confusion.by_class()
    scores, names = confusion.scores(), confusion.classes
    known = np.flatnonzero(images)
    low, high = (100 * limit for limit in accuracy_interval(int(right.sum()), confusion.images))
    frequent, one = int(images.argmax()), confusion.images == 1
    constant = 100 * images[frequent] / confusion.images
    sure = "no better than" if high < constant else "not clearly better than" if low <= constant else "better than"
    sentences = [
        f"{right.sum():,} of {confusion.images:,} test {'image' if one else 'images'} ({100 * confusion.accuracy:.1f} "
        f"%, 95 % interval {low:.1f} to {high:.1f} %) {'is' if one else 'are'} classified correctly. This is {sure} "
        f"naming the most frequent class, {names[frequent]}, for every image, which is right for {constant:.1f} %.",
        f"The mean recall of the classes is {scores[known, 1].mean():.3f}, their mean F1 "
        f"{scores[known, 2].mean():.3f}.",
    ]
    pairs = confusion.confused_pairs(1)
    if not pairs:
        return sentences
    worst = known[np.argsort(scores[known, 1], kind="stable")[:MOST_WORST]]
    told = [f"{names[i]} ({scores[i, 1]:.3f}, {_images(images[i])})" for i in worst if right[i] < images[i]]
    own, other, count = pairs[0]
    return [
        *sentences,
        f"The recall is lowest for {' and '.join(told)}.",
        f"The most frequent confusion: {names[own]} is predicted as {names[other]}, {_images(count)}, "
        f"{100 * count / images[own]:.0f} % of that class.",
    ]


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def pairs_table(confusion: Confusion, most: int = MOST_PAIRS_SHOWN) -> list[list[Any]]:
    """Return the pairs of classes that are confused most often, a row each below a heading row; [] if there are none.

    Args:
        most: maximal number of rows, without the heading.
    """
    images, names = confusion.by_class()[0], confusion.classes
    rows = [
        [names[own], names[other], count, float(count / images[own])]
        for own, other, count in confusion.confused_pairs(most)
    ]
    return [["true class", "predicted as", "images", "share of the true class"], *rows] if rows else []


def classes_table(confusion: Confusion, most: int | None = None) -> list[list[Any]]:
    """Return recall, precision and F1 of each class, a row each below a heading row; "" where one is not defined.

    Args:
        most: maximal number of rows, without the heading; of more classes, those with the lowest recall are listed,
            worst first. None: all classes, by number.
    """
    images, right = confusion.by_class()
    scores = confusion.scores()
    order = np.arange(len(images))
    if most is not None and len(order) > most:
        order = np.lexsort((order, right / np.maximum(images, 1)))
        order = order[images[order] > 0][:most]
    rows = [
        [i, confusion.classes[i], int(images[i]), int(right[i]), *(_defined(scores[i, place]) for place in (1, 0, 2))]
        for i in order.tolist()
    ]
    return [["number", "class", "test images", "right", "recall", "precision", "F1"], *rows]


def _defined(value: float) -> float | str:
    return "" if np.isnan(value) else float(value)


def confusion_json(confusion: Confusion) -> dict[str, Any]:
    """Return the tables of the report as JSON values; null where a score is not defined."""
    classes, pairs = classes_table(confusion, MOST_CLASSES_SHOWN)[1:], pairs_table(confusion)[1:]
    names = ("number", "class", "images", "right", "recall", "precision", "f1")
    return {
        "classes": [
            {name: None if cell == "" else cell for name, cell in zip(names, row, strict=True)} for row in classes
        ],
        "confusions": [dict(zip(("true", "predicted", "images", "share"), row, strict=True)) for row in pairs],
    }


def write_confusion_tables(confusion: Confusion, folder: Path) -> None:
    """Write all classes, and the MOST_PAIRS_WRITTEN pairs that are confused most often, as CSV files."""
    write_csv(folder / CLASS_TABLE, classes_table(confusion))
    write_csv(folder / CONFUSED_PAIRS, pairs_table(confusion, MOST_PAIRS_WRITTEN))
