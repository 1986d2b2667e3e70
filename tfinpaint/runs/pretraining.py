"""What only pretraining needs: its images with their targets, and its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras

from tfinpaint.checkpoint.find import PROBED
from tfinpaint.data.listing.pairing import list_pairs
from tfinpaint.data.tasks import pretraining_task
from tfinpaint.distributed.world import World
from tfinpaint.layout import FIGURES, PROBE_FIGURE
from tfinpaint.report.metrics_log import SEGMENTATION, MetricsLog
from tfinpaint.report.pretraining_page import pretraining_sections
from tfinpaint.runs.baseline_scores import BaselineScores, baseline_figures
from tfinpaint.runs.build import check_output_shape
from tfinpaint.runs.data import DataSet, open_data
from tfinpaint.runs.pictures import CURVES, VIEW_CURVES
from tfinpaint.runs.run import Run
from tfinpaint.runs.session import Session
from tfinpaint.runs.summary import write_report, write_summary


def open_pretraining_images(
    run: Run, world: World, folder: Path, model: keras.Model
) -> tuple[DataSet | None, DataSet | None]:
    """Return the training images and the held-out images of the configuration, each None where it names none.

    Raises:
        UserError: the images cannot be used, or the model makes images of another shape than the targets.
    """
    config, data, channels = run.config, run.config.data, model.output_shape[-1]
    classes = channels if data.target_is_mask and channels > 1 else None

    def open_side(inputs: Path | None, targets: Path | None, training: bool) -> DataSet | None:
        if inputs is None:
            return None
        listing, partners = list_pairs(inputs, targets, has_mask=config.mask is not None, single=not training)
        task = pretraining_task(config, separate=partners is not None, augment=training, classes=classes)
        if task.has_targets:
            check_output_shape(run, model)
        return open_data(run, world, folder, task, listing, partners, training=training)

    return (
        open_side(data.input_path, data.target_path, True),
        open_side(data.test_input_path, data.test_target_path, False),
    )


def _curves() -> list[str]:
    """Return the names of all figures of curves that a run may have, in the order of the report."""
    loss, *others = (f"{name}.png" for name in ("loss", *VIEW_CURVES, *SEGMENTATION, *CURVES))
    return [loss, PROBE_FIGURE, *others]


def report_pretraining(
    session: Session,
    metrics: MetricsLog,
    baselines: BaselineScores | None,
    probed: Mapping[str, float] | None = None,
) -> None:
    """Write summary and report of a pretraining run. Rank 0 calls this.

    Args:
        probed: accuracies of the probe on a random encoder, by metric; None without a probe.
    """
    config, folder = session.run.config, session.folder
    last = {record["phase"]: record for record in metrics.records}
    names = {"train": "pretrain_loss" if config.mask else "train_loss", "test": "test_loss"}
    results = {name: last[phase]["loss"] for phase, name in names.items() if phase in last}
    if baselines and "test" in last:
        results |= baseline_figures(last["test"], baselines)
    if config.data.target_is_mask and "test" in last:
        results |= {"test_pixel_accuracy": last["test"]["accuracy"], "test_dice": last["test"]["dice"]}
    for name, images in (("training_images", session.training), ("test_images", session.held_out)):
        if images:
            results[name] = len(images)
    if probed is not None:
        results["random_probe_accuracy"] = probed[PROBED]
    results["loss_function"] = config.loss.function
    summary = write_summary(session.run, folder, session.trainer.model, metrics, results)
    title = "Pretraining by inpainting" if config.mask else "Image to image"
    sections = pretraining_sections(folder.path / FIGURES, summary, _curves())
    write_report(session.run, folder, title, summary, sections)
