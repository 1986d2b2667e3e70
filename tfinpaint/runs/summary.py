"""What a run leaves at its end: summary.json and report.html."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfinpaint.checkpoint.find import BY_LOSS, BY_PROBE, BestCheckpoint, find_best, run_folder_of
from tfinpaint.layout import REPORT, SUMMARY
from tfinpaint.report.about import command_line, now
from tfinpaint.report.html import Section
from tfinpaint.report.metrics_log import MetricsLog
from tfinpaint.report.parts_of_loss import reconstruction_figures
from tfinpaint.report.run_page import write_run_page
from tfinpaint.runs.chosen_checkpoint import describe_checkpoints
from tfinpaint.runs.folder import RunFolder
from tfinpaint.runs.run import Run
from tfinpaint.storage.atomic import write_json
from tfinpaint.system.paths import display_path

log = logging.getLogger(__name__)


def write_summary(
    run: Run, folder: RunFolder, model: keras.Model, metrics: MetricsLog, figures: Mapping[str, Any]
) -> dict[str, Any]:
    """Write and return summary.json: the given final figures, and those that every run has."""
    rates = [record["images_per_second"] for record in metrics.records if record["phase"] == "train"]
    best = _best_checkpoint(folder, "validation" if run.config.data.validation_fraction else "test")
    if best and run.config.loss.agreement:
        best["best_by"] += ", without the agreement of the views"
    summary = {
        **figures,
        **best,
        **reconstruction_figures(metrics.records, best.get("best_epoch")),
        **_best_by_probe(folder),
        "epochs": max((record["epoch"] for record in metrics.records if record["phase"] == "train"), default=0),
        "images_per_second": statistics.median(rates) if rates else None,
        "seconds": sum(record["seconds"] for record in metrics.records),
        "world_size": run.ranks,
        "parameters": model.count_params(),
        "trainable_parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
        "finished": now(),
        "command": run.call or command_line(),
    }
    write_json(folder.path / SUMMARY, summary)
    return summary


def _best_checkpoint(folder: RunFolder, phase: str) -> dict[str, Any]:
    """Return the entries of the summary about the best checkpoint; {} where none is known."""
    best = find_best(folder.checkpoints, BY_LOSS) if folder.checkpoints else None
    if best is None:
        return {}
    return {
        "best_checkpoint": _place(folder, best),
        "best_by": BY_LOSS.words,
        "best_epoch": best.epoch,
        f"best_{phase}_loss": best.value,
    }


def _best_by_probe(folder: RunFolder) -> dict[str, Any]:
    """Return the entries about the checkpoint with the best features; {} without a probe."""
    best = find_best(folder.checkpoints, BY_PROBE) if folder.checkpoints else None
    if best is None:
        return {}
    return {
        "best_probe_checkpoint": _place(folder, best),
        "best_probe_epoch": best.epoch,
        "best_probe_accuracy": best.value,
    }


def _place(folder: RunFolder, best: BestCheckpoint) -> str:
    """Return the path of a checkpoint, relative inside the run folder, so that it stays true when that is moved."""
    inside = best.path.is_relative_to(folder.path)
    return str(best.path.relative_to(folder.path) if inside else best.path)


def write_report(
    run: Run, folder: RunFolder, title: str, summary: Mapping[str, Any], sections: Sequence[Section]
) -> None:
    """Write report.html; log where it is, and which checkpoints later commands take.

    Args:
        sections: about the result, which the page begins with.
    """
    load = run.config.checkpoints.load
    write_run_page(folder.path, title, run.config, summary, sections, run_folder_of(load) if load else None)
    for line in describe_checkpoints(folder.path) if folder.checkpoints else ():
        log.info(line)
    log.info(f"Report: {display_path(folder.path / REPORT)}")
