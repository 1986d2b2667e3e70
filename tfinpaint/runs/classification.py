"""A run of classification as a whole, its images with their classes, its confusion matrix and its report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfinpaint.cli.options import Options
from tfinpaint.data.listing.listing import (
    has_class_folders,
    hold_out,
    list_class_folders,
    list_images,
    take_fraction,
)
from tfinpaint.data.tasks import classification_task
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.layout import FIGURES, IMAGE_RESULTS
from tfinpaint.models.losses import accuracy
from tfinpaint.report.calibration import draw_reliability
from tfinpaint.report.classifier_page import CONFUSED, CURVES, MATRIX, RELIABILITY, SAMPLE, classifier_sections
from tfinpaint.report.confused_images import draw_confused
from tfinpaint.report.confusion import confusion_json, draw_confusion, write_confusion_tables
from tfinpaint.report.figures import attempt_figure, draw_curve
from tfinpaint.report.image_results import write_image_results
from tfinpaint.report.intervals import accuracy_interval
from tfinpaint.report.metrics_log import MetricsLog
from tfinpaint.report.sample_images import draw_sample
from tfinpaint.report.verdict import few_training_images
from tfinpaint.runs.data import DataSet, open_data
from tfinpaint.runs.early_stopping import VALIDATION
from tfinpaint.runs.evaluation import Evaluation, evaluate_classifier
from tfinpaint.runs.initial_weights import trained_classes
from tfinpaint.runs.run import Run, open_run
from tfinpaint.runs.session import Session, begin_session, build_run_model, run_session
from tfinpaint.runs.summary import write_report, write_summary
from tfinpaint.system.paths import display_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassifiedImages:
    """The images of a classification, with the same classes in the same order; None where there are none.

    Attributes:
        validation: the part of the training images that is kept out to choose the best epoch.
        held_out: those that the configuration names for testing.
    """

    training: DataSet | None
    validation: DataSet | None
    held_out: DataSet | None


def run_classification(options: Options, world: World) -> tuple[str, ...]:
    """Train and test a classifier, or only test one, as the configuration says. Every rank calls this.

    Returns:
        The names of the classes, in the order of the model's outputs.

    Raises:
        UserError: images, weights or the run folder cannot be used.
        StoppedError: a rank was asked to stop; the run is saved.
    """
    with open_run(options, world, "classifier") as (run, folder):
        images = open_classified_images(run, world, folder.path)
        known = images.training or images.held_out
        assert known is not None  # the configuration was checked
        classes = known.images.listing.classes
        run = with_class_weights(run, images.training)
        model = build_run_model(run, world, classes)
        session = begin_session(
            run, folder, world, model, images.training, images.held_out,
            validation=images.validation, classes=classes, metrics={"accuracy": accuracy},
        )  # fmt: skip
        metrics = run_session(session, partial(draw_curves, session) if world.is_rank0 else None)
        evaluation = evaluate_classifier(session)
        if world.is_rank0:
            report_classification(session, metrics, evaluation)
    return classes


def open_classified_images(run: Run, world: World, folder: Path) -> ClassifiedImages:
    """Open the images of the configuration.

    Raises:
        UserError: the images cannot be used, or their classes are not known.
    """
    config, data = run.config, run.config.data
    training = validation = held_out = None
    classes: Sequence[str] | None = None
    if data.input_path:
        listing = list_class_folders(data.input_path, tag=data.training_tag)
        classes = listing.classes
        listing = take_fraction(listing, data.label_fraction, config.seed)
        if data.validation_fraction:
            listing, kept_out = hold_out(listing, data.validation_fraction, config.seed)
            task = classification_task(config, labels=True, augment=False)
            validation = open_data(run, world, folder, task, kept_out, training=False)
        task = classification_task(config, labels=True, augment=True)
        training = open_data(run, world, folder, task, listing, training=True)
    else:
        classes = trained_classes(config, world)
    if data.test_input_path:
        labels = bool(data.testing_tag) or has_class_folders(data.test_input_path)
        if labels:
            listing = list_class_folders(data.test_input_path, classes, tag=data.testing_tag)
        elif not classes:
            raise UserError(f"{data.test_input_path}: no class folders, and checkpoints.load does not name the classes")
        else:
            listing = replace(list_images(data.test_input_path, single=True), classes=tuple(classes))
            log.info(f"{display_path(data.test_input_path)}: no class folders, so only predictions are made")
        task = classification_task(config, labels=labels, augment=False)
        held_out = open_data(run, world, folder, task, listing, training=False)
    return ClassifiedImages(training, validation, held_out)


def with_class_weights(run: Run, training: DataSet | None) -> Run:
    """Return the run with the weights of `loss.weight: balanced`: n / (classes * n_class) for n training images.

    Each class then has the same total weight, as with scikit-learn's `class_weight="balanced"`; the mean weight of an
    image is 1.
    """
    if run.config.loss.weight != "balanced":
        return run
    if training is None:
        log.info("Without training images, loss.weight: balanced is unknown; the test loss has equal weights")
        return run
    listing = training.images.listing
    counts = np.bincount(listing.labels, minlength=len(listing.classes))
    weights = tuple(len(listing) / (len(counts) * count) if count else 0.0 for count in counts.tolist())
    low, high = (limit(range(len(weights)), key=weights.__getitem__) for limit in (min, max))
    log.info(
        f"Class weights from {weights[low]:.4g} ({listing.classes[low]}) to "
        f"{weights[high]:.4g} ({listing.classes[high]})"
    )
    return replace(run, class_weights=weights)


def draw_curves(session: Session, metrics: MetricsLog) -> None:
    """Draw the curves of loss and accuracy."""
    if not session.training:
        return  # an evaluation is a single point
    labels = {"accuracy": "accuracy", "loss": f"{session.run.config.loss.function} loss"}
    for name in CURVES:
        path = session.folder.path / FIGURES / f"{name}.png"
        with attempt_figure(path):
            draw_curve(metrics.records, name, labels[name], path)


def report_classification(session: Session, metrics: MetricsLog, evaluation: Evaluation | None) -> None:
    """Write summary, figures and report of a classification run, in this order. Rank 0 calls this.

    Args:
        evaluation: None where no labelled images were tested.
    """
    config, figures = session.run.config, session.folder.path / FIGURES
    last = {record["phase"]: record for record in metrics.records}
    results: dict[str, Any] = {}
    if "train" in last:
        results = {"train_loss": last["train"]["loss"], "train_accuracy": last["train"]["accuracy"]}
        labels = sum(len(images) for images in (session.training, session.validation) if images)
        results |= {"label_fraction": config.data.label_fraction, "labels": labels}
        if few := few_training_images(_count_by_class(session)):
            results["few_training_images"] = few
        results["from_scratch"] = config.checkpoints.load is None
    if session.validation:
        results |= {"validation_images": len(session.validation), **_best_validation(metrics)}
    if evaluation:
        tested = {"test_accuracy": evaluation.confusion.accuracy, "test_loss": last["test"]["loss"]}
        results = {**tested, **results, **_scores(evaluation)}
        names = evaluation.data.images.listing.paths
        # Before the summary, so that none stands beside the table of an earlier test.
        write_image_results(figures / IMAGE_RESULTS, names, session.classes, evaluation.predictions)
    results["loss_function"] = config.loss.function
    summary = write_summary(session.run, session.folder, session.trainer.model, metrics, results)
    confusion = calibration = None
    if evaluation:
        _draw_tested(evaluation, figures)
        confusion, calibration = evaluation.confusion, evaluation.calibration
    start, predictions = _describe_start(session), config.data.test_output_path
    sections = classifier_sections(figures, summary, confusion, calibration, start, predictions)
    write_report(session.run, session.folder, "Classifier", summary, sections)


def _count_by_class(session: Session) -> dict[str, int]:
    """Return the number of training images of each class, those that choose the best epoch included."""
    counts = np.zeros(len(session.classes), np.int64)
    for data in (session.training, session.validation):
        if data:
            counts += np.bincount(data.images.listing.labels, minlength=len(counts))
    return dict(zip(session.classes, counts.tolist(), strict=True))


def _scores(evaluation: Evaluation) -> dict[str, Any]:
    """Return the entries of the summary about the test images beside accuracy and loss."""
    confusion, calibration = evaluation.confusion, evaluation.calibration
    known = confusion.by_class()[0] > 0
    return {
        "test_images": confusion.images,
        "test_accuracy_interval": accuracy_interval(int(confusion.by_class()[1].sum()), confusion.images),
        "test_mean_recall": float(confusion.scores()[known, 1].mean()),
        "test_mean_f1": float(confusion.scores()[known, 2].mean()),
        "test_expected_calibration_error": calibration.error,
        "test_calibration": calibration.as_json(),
        **{f"test_{name}": rows for name, rows in confusion_json(confusion).items()},
    }


def _best_validation(metrics: MetricsLog) -> dict[str, Any]:
    """Return loss and accuracy on the validation images after the best epoch, for the summary."""
    records = [record for record in metrics.records if record["phase"] == VALIDATION]
    best = min(records, key=lambda record: record["loss"])
    return {f"validation_{name}": best[name] for name in ("loss", "accuracy")}


def _describe_start(session: Session) -> str:
    """Tell where the weights came from that the run began with."""
    if session.transferred:
        return "\n".join(session.transferred)
    load = session.run.config.checkpoints.load
    return f"From {load}, when the run began" if load else "From random weights (checkpoints.load is not set)"


def _draw_tested(evaluation: Evaluation, folder: Path) -> None:
    """Draw the figures and write the tables about the test images."""
    confusion, read = evaluation.confusion, evaluation.read
    draw = {
        SAMPLE: lambda path: draw_sample(confusion.classes, evaluation.sample, read, path),
        MATRIX: lambda path: draw_confusion(confusion, path),
        CONFUSED: lambda path: draw_confused(confusion, evaluation.examples, read, path),
        RELIABILITY: lambda path: draw_reliability(evaluation.calibration, path),
    }
    for name, draw_figure in draw.items():
        (folder / name).unlink(missing_ok=True)  # of an earlier evaluation, such as errors that there are none of now
        with attempt_figure(folder / name):
            draw_figure(folder / name)
    write_confusion_tables(confusion, folder)
