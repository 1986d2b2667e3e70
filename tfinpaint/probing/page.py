"""Write the folder of a probe: JSON, figures, and the page that shows them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfinpaint.data.listing.listing import Listing
from tfinpaint.layout import PROBE_FIGURE, REPORT
from tfinpaint.probing.encoder import Source
from tfinpaint.probing.evaluation import FeatureSet, Row
from tfinpaint.probing.features import input_batches
from tfinpaint.probing.pictures import (
    MOST_PICTURES,
    MOST_ROWS,
    PictureRow,
    draw_map,
    draw_pictures,
    draw_reliability,
    nearest_images,
    spread_over_classes,
)
from tfinpaint.probing.report import accuracy_tables, write_results
from tfinpaint.probing.study import Study
from tfinpaint.probing.verdict import LAST_STAGE, share_text, stage_text
from tfinpaint.report.confusion import Confusion, draw_confusion, pairs_table
from tfinpaint.report.figures import attempt_figure
from tfinpaint.report.html import Section, write_page

MOST_CLASSES = 100  # rows of the table of classes


def write_report(folder: Path, source: Source, study: Study) -> None:
    """Write everything about a probe into a folder.

    Raises:
        OSError: The folder cannot be written.
    """
    write_results(folder, study.rows, study.sentences, study.facts)
    own = next(place for place, row in enumerate(study.rows) if (row.name, row.stage) == (source.name, LAST_STAGE))
    row, features = study.rows[own], study.sets[own]
    classes, labels = study.images.train.classes, study.images.test.labels
    confusion = confusion_of(classes, labels, row.probabilities.argmax(axis=1))
    files = {name: folder / f"{name}.png" for name in ("confusion", "confused", "reliability", "neighbours", "map")}
    with attempt_figure(files["confusion"]):
        draw_confusion(confusion, files["confusion"])
    with attempt_figure(files["reliability"]):
        draw_reliability(row.probabilities, labels, files["reliability"])
    with attempt_figure(files["map"]):
        draw_map(features.train, features.test, labels, classes, files["map"])
    with attempt_figure(files["neighbours"]):
        draw_pictures(_neighbour_rows(source, study, features), files["neighbours"])
    with attempt_figure(files["confused"]):
        if confused := _confused_rows(source, study, row, confusion):
            draw_pictures(confused, files["confused"])
    at = f"stage {LAST_STAGE} of {source.name}, {share_text(row.scores[-1].share)} of the labels"
    sections = [
        Section("Result", text="\n".join(study.sentences), figures=[folder / PROBE_FIGURE]),
        *(Section(title, table=table) for title, table in accuracy_tables(study.rows).items()),
        Section(f"Classes ({at})", table=class_table(confusion), figures=[files["confusion"]]),
        Section("Pairs that are confused most often", table=pairs_table(confusion), figures=[files["confused"]]),
        Section(f"Calibration ({at})", figures=[files["reliability"]]),
        Section(f"Nearest training images of some test images (stage {LAST_STAGE})", figures=[files["neighbours"]]),
        Section(f"Map of the test images (stage {LAST_STAGE}, main components)", figures=[files["map"]]),
        Section("How it was measured", table=_choices(study.rows), text=_facts_text(study)),
    ]
    write_page(folder / REPORT, f"Probe of {source.name}", sections)


def confusion_of(classes: Sequence[str], labels: np.ndarray, predicted: np.ndarray) -> Confusion:
    """Return the confusion of test images, int [images] each."""
    return Confusion.of(classes, [np.column_stack([labels, predicted, np.ones(len(labels), np.int64)])])


def class_table(confusion: Confusion) -> list[list[Any]]:
    """Return recall and precision of each class below a heading row; of many classes, those of the lowest recall."""
    images, right = confusion.by_class()
    predicted = np.zeros(len(images), np.int64)
    np.add.at(predicted, confusion.pairs[:, 1], confusion.pairs[:, 2])
    order = np.arange(len(images))
    if len(order) > MOST_CLASSES:
        order = np.lexsort((order, right / np.maximum(images, 1)))[:MOST_CLASSES]
    rows = [
        [
            confusion.classes[i],
            int(images[i]),
            float(right[i] / images[i]) if images[i] else "",
            float(right[i] / predicted[i]) if predicted[i] else "",
        ]
        for i in order.tolist()
    ]
    return [["class", "test images", "recall", "precision"], *rows]


def _neighbour_rows(source: Source, study: Study, features: FeatureSet) -> list[PictureRow]:
    train, test, classes = study.images.train, study.images.test, study.images.train.classes
    chosen = spread_over_classes(test.labels, MOST_ROWS)
    nearest = nearest_images(features.train, features.test, chosen)
    rows = []
    for index, near in zip(chosen, nearest.tolist(), strict=True):
        own = int(test.labels[index])
        names = [classes[train.labels[place]] for place in near]
        images = np.concatenate([_pictures(test, [index], source), _pictures(train, near, source)])
        wrong = [False, *(int(train.labels[place]) != own for place in near)]
        rows.append(PictureRow("", images, [f"test: {classes[own]}"[:22], *(name[:22] for name in names)], wrong))
    return rows


def _confused_rows(source: Source, study: Study, row: Row, confusion: Confusion) -> list[PictureRow]:
    test, classes = study.images.test, list(study.images.train.classes)
    predicted = row.probabilities.argmax(axis=1)
    rows = []
    for true, wrong, count, _ in pairs_table(confusion, MOST_ROWS)[1:]:
        own = np.flatnonzero((test.labels == classes.index(true)) & (predicted == classes.index(wrong)))
        confidence = row.probabilities[own, classes.index(wrong)]
        order = np.argsort(-confidence, kind="stable")[: MOST_PICTURES + 1]
        captions = [f"probability {confidence[place]:.2f}" for place in order]
        images = _pictures(test, own[order].tolist(), source)
        rows.append(PictureRow(f"{true}, predicted as {wrong}: {count}", images, captions, [False] * len(order)))
    return rows


def _pictures(listing: Listing, indices: Sequence[int], source: Source) -> np.ndarray:
    """Return some images as the encoder sees them, before its values are changed."""
    return np.concatenate([batch.numpy() for batch in input_batches(listing.select(indices), source.pictures)])


def _choices(rows: Sequence[Row]) -> list[list[Any]]:
    """Return what was chosen by cross-validation: C at each share, and which random encoder."""
    heads = [f"C at {share_text(score.share)}" for score in rows[0].scores]
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


def _facts_text(study: Study) -> str:
    images = study.images
    return (
        f"{len(images.train)} training and {len(images.test)} test images in {len(images.train.classes)} classes; the "
        f"test images are {study.facts['test_images_are']}.\n"
        "Features are averaged over all positions. Logistic regression sees them standardised on the labelled images; "
        "its C, and which of the random encoders is compared, are chosen by cross-validation on training images. "
        "Test images serve only to measure each row."
    )
