"""The sections of a classifier's page: sentences, test images right and wrong, tables, curves."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tfinpaint.layout import (
    CLASS_TABLE,
    COMPARISON,
    CONFUSED_PAIRS,
    FIGURES,
    IMAGE_RESULTS,
    PREDICTIONS_TABLE,
    PROJECT,
)
from tfinpaint.report.calibration import Calibration
from tfinpaint.report.cells import Link
from tfinpaint.report.confusion import (
    MOST_CLASSES_SHOWN,
    MOST_PAIRS_SHOWN,
    Confusion,
    classes_table,
    pairs_table,
    verdict,
)
from tfinpaint.report.html import Section
from tfinpaint.report.sample_images import SAMPLE_SIZE
from tfinpaint.report.verdict import few_images_warning

CURVES = ("accuracy", "loss")
SAMPLE, MATRIX, CONFUSED, RELIABILITY = "test_images.png", "confusion.png", "confused.png", "reliability.png"
MATRIX_LEGEND = (
    "A row is a true class, a column a predicted one. Numbers count images; the colour is the share of the row, so "
    "that a single image makes a dark cell where a class has only that one."
)
COMPARED = Link("Comparison of all runs, which tfinpaint run writes at its end", f"../{COMPARISON}")
UNDEFINED = "-"
MOST_PREDICTIONS = 20  # rows of the table of predictions


def classifier_sections(
    figures: Path,
    summary: Mapping[str, Any],
    confusion: Confusion | None,
    calibration: Calibration | None,
    transferred: str,
    predictions: Path | None = None,
) -> list[Section]:
    """Return the sections, the result first.

    Args:
        figures: folder of the figures.
        summary: of the run, as in summary.json.
        confusion, calibration: of the test images; None where none are labelled.
        transferred: what is reported of the weights that the run began with.
        predictions: folder of the predictions; None for none.
    """
    project = figures.parent.parent
    links = [COMPARED] if (project / PROJECT).is_file() and "from_scratch" in summary else []
    start = _start(summary, compared=bool(links))
    result = [*(verdict(confusion) if confusion else []), *few_images_warning(summary), *start]
    if confusion is None:
        result.append(_untested(summary))
    tested = _tested(figures, confusion, calibration) if confusion and calibration else []
    return [
        Section("Result", sentences=result, links=links),
        *tested,
        *(_predictions(predictions) if predictions and not confusion else []),
        Section("Curves", figures=[figures / f"{name}.png" for name in CURVES]),
        Section("Weights at the beginning", text=transferred),
    ]


def _untested(summary: Mapping[str, Any]) -> str:
    """Return a sentence about the accuracy where no test images are labelled."""
    images, accuracy = summary.get("validation_images"), summary.get("validation_accuracy")
    if not images or accuracy is None:
        return "There are no labelled test images, so the accuracy on new images is not known."
    return (
        f"There are no labelled test images. The accuracy on {images:,} validation images is {accuracy:.3f}; it may be "
        "lower on new images, because the validation images have chosen the best epoch."
    )


def _start(summary: Mapping[str, Any], *, compared: bool) -> list[str]:
    """Return a sentence about the weights that the training began with; none for an evaluation.

    Args:
        compared: whether the page has a link to a comparison.
    """
    if "from_scratch" not in summary:
        return []
    scratch = summary["from_scratch"]
    began = (
        "The classifier was trained from scratch, without a pretrained encoder."
        if scratch
        else "The classifier began from a pretrained encoder."
    )
    if compared:
        return [f"{began} Whether pretraining helps is shown by the comparison of both ways:"]
    other = "one that began from a pretrained encoder" if scratch else "one that was trained from scratch"
    how = "" if scratch else " (--set checkpoints.load=null)"
    return [
        f"{began} To learn whether pretraining helps, compare it with {other}{how}: tfinpaint compare RUN OTHER_RUN."
    ]


def _tested(figures: Path, confusion: Confusion, calibration: Calibration) -> list[Section]:
    pairs, more = pairs_table(confusion), len(confusion.confused_pairs(MOST_PAIRS_SHOWN + 1)) > MOST_PAIRS_SHOWN
    some = f"The {MOST_CLASSES_SHOWN} classes of the lowest recall. "
    some = some if len(confusion.classes) > MOST_CLASSES_SHOWN else ""
    which = f"{some}{_undefined(confusion)}Higher recall, precision and F1 are better."
    return [
        Section(
            "Some test images", figures=[figures / SAMPLE],
            sentences=[_sample_text(confusion)] if (figures / SAMPLE).exists() else [],
        ),
        Section(
            "Test images that are classified wrongly", figures=[figures / CONFUSED], table=_percent(pairs),
            note=f"{'More' if more else 'The'} pairs are in {FIGURES}/{CONFUSED_PAIRS}, and what every test image is "
            f"predicted as in {FIGURES}/{IMAGE_RESULTS}." if pairs else "",
        ),
        Section("Confusion matrix of the test images", figures=[figures / MATRIX], sentences=[MATRIX_LEGEND]),
        Section(
            "Classes", table=_written_scores(classes_table(confusion, MOST_CLASSES_SHOWN)),
            note=f"{which} All classes are in {FIGURES}/{CLASS_TABLE}.",
        ),
        Section(
            "Calibration", sentences=[calibration.sentence()], figures=[figures / RELIABILITY], note=calibration.note(),
        ),
    ]  # fmt: skip


def _written_scores(table: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return the table of the classes with scores of equal length, and a dash where one is not defined."""
    head, *rows = table
    scores = [[f"{cell:.3f}" if isinstance(cell, float) else UNDEFINED for cell in row[4:]] for row in rows]
    return [list(head), *([*row[:4], *each] for row, each in zip(rows, scores, strict=True))]


def _undefined(confusion: Confusion) -> str:
    """Return what a dash in the table of the classes means; "" where there is none."""
    if not np.isnan(confusion.scores()).any():
        return ""
    return f"{UNDEFINED}: the precision of a class that is never predicted, and the recall of one without test images. "


def _percent(table: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return the table of confused pairs with the share in percent."""
    return [list(row) if not place else [*row[:-1], f"{100 * row[-1]:.0f} %"] for place, row in enumerate(table)]


def _sample_text(confusion: Confusion) -> str:
    """Return how the images of the sample were chosen, as `spread_over_classes` does it, and what stands below them."""
    classes = int((confusion.by_class()[0] > 0).sum())
    chosen = f"one from each of the first {SAMPLE_SIZE} classes" if classes > SAMPLE_SIZE else "in turn from each class"
    return (
        f"They were chosen at random, {chosen}. Below each image are the predicted class and its probability; where "
        "the prediction is wrong, the true class too."
    )


def _predictions(folder: Path) -> list[Section]:
    """Return a section with the first predictions of unlabelled images; none if they cannot be read."""
    path = folder / PREDICTIONS_TABLE
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows: Sequence[Sequence[str]] = list(islice(csv.reader(file), MOST_PREDICTIONS + 1))
    except OSError:
        return []
    return [Section("Predictions", table=rows, note=f"All predictions are in {path.name} of the folder {folder.name}.")]
