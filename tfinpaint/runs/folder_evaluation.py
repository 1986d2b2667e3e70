"""Evaluate what a run has trained on any folder of images: a run of its own that trains nothing, and its result."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfinpaint.checkpoint.find import FoundCheckpoint
from tfinpaint.checkpoint.reader import open_checkpoint, read_header, read_progress, require_config
from tfinpaint.cli.options import Options
from tfinpaint.config.checks import Command
from tfinpaint.config.schema import Config
from tfinpaint.data.listing.listing import has_class_folders, list_class_folders
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.layout import CLASS_TABLE, FIGURES, SUMMARY
from tfinpaint.report.cells import decimals_alike
from tfinpaint.report.quantities import IMAGE_METRICS
from tfinpaint.report.verdict import restoration_verdict
from tfinpaint.runs.bad_images import ANY_NUMBER
from tfinpaint.runs.classification import run_classification
from tfinpaint.runs.pretraining import run_pretraining
from tfinpaint.storage.atomic import write_text
from tfinpaint.storage.safe_json import read_json

log = logging.getLogger(__name__)

NETWORK_FILE = "network.json"  # the network of the run, where its configuration names a file
MOST_CONFUSIONS = 5  # rows on the terminal; the report has more
CLASS_COLUMNS = {name: name for name in ("class", "images", "right", "recall", "precision")} | {"f1": "F1"}
CONFUSION_COLUMNS = {
    "true": "true class",
    "predicted": "predicted as",
    "images": "images",
    "share": "share of the class",
}


@dataclass(frozen=True)
class Evaluated:
    """The result of an evaluation.

    Attributes:
        sentences: what was found.
        tables: title -> a heading row, then the others.
    """

    sentences: list[str]
    tables: dict[str, list[list[Any]]]


def evaluate_folder(found: FoundCheckpoint, data: Path, output: Path, overwrite: bool, world: World) -> Evaluated:
    """Evaluate the model of a checkpoint on a folder of images, and write a run folder with a report.

    A classifier takes class folders, whose names are classes of its run; some of these may be missing. An inpainter
    takes images, erases as in its run and restores them, beside classical baselines.

    Args:
        output: the run folder to make.
        overwrite: replace an earlier evaluation there.

    Raises:
        UserError: The checkpoint or the images cannot be used.
    """
    header, config = read_header(found.path), require_config(found.path)
    is_classifier = header.kind == "classifier"
    if is_classifier:
        _check_class_folders(found.path, data, header.classes)
    elif config.unmeasured:
        raise UserError(
            f"{found.path}: its outputs cannot be compared with the images themselves, because {config.unmeasured}; "
            "evaluate it by tfinpaint pretrain with --set data.input_path=null and the images in data.test_input_path"
        )
    config = _evaluating(config, found.path, data, output)
    if found.note:
        log.info(found.note)
    task: Command = "classify" if is_classifier else "pretrain"
    options = Options(config, resume=False, overwrite=overwrite, task=task)
    (run_classification if is_classifier else run_pretraining)(options, world)
    summary = read_json(output / SUMMARY)
    return _classifier_result(summary, header.classes) if is_classifier else _inpainter_result(summary)


def _check_class_folders(path: Path, data: Path, classes: Sequence[str]) -> None:
    if not has_class_folders(data):
        raise UserError(
            f"{data}: holds no class folders, so the classes of its images are not known; `tfinpaint predict {path} "
            f"{data}` predicts the classes of images without them"
        )
    list_class_folders(data, classes)  # refuses other classes before a run begins


def _evaluating(config: Config, checkpoint: Path, data: Path, output: Path) -> Config:
    """Return the configuration of a run that only evaluates a checkpoint on a folder."""
    section, ranks = config.data, read_progress(checkpoint).ranks
    batch = section.test_batch_size if section.batch_size_per_rank else max(1, section.test_batch_size // ranks)
    images = {
        **dict.fromkeys(("input_path", "target_path", "test_target_path", "test_output_path", "testing_tag")),
        "test_input_path": data,
        "test_batch_size": batch,
        "max_bad_images": ANY_NUMBER,  # they are left out and listed
        "validation_fraction": 0.0,
    }
    changes: dict[str, Any] = {
        **dict.fromkeys(("outfile", "probe", "early_stopping")),
        "trackers": [],  # whoever tracked the training has not asked for a tracked run of this
        "workdir": output,
        "data": section.model_copy(update=images),
        "checkpoints": config.checkpoints.model_copy(update={"load": checkpoint, "save": None}),
        "loss": config.loss.model_copy(update={"adversarial": None, "perceptual": None}),
    }
    if isinstance(config.layers, Path):
        with open_checkpoint(checkpoint) as saved:
            write_text(output / NETWORK_FILE, json.dumps(saved.network()))
        changes["layers"] = output / NETWORK_FILE
    return config.model_copy(update=changes)


def _classifier_result(summary: Mapping[str, Any], classes: tuple[str, ...]) -> Evaluated:
    """Return accuracy and calibration in sentences, and the classes of the run in a table."""
    low, high = summary["test_accuracy_interval"]
    accuracy, images = summary["test_accuracy"], summary["test_images"]
    sentences = [
        f"{round(accuracy * images):,} of {images:,} images are classified correctly: accuracy {accuracy:.3f}, 95 % "
        f"interval {low:.3f} to {high:.3f}; expected calibration error "
        f"{summary['test_expected_calibration_error']:.3f}."
    ]
    rows = summary["test_classes"]
    absent = [row["class"] for row in rows if not row["images"]]
    if absent:
        sentences.append(f"No images of {len(absent)} of {len(classes)} classes: {', '.join(absent)}.")
    tables = {
        f"Classes (all of them: {FIGURES}/{CLASS_TABLE})": _table(rows, CLASS_COLUMNS),
        "Most frequent confusions": _table(summary["test_confusions"][:MOST_CONFUSIONS], CONFUSION_COLUMNS),
    }
    return Evaluated(sentences, {title: table for title, table in tables.items() if len(table) > 1})


def _table(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> list[list[Any]]:
    """Return a heading row and the values of these columns, key of a row -> heading; "" where one is not defined."""
    return [[*columns.values()], *([("" if row[key] is None else row[key]) for key in columns] for row in rows)]


def _inpainter_result(summary: Mapping[str, Any]) -> Evaluated:
    """Return the verdict on the restorations, and all image metrics beside those of the baselines in a table."""
    measured: Mapping[str, Mapping[str, float]] = summary["measurements"]
    table: list[list[Any]] = [
        ["", *(name.replace("_", " ") for name in measured)],
        *([each.heading, *decimals_alike([values[name] for values in measured.values()])]
          for name, each in IMAGE_METRICS.items() if name in measured["network"]),
    ]  # fmt: skip
    return Evaluated([restoration_verdict(summary)], {"Image metrics": table})
