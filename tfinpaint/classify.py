"""Train a classifier of images in class folders, from a pretrained encoder or from scratch.

usage: horovodrun -np 2 python -m tfinpaint.classify --config configs/demo/classify.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tfinpaint import cli, dist

if TYPE_CHECKING:
    import numpy as np
    from tensorflow.data import Dataset

    from tfinpaint.data.pipeline import Batch
    from tfinpaint.report.metrics import MetricsLog
    from tfinpaint.train.loop import Trainer
    from tfinpaint.train.run import Run


def classify(options: cli.Options, world: dist.World) -> None:
    """Train and test a classifier as the configuration says; every rank calls this."""
    from tfinpaint.data import pipeline, sources
    from tfinpaint.models import losses, trainable
    from tfinpaint.train import run as runs
    from tfinpaint.train.callbacks import train
    from tfinpaint.train.optimizers import build_optimizer

    config, data = options.config, options.config.data
    assert data.input_path is not None  # the configuration was checked
    run = runs.open_run(config, world, "classifier", resume=options.resume, overwrite=options.overwrite)

    listing = sources.take_fraction(sources.list_class_folders(data.input_path), data.label_fraction, config.seed)
    images = runs.open_images(run, listing, data.batch_size)
    steps = runs.steps_per_epoch(run, images)

    def batches_from(step: int) -> Dataset:
        prepare = pipeline.classification(seed=config.seed, flip_probability=config.flip_probability)
        return pipeline.train_batches(
            images, batch_size=data.batch_size, seed=config.seed, first_step=step, prepare=prepare
        )

    test_batches = None
    if data.test_input_path:
        test = runs.open_images(run, sources.list_class_folders(data.test_input_path, listing.classes), 1)
        test_batches = pipeline.evaluation_batches(
            test, batch_size=data.test_batch_size, prepare=pipeline.classification(seed=config.seed, flip_probability=0)
        )

    runs.check_same_run(run, steps, listing.classes)
    model = runs.build_model(runs.describe(run, steps=steps, classes=listing.classes))
    trainable.set_trainable(model, config.model.trainable)
    transferred = ["From random weights (checkpoints.load is not set)"]
    if config.checkpoints.load and not run.resumed:
        transferred = runs.load_by_name(run, config.checkpoints.load, model)
    optimizer = build_optimizer(config.optimizer, steps, config.num_epochs)
    trainer = runs.make_trainer(run, model, optimizer, losses.nll, {"accuracy": losses.accuracy})

    metrics = train(
        run,
        trainer,
        batches_from,
        test_batches,
        steps=steps,
        classes=listing.classes,
        draw=lambda metrics: _draw_curves(run, metrics),
    )
    matrix = confusion_matrix(trainer, test_batches, len(listing.classes)) if test_batches is not None else None
    if world.is_first:
        _report(run, trainer, metrics, listing.classes, matrix, transferred)


def confusion_matrix(trainer: Trainer, batches: Iterable[Batch], classes: int) -> np.ndarray:
    """Counts [true class, predicted class] over all ranks; their sum is the number of test images."""
    import numpy as np

    counts = np.zeros((classes, classes))

    def count(batch: Batch, outputs: Any) -> None:
        np.add.at(counts, (batch["targets"].numpy(), outputs.numpy().argmax(axis=1)), 1)

    trainer.evaluate(batches, on_batch=count)
    return trainer.world.sum_array(counts)


def _draw_curves(run: Run, metrics: MetricsLog) -> None:
    from tfinpaint.report import figures

    folder = run.folder / "figures"
    figures.curve(metrics.records, "loss", "NLL loss", folder / "loss.png")
    figures.curve(metrics.records, "accuracy", "accuracy", folder / "accuracy.png")


def _report(
    run: Run,
    trainer: Trainer,
    metrics: MetricsLog,
    classes: Sequence[str],
    matrix: np.ndarray | None,
    transferred: Sequence[str],
) -> None:
    from tfinpaint.report import figures
    from tfinpaint.report.page import Section
    from tfinpaint.train import run as runs

    folder = run.folder / "figures"
    last = {record["phase"]: record for record in metrics.records}
    final = {"train_loss": last["train"]["loss"], "train_accuracy": last["train"]["accuracy"]}
    if matrix is not None:
        final = {"test_accuracy": float(matrix.trace() / matrix.sum()), "test_loss": last["test"]["loss"], **final}
        final["test_images"] = int(matrix.sum())
        figures.confusion(matrix, classes, folder / "confusion.png")
    summary = runs.write_summary(run, trainer.model, metrics, final)
    sections = [
        Section("Curves", figures=[folder / "accuracy.png", folder / "loss.png"]),
        Section("Confusion matrix of the test images", figures=[folder / "confusion.png"]),
        Section("Transfer", text="\n".join(transferred)),
    ]
    runs.write_report(run, "Classification", summary, sections)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        options = cli.parse("classify", __doc__.splitlines()[0], arguments)
        classify(options, dist.start(**options.config.distributed.model_dump()))

    return cli.guard(command)


if __name__ == "__main__":
    sys.exit(main())
