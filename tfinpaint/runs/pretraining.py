"""A run of pretraining as a whole, its images with their targets, and its report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import keras

from tfinpaint.checkpoint.find import PROBED
from tfinpaint.cli.options import Options
from tfinpaint.data.listing.pairing import list_pairs
from tfinpaint.data.tasks import pretraining_task
from tfinpaint.distributed.world import World
from tfinpaint.inpainting.metrics import measure_restoration
from tfinpaint.layout import FIGURES, PROBE_FIGURE
from tfinpaint.models.losses import accuracy, dice_coefficient
from tfinpaint.report.metrics_log import SEGMENTATION, MetricsLog
from tfinpaint.report.parts_of_loss import RECONSTRUCTION
from tfinpaint.report.pretraining_page import pretraining_sections
from tfinpaint.runs.baseline_scores import BaselineScores, baseline_figures, score_baselines
from tfinpaint.runs.build import check_output_shape
from tfinpaint.runs.data import DataSet, open_data
from tfinpaint.runs.online_probe import open_online_probe
from tfinpaint.runs.pictures import CURVES, VIEW_CURVES, Pictures
from tfinpaint.runs.run import Run, open_run
from tfinpaint.runs.session import Session, begin_session, build_run_model, run_session
from tfinpaint.runs.summary import write_report, write_summary

log = logging.getLogger(__name__)

SHOWN_IMAGES = 6


def run_pretraining(options: Options, world: World) -> None:
    """Pretrain, or evaluate a pretrained network, as the configuration says. Every rank calls this.

    Raises:
        UserError: images, weights or the run folder cannot be used.
        StoppedError: a rank was asked to stop; the run is saved.
    """
    with open_run(options, world, "inpainter") as (run, folder):
        config = run.config
        model = build_run_model(run, world)
        training, held_out = open_pretraining_images(run, world, folder.path, model)
        session = begin_session(
            run, folder, world, model, training, held_out,
            metrics={"accuracy": accuracy, "dice": dice_coefficient} if config.data.target_is_mask else None,
            measure=measure_restoration if config.measures_pixels else None,
        )  # fmt: skip
        if config.mask and not config.measures_pixels:
            log.info(f"Image metrics are not computed: {config.unmeasured}")
        probe = open_online_probe(run, world, folder.path, model) if config.probe and run.trains else None
        probed = probe.random if probe else None
        baselines = score_baselines(config, world, held_out) if held_out and config.measures_pixels else None
        pictures = None
        if world.is_rank0:
            shown, title = (held_out, "test images") if held_out else (training, "training images")
            assert shown is not None  # the configuration was checked
            pictures = Pictures(
                config, folder.path, session.trainer, shown.sample(SHOWN_IMAGES), title, baselines, probed
            )
        metrics = run_session(
            session, pictures.draw if pictures else None, pictures.add_frame if pictures else None, probe
        )
        if world.is_rank0:
            report_pretraining(session, metrics, baselines, probed)


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
    first, loss, *others = (f"{name}.png" for name in (RECONSTRUCTION, "loss", *VIEW_CURVES, *SEGMENTATION, *CURVES))
    return [first, loss, PROBE_FIGURE, *others]


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
    if "test" in last and RECONSTRUCTION in last["test"] and not session.training:
        results[f"test_{RECONSTRUCTION}"] = last["test"][RECONSTRUCTION]
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
    if config.loss.normalize_patches and config.reconstructs:
        results["normalize_patches"] = config.loss.normalize_patches
    summary = write_summary(session.run, folder, session.trainer.model, metrics, results)
    title = "Pretraining by inpainting" if config.mask else "Image to image"
    sections = pretraining_sections(folder.path / FIGURES, summary, _curves())
    write_report(session.run, folder, title, summary, sections)
