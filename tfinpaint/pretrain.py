"""Pretrain an encoder without labels: erase a part of each image and learn to restore it.

Where `data.target_path` names images of their own, the network learns those instead: image to image.

usage: horovodrun -np 2 python -m tfinpaint.pretrain --config configs/demo/pretrain.yaml
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfinpaint.cli import command as cli
from tfinpaint.cli.command import parse_options, run_command
from tfinpaint.distributed import world as dist
from tfinpaint.runs.elastic import run_elastic

if TYPE_CHECKING:
    import keras

    from tfinpaint.report.metrics_log import MetricsLog
    from tfinpaint.runs.baseline_scores import BaselineScores
    from tfinpaint.runs.data import DataSet
    from tfinpaint.runs.run import Run
    from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)

SHOWN_IMAGES = 6


def pretrain(options: cli.Options, world: dist.World) -> None:
    """Pretrain as the configuration says; every rank calls this."""
    from tfinpaint.runs import run as runs

    with runs.open_run(
        options.config, world, "inpainter", resume=options.resume, overwrite=options.overwrite,
        allowed_changes=options.allowed_changes,
    ) as run:  # fmt: skip
        _pretrain(run)


def _pretrain(run: Run) -> None:
    from tfinpaint.checkpoint.model import build_model
    from tfinpaint.inpainting.metrics import measure_restoration
    from tfinpaint.models import losses, trainable
    from tfinpaint.runs import build, initial_weights, resume
    from tfinpaint.runs import data as dataset
    from tfinpaint.runs import pictures as restorations
    from tfinpaint.runs.baseline_scores import score_baselines
    from tfinpaint.runs.build import describe_model
    from tfinpaint.runs.copies import warn_of_copies
    from tfinpaint.runs.predictions import write_predictions
    from tfinpaint.runs.session import evaluate_run, train_run
    from tfinpaint.train import batchnorm
    from tfinpaint.train.optimizers import build_optimizer

    config, data, world = run.config, run.config.data, run.world
    model = build_model(describe_model(run, steps=0), run.network, run.network_name)
    training = held_out = None
    if data.input_path:
        trainable.set_trainable(model, config.model.trainable)
        if config.distributed.sync_batchnorm:
            batchnorm.synchronise_batchnorm(model, world)
        training = open_images(run, model, data.input_path, data.target_path, training=True)
    if data.test_input_path:
        held_out = open_images(run, model, data.test_input_path, data.test_target_path, training=False)
    warn_of_copies(run, training, held_out)
    if config.checkpoints.load and not run.resumed:
        initial_weights.load_by_name(run, config.checkpoints.load, model, whole=training is None)

    scored = held_out.evaluation_batches() if held_out and held_out.has_targets else None
    steps = dataset.steps_per_epoch(run, training) if training else 0
    resume.check_same_run(run, steps, training)
    optimizer = None
    if training:
        optimizer = build_optimizer(config.optimizer, steps, config.num_epochs, run.lr_scaling)
    measure = measure_restoration if config.measures_pixels else None
    scores = {"accuracy": losses.accuracy, "dice": losses.dice_coefficient} if data.target_is_mask else None
    trainer = build.make_trainer(run, model, optimizer, scores, measure, steps=steps, scored=scored is not None)
    if config.mask and not measure:
        log.info(f"Restorations are not measured: {config.unmeasured}")
    baselines = score_baselines(run, held_out) if held_out and measure else None

    shown = held_out or training
    assert shown is not None  # the configuration was checked
    title = "held-out images" if held_out else "training images"
    pictures = restorations.Pictures(run, trainer, shown.sample(SHOWN_IMAGES), title) if world.is_rank0 else None

    def draw(metrics: MetricsLog) -> None:
        assert pictures  # called on rank 0
        pictures.draw(metrics, baselines)

    if training:
        add_frame = pictures.add_frame if pictures else None
        metrics = train_run(run, trainer, training, scored, steps=steps, draw=draw, add_frame=add_frame)
    else:
        metrics = evaluate_run(run, trainer, scored, draw=draw)
    if held_out and data.test_output_path:
        write_predictions(run, trainer, held_out)
    if world.is_rank0:
        _report(run, trainer, metrics, baselines, len(held_out) if held_out else 0)


def open_images(run: Run, model: keras.Model, inputs: Path, targets: Path | None, *, training: bool) -> DataSet:
    """The images of one folder and what the model's outputs are compared with: parts of theirs, or their partners."""
    from tfinpaint.data.listing import listing as sources
    from tfinpaint.data.listing.pairing import pair_by_name
    from tfinpaint.data.tasks import image_to_image_task, inpainting_task
    from tfinpaint.runs import build
    from tfinpaint.runs import data as dataset

    config = run.config
    listing = sources.list_images(inputs, single=not training)
    channels = model.output_shape[-1]
    classes = channels if config.data.target_is_mask and channels > 1 else None
    if config.mask:
        separate = targets not in (None, inputs)
        task = inpainting_task(config, separate=separate, augment=training)
    else:
        separate = targets is not None
        task = image_to_image_task(config, targets=separate, augment=training, classes=classes)
    if separate or config.mask:
        build.check_output_shape(run, model)
    partners = pair_by_name(listing, targets) if separate and targets else None
    return dataset.open_data(run, task, listing, partners, training=training)


def _report(
    run: Run, trainer: Trainer, metrics: MetricsLog, baselines: BaselineScores | None, test_images: int
) -> None:
    from tfinpaint.layout import ANIMATION, FIGURES, RESTORATIONS
    from tfinpaint.report.html import Section
    from tfinpaint.report.metrics_log import SEGMENTATION
    from tfinpaint.report.verdict import restoration_verdict
    from tfinpaint.runs import pictures as restorations
    from tfinpaint.runs import run as runs
    from tfinpaint.runs.baseline_scores import baseline_figures, metrics_table

    last = {record["phase"]: record for record in metrics.records}
    inpaints = run.config.mask is not None
    names = {"train": "pretrain_loss" if inpaints else "train_loss", "test": "test_loss"}
    figures = {name: last[phase]["loss"] for phase, name in names.items() if phase in last}
    if baselines and "test" in last:
        figures |= baseline_figures(last["test"], baselines)
    if run.config.data.target_is_mask and "test" in last:
        figures |= {"test_pixel_accuracy": last["test"]["accuracy"], "test_dice": last["test"]["dice"]}
    if test_images:
        figures["test_images"] = test_images
    figures["loss_function"] = run.config.loss.function
    summary = runs.write_summary(run, trainer.model, metrics, figures)
    folder = run.folder / FIGURES
    sections = []
    if "measurements" in summary:
        table = metrics_table(summary["measurements"])
        note = (
            f"{restoration_verdict(summary)}\nTest images: {test_images} for the network, "
            f"{summary['baseline_images']} for the baselines."
        )
        sections.append(Section("Measurements", table=table, text=note))
    curves = [folder / f"{name}.png" for name in ("loss", *SEGMENTATION, *restorations.CURVES)]
    sections += [
        Section("Images", figures=[folder / f"{RESTORATIONS}.png", folder / f"{ANIMATION}.gif"]),
        Section("Curves", figures=curves),
    ]
    runs.write_report(run, "Pretraining by inpainting" if inpaints else "Image to image", summary, sections)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        options = parse_options("pretrain", arguments)
        with cli.explaining_interrupts(options):
            run_elastic(pretrain, options)

    return run_command(command, needs_output=False)


if __name__ == "__main__":
    sys.exit(main())
