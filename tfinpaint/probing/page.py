"""Write the folder of a probe: JSON, figures, and the page that shows them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfinpaint.layout import PROBE_FIGURE, REPORT
from tfinpaint.probing.encoder import Source
from tfinpaint.probing.evaluation import FeatureSet, Row
from tfinpaint.probing.examples import draw_duplicates, draw_neighbours, read_pictures
from tfinpaint.probing.feature_map import draw_map
from tfinpaint.probing.report import accuracy_tables, write_results
from tfinpaint.probing.study import Study
from tfinpaint.probing.verdict import LAST_STAGE, stage_text
from tfinpaint.report.about import about, now
from tfinpaint.report.calibration import Calibration, draw_reliability
from tfinpaint.report.cells import Code, columns_alike, link_to
from tfinpaint.report.confused_images import confused_examples, draw_confused
from tfinpaint.report.confusion import (
    MOST_CLASSES_SHOWN,
    Confusion,
    classes_table,
    confusion_json,
    draw_confusion,
    pairs_table,
    verdict,
)
from tfinpaint.report.figures import attempt_figure
from tfinpaint.report.html import Section, write_page
from tfinpaint.report.quantities import legend, mark_highest
from tfinpaint.system.paths import display_path
from tfinpaint.system.wording import percent

FIGURE_NAMES = ("duplicates", "confusion", "confused", "reliability", "neighbours", "map")


def write_report(folder: Path, source: Source, study: Study, command: str) -> None:
    """Write everything about a probe into a folder.

    Args:
        command: that the probe was started with.

    Raises:
        OSError: The folder cannot be written.
    """
    own = next(place for place, row in enumerate(study.rows) if (row.name, row.stage) == (source.name, LAST_STAGE))
    row, labels = study.rows[own], study.images.test.labels
    predicted, confidence = row.probabilities.argmax(axis=1), row.probabilities.max(axis=1)
    confusion = confusion_of(study.images.train.classes, labels, predicted)
    calibration = Calibration.of(confidence, predicted == labels)
    share = percent(row.scores[-1].share)
    last_stage = {"share": row.scores[-1].share, **confusion_json(confusion), "calibration": calibration.as_json()}
    facts = {**study.facts, f"stage{LAST_STAGE}": last_stage}
    write_results(folder, study.rows, study.sentences, facts, study.images.distinct)
    files = {name: folder / f"{name}.png" for name in FIGURE_NAMES}
    _draw(files, source, study, study.sets[own], row, confusion, calibration)
    at = f"stage {LAST_STAGE}, {share} of the labels"
    sections = [
        Section("Result", sentences=study.sentences, figures=[folder / PROBE_FIGURE]),
        Section("Near-duplicates among the test images", figures=[files["duplicates"]]),
        *(_accuracies(title, table) for title, table in accuracy_tables(study.rows).items()),
        Section(
            f"Classes ({at})", sentences=verdict(confusion),
            table=columns_alike(classes_table(confusion, MOST_CLASSES_SHOWN)), figures=[files["confusion"]],
        ),
        Section("Pairs that are confused most often", table=_pairs(confusion), figures=[files["confused"]]),
        Section(f"Calibration ({at})", sentences=[calibration.sentence()], figures=[files["reliability"]]),
        Section(f"Nearest training images of some test images (stage {LAST_STAGE})", figures=[files["neighbours"]]),
        Section(f"Map of the test images (stage {LAST_STAGE}, main components)", figures=[files["map"]]),
        Section("How it was measured", sentences=_how(study), table=_choices(study.rows)),
        about(_sources(folder, source, study), finished=now(), command=command),
    ]  # fmt: skip
    write_page(folder / REPORT, f"How good are the features of {source.name}?", sections)


def _pairs(confusion: Confusion) -> list[list[Any]]:
    """Return the table of the pairs of classes that are confused most often; [] if there are none."""
    table = pairs_table(confusion)
    return columns_alike(table) if table else []


def _accuracies(title: str, table: Sequence[Sequence[Any]]) -> Section:
    """Return the section of a table of accuracies, with the best one at each share of the labels marked."""
    marked = mark_highest(table, first=2)
    note = f"Higher is better. {legend(marked)} After ± stands the deviation over the draws of the labels."
    return Section(title, table=marked, note=note)


def _sources(folder: Path, source: Source, study: Study) -> dict[str, Any]:
    """Return rows about encoder and images, name -> cell."""
    train, test = study.images.train, study.images.test
    return {
        "encoder": link_to(source.run / REPORT, folder, source.name) if source.run else source.name,
        "training images": Code(display_path(train.root)),
        "test images": study.facts["test_images_are"] if study.images.held_out else Code(display_path(test.root)),
    }


def _draw(
    files: dict[str, Path],
    source: Source,
    study: Study,
    features: FeatureSet,
    row: Row,
    confusion: Confusion,
    calibration: Calibration,
) -> None:
    """Draw the figures of one row of the results."""
    images, pictures = study.images, source.pictures
    labels, predicted = images.test.labels, row.probabilities.argmax(axis=1)
    for old in files.values():  # of an earlier probe into the same folder
        old.unlink(missing_ok=True)
    if images.copies:
        with attempt_figure(files["duplicates"]):
            draw_duplicates(images, pictures, files["duplicates"])
    with attempt_figure(files["confusion"]):
        draw_confusion(confusion, files["confusion"])
    with attempt_figure(files["reliability"]):
        draw_reliability(calibration, files["reliability"])
    with attempt_figure(files["map"]):
        draw_map(features.train, features.test, labels, images.train.classes, files["map"])
    with attempt_figure(files["neighbours"]):
        draw_neighbours(images, features, pictures, files["neighbours"])
    with attempt_figure(files["confused"]):
        confidence = row.probabilities.max(axis=1)
        examples = confused_examples(confusion, np.arange(len(labels)), labels, predicted, confidence)
        draw_confused(
            confusion, examples, lambda indices: read_pictures(images.test, indices, pictures), files["confused"]
        )


def confusion_of(classes: Sequence[str], labels: np.ndarray, predicted: np.ndarray) -> Confusion:
    """Return the confusion of test images, int [images] each."""
    return Confusion.of(classes, [np.column_stack([labels, predicted, np.ones(len(labels), np.int64)])])


def _choices(rows: Sequence[Row]) -> list[list[Any]]:
    """Return what was chosen by cross-validation: C at each share, and which random encoder."""
    heads = [f"C at {percent(score.share)}" for score in rows[0].scores]
    return [
        ["features", "depth", "numbers per image", *heads, "chosen encoder"],
        *(
            [
                row.name,
                stage_text(row.stage),
                row.size,
                *(", ".join(f"{each:.3g}" for each in score.strengths) for score in row.scores),
                row.detail,
            ]
            for row in rows
        ),
    ]


def _how(study: Study) -> list[str]:
    images = study.images
    return [
        f"{len(images.train):,} training and {len(images.test):,} test images in {len(images.train.classes)} classes; "
        f"the test images are {study.facts['test_images_are']}.",
        "Features are averaged over all positions. Logistic regression sees them standardised on the labelled images; "
        "its C, and which of the random encoders is compared, are chosen by cross-validation on training images. "
        "Test images serve only to measure each row.",
    ]
