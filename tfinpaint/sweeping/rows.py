"""The final rows of a sweep, a file for each, and the choice of a setting by validation images."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np

from tfinpaint.data.listing.listing import Listing
from tfinpaint.errors import UserError
from tfinpaint.layout import PREDICTIONS_TABLE, SUMMARY
from tfinpaint.storage.atomic import write_json
from tfinpaint.storage.safe_json import read_json
from tfinpaint.sweeping.plan import Cell, Method, Setting

MOST_BYTES = 2**28  # of the file of a row: ten million test images


@dataclass(frozen=True)
class Row:
    """The result of one method with one draw of the labels.

    Attributes:
        share, draw, seed, labels: of the draw: fraction, number, seed of the runs, and number of labelled images.
        method: one of METHODS.
        chosen: what the validation images have chosen, by name.
        at_edge: the learning rate is at an end of its grid.
        validation_accuracy: by which it was chosen; None where that was not possible.
        accuracy: of the test images, and `predicted` the number of the class of each, in the order of the listing.
    """

    share: float
    draw: int
    seed: int
    labels: int
    method: Method
    chosen: Mapping[str, float | str]
    at_edge: bool
    validation_accuracy: float | None
    accuracy: float
    predicted: tuple[int, ...]


def row_path(folder: Path, cell: Cell, method: Method) -> Path:
    """Return the file of a row in the folder of a sweep; the row is finished where it exists."""
    return folder / cell.name / f"{method}.json"


def write_row(path: Path, row: Row) -> None:
    """Write a row whole or not at all. Raises OSError where it cannot be written."""
    write_json(path, asdict(row))


def read_rows(folder: Path, test: Listing) -> list[Row]:
    """Return all finished rows of a sweep, smallest share first, then by draw and method.

    Raises:
        UserError: A file is not a row of these test images.
    """
    rows = [
        _read_row(path, len(test))
        for method in get_args(Method)
        for path in folder.glob(f"share_*/draw_*/{method}.json")
    ]
    order = get_args(Method)
    return sorted(rows, key=lambda row: (row.share, row.draw, order.index(row.method)))


def _read_row(path: Path, images: int) -> Row:
    try:
        values = read_json(path, MOST_BYTES)
        row = Row(**{each.name: values[each.name] for each in fields(Row)})
        if len(row.predicted) != images or row.method not in get_args(Method):
            raise ValueError("another number of images")
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path}: not a row of this sweep; delete the file, and it is computed again") from None
    return row


@dataclass(frozen=True)
class Trained:
    """The result of one training of a grid, from the summary of its run.

    Attributes:
        accuracy, loss: on the validation images, after the best epoch.
        epoch: the best one.
    """

    setting: Setting
    accuracy: float
    loss: float
    epoch: int


def read_training(run: Path, setting: Setting) -> Trained | None:
    """Return the result of a finished training; None where it is not finished, or values were not finite."""
    try:
        summary = read_json(run / SUMMARY)
        found = [summary[name] for name in ("validation_accuracy", "validation_loss", "best_epoch")]
        return Trained(setting, float(found[0]), float(found[1]), int(found[2]))
    except (ValueError, KeyError, TypeError):
        return None


def choose(trained: Sequence[Trained]) -> Trained:
    """Return the training of the highest accuracy on validation images; of equal ones, that of the lowest loss."""
    return max(trained, key=lambda each: (each.accuracy, -each.loss))


def at_edge(chosen: Setting, grid: Sequence[Setting]) -> bool:
    """Return whether the chosen learning rate is the smallest or the largest of at least three that were tried."""
    tried = sorted({each.learning_rate for each in grid})
    return len(tried) > 2 and chosen.learning_rate in (tried[0], tried[-1])


def read_predictions(folder: Path, test: Listing) -> np.ndarray:
    """Return the number of the predicted class of each test image, int64, from the table that `classify` writes.

    Raises:
        UserError: The table is missing, or is not one of these images.
    """
    path = folder / PREDICTIONS_TABLE
    numbers = {name: number for number, name in enumerate(test.classes)}
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            predicted = {line["image"]: numbers[line["class"]] for line in csv.DictReader(file)}
        return np.array([predicted[name] for name in test.paths], np.int64)
    except (OSError, KeyError, csv.Error):
        raise UserError(f"{path}: not the predictions of the images of {test.root}; delete {folder.parent}") from None


def as_table(rows: Sequence[Row]) -> list[list[Any]]:
    """Return a line for each row below a heading, for a CSV file."""
    names = list(dict.fromkeys(name for row in rows for name in row.chosen))
    head = ["share", "draw", "seed", "labels", "method", *names, "validation_accuracy", "test_accuracy", "test_images"]
    return [
        head,
        *(
            [
                row.share, row.draw, row.seed, row.labels, row.method, *(row.chosen.get(name, "") for name in names),
                "" if row.validation_accuracy is None else row.validation_accuracy, row.accuracy, len(row.predicted),
            ]
            for row in rows
        ),
    ]  # fmt: skip
