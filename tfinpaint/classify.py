"""Train a classifier of images in class folders, from a pretrained encoder or from scratch.

usage: horovodrun -np 2 python -m tfinpaint.classify --config configs/demo/classify.yaml
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tfinpaint.cli import command as cli
from tfinpaint.cli.command import parse_options, run_command
from tfinpaint.distributed import world as dist
from tfinpaint.errors import UserError
from tfinpaint.runs.elastic import run_elastic
from tfinpaint.system.paths import display_path

if TYPE_CHECKING:
    from pathlib import Path

    from tfinpaint.batch import Batch
    from tfinpaint.report.confusion import Confusion
    from tfinpaint.report.html import Section
    from tfinpaint.report.metrics_log import MetricsLog
    from tfinpaint.runs.data import DataSet
    from tfinpaint.runs.run import Run
    from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)


def classify(options: cli.Options, world: dist.World) -> None:
    """Train and test a classifier as the configuration says; every rank calls this."""
    from tfinpaint.runs import run as runs

    with runs.open_run(
        options.config, world, "classifier", resume=options.resume, overwrite=options.overwrite,
        allowed_changes=options.allowed_changes,
    ) as run:  # fmt: skip
        _classify(run)


def _classify(run: Run) -> None:
    from tfinpaint.checkpoint.model import build_model
    from tfinpaint.models import losses, trainable
    from tfinpaint.runs import build, initial_weights, resume
    from tfinpaint.runs import data as dataset
    from tfinpaint.runs.build import describe_model
    from tfinpaint.runs.copies import warn_of_copies
    from tfinpaint.runs.predictions import write_predictions
    from tfinpaint.runs.session import evaluate_run, train_run
    from tfinpaint.train import batchnorm
    from tfinpaint.train.optimizers import build_optimizer

    config, data, world = run.config, run.config.data, run.world
    training, held_out = open_images(run)
    warn_of_copies(run, training, held_out)
    known = training or held_out
    assert known is not None  # the configuration was checked
    classes = known.images.listing.classes
    steps = dataset.steps_per_epoch(run, training) if training else 0
    resume.check_same_run(run, steps, training, classes)
    model = build_model(describe_model(run, steps=steps, classes=classes), run.network, run.network_name)
    if training:
        trainable.set_trainable(model, config.model.trainable)
        if config.distributed.sync_batchnorm:
            batchnorm.synchronise_batchnorm(model, world)
    if config.checkpoints.load and not run.resumed:
        initial_weights.load_by_name(run, config.checkpoints.load, model, classes=classes, whole=training is None)

    scored = held_out.evaluation_batches() if held_out and held_out.has_targets else None
    optimizer = None
    if training:
        optimizer = build_optimizer(config.optimizer, steps, config.num_epochs, run.lr_scaling)
    trainer = build.make_trainer(run, model, optimizer, {"accuracy": losses.accuracy}, scored=scored is not None)

    def draw(metrics: MetricsLog) -> None:
        _draw_curves(run, metrics)

    if training:
        metrics = train_run(run, trainer, training, scored, steps=steps, classes=classes, draw=draw)
    else:
        metrics = evaluate_run(run, trainer, scored, draw=draw)
    confusion = count_confusion(trainer, scored, classes) if scored is not None else None
    if held_out and data.test_output_path:
        write_predictions(run, trainer, held_out, classes)
    if world.is_rank0:
        _report(run, trainer, metrics, confusion, len(training) if training else 0)


def open_images(run: Run) -> tuple[DataSet | None, DataSet | None]:
    """(training images, held-out images) of the configuration, with the same classes in the same order."""
    from tfinpaint.data.listing import listing as sources
    from tfinpaint.data.tasks import classification_task
    from tfinpaint.runs import data as dataset
    from tfinpaint.runs import initial_weights

    config, data = run.config, run.config.data
    training = held_out = None
    classes: Sequence[str] | None = None if data.input_path else initial_weights.trained_classes(run)
    if data.input_path:
        listing = sources.list_class_folders(data.input_path, tag=data.training_tag)
        classes = listing.classes
        listing = sources.take_fraction(listing, data.label_fraction, config.seed)
        task = classification_task(config, labels=True, augment=True)
        training = dataset.open_data(run, task, listing, training=True)
    if data.test_input_path:
        labels = bool(data.testing_tag) or sources.has_class_folders(data.test_input_path)
        if labels:
            listing = sources.list_class_folders(data.test_input_path, classes, tag=data.testing_tag)
        elif not classes:
            raise UserError(f"{data.test_input_path}: no class folders, and checkpoints.load does not name the classes")
        else:
            listing = replace(sources.list_images(data.test_input_path, single=True), classes=tuple(classes))
            log.info(f"{display_path(data.test_input_path)}: no class folders, hence predictions only")
        task = classification_task(config, labels=labels, augment=False)
        held_out = dataset.open_data(run, task, listing, training=False)
    return training, held_out


def count_confusion(trainer: Trainer, batches: Iterable[Batch], classes: Sequence[str]) -> Confusion:
    """Count the images of all ranks by true and predicted class."""
    import numpy as np

    from tfinpaint.report.confusion import Confusion

    own = []

    def count(batch: Batch, outputs: Any) -> None:
        predicted = outputs.numpy().argmax(axis=1)
        own.append(np.column_stack([batch["targets"].numpy(), predicted, np.ones_like(predicted)]))

    trainer.evaluate(batches, on_batch=count)
    shares = trainer.world.all_gather(Confusion.of(classes, own).pairs.tolist())
    return Confusion.of(classes, [np.reshape(share, (-1, 3)) for share in shares])


def _draw_curves(run: Run, metrics: MetricsLog) -> None:
    from tfinpaint.layout import FIGURES
    from tfinpaint.report.figures import attempt_figure, draw_curve

    if not run.config.data.input_path:
        return  # an evaluation is a single point
    for name, label in (("loss", f"{run.config.loss.function} loss"), ("accuracy", "accuracy")):
        path = run.folder / FIGURES / f"{name}.png"
        with attempt_figure(path):
            draw_curve(metrics.records, name, label, path)


def _report(
    run: Run,
    trainer: Trainer,
    metrics: MetricsLog,
    confusion: Confusion | None,
    labels: int,
) -> None:
    """Write the summary first, then the figures, then the report.

    Args:
        confusion: None where no labelled images were tested.
        labels: number of training images.
    """
    from tfinpaint.layout import FIGURES
    from tfinpaint.report.html import Section
    from tfinpaint.runs import initial_weights
    from tfinpaint.runs import run as runs

    folder = run.folder / FIGURES
    last = {record["phase"]: record for record in metrics.records}
    final: dict[str, Any] = {}
    if "train" in last:
        final = {"train_loss": last["train"]["loss"], "train_accuracy": last["train"]["accuracy"]}
        final |= {"label_fraction": run.config.data.label_fraction, "labels": labels}
        final["from_scratch"] = run.config.checkpoints.load is None
    if confusion:
        final = {"test_accuracy": confusion.accuracy, "test_loss": last["test"]["loss"], **final}
        final["test_images"] = confusion.images
    summary = runs.write_summary(run, trainer.model, metrics, final | {"loss_function": run.config.loss.function})
    sections = [
        Section("Curves", figures=[folder / "accuracy.png", folder / "loss.png"]),
        *(_confusion_sections(confusion, folder) if confusion else []),
        Section("Transfer", text=initial_weights.origin_of(run)),
    ]
    runs.write_report(run, "Classification", summary, sections)


def _confusion_sections(confusion: Confusion, folder: Path) -> list[Section]:
    from tfinpaint.layout import CLASS_TABLE, CONFUSED_PAIRS, FIGURES
    from tfinpaint.report import confusion as confusions
    from tfinpaint.report.confusion import draw_confusion, write_confusion_tables
    from tfinpaint.report.figures import attempt_figure
    from tfinpaint.report.html import Section

    path = folder / "confusion.png"
    with attempt_figure(path):
        draw_confusion(confusion, path)
    write_confusion_tables(confusion, folder)
    shown = confusions.MOST_CLASSES_SHOWN
    some = f"The {shown} classes of the lowest accuracy. " if len(confusion.classes) > shown else ""
    pairs = confusions.pairs_table(confusion)
    return [
        Section("Confusion matrix of the test images", figures=[path]),
        Section(
            "Most confused classes", table=pairs, text=f"More of them: {FIGURES}/{CONFUSED_PAIRS}" if pairs else ""
        ),
        Section(
            "Classes",
            table=confusions.classes_table(confusion, shown),
            text=f"{some}All classes: {FIGURES}/{CLASS_TABLE}",
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        options = parse_options("classify", arguments)
        with cli.explaining_interrupts(options):
            run_elastic(classify, options)

    return run_command(command, needs_output=False)


if __name__ == "__main__":
    sys.exit(main())
