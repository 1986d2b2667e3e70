"""Say what every run in a folder is and how far it has come, from its files alone. Imports no TensorFlow."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from tfinpaint.checkpoint.find import checkpoints_folder, find_best, newest_checkpoint
from tfinpaint.checkpoint.recorded import recorded_kind
from tfinpaint.config.loader import read_values
from tfinpaint.config.transforms import MASKS
from tfinpaint.errors import UserError
from tfinpaint.layout import (
    CHECKPOINTS,
    ENDING,
    FIGURES,
    METRICS_LOG,
    MODEL_WEIGHTS,
    NONFINITE_BATCHES,
    RESOLVED_CONFIG,
    SUMMARY,
    SWEEP_PLAN,
    TENSORBOARD,
)
from tfinpaint.report.parts_of_loss import RECONSTRUCTION, compares_views
from tfinpaint.report.summaries import fault_of_summary
from tfinpaint.runs.lock import is_locked
from tfinpaint.storage.safe_json import read_json

State = Literal["starting", "running", "finished", "stopped", "failed", "broken"]

MOST_LEVELS = 12  # of folders below the one that is searched
MOST_LOG_BYTES = 64 * 2**20
_OWN_FOLDERS = {CHECKPOINTS, FIGURES, TENSORBOARD, NONFINITE_BATCHES}  # of a run: no other runs are in there
_FIGURES = ("accuracy", "hole_psnr_db", "dice", "loss")  # the first that a run has is its main figure
_PHASES = ("test", "validation", "train")  # the main figure is of the first that a run has


@dataclass(frozen=True)
class RunOverview:
    """A run as its folder shows it; what is unknown is None.

    Attributes:
        path: the run folder.
        state: "starting" if it has not written its configuration yet; "broken" if its files cannot be read; "stopped"
            also for a run that was killed.
        reason: why it is broken, has failed or was stopped, or what a finished run has lost; "" where that is unknown
            or does not apply.
        kind: "classifier", "inpainter" or "image to image".
        date: when its files last changed.
        data: folder of its training images, or of the test images of an evaluation.
        epochs, num_epochs: number of epochs done, and asked for; None for an evaluation.
        figure: name of the main figure, such as "test accuracy", and its newest value.
        best: the checkpoint with the lowest loss on held-out images.
    """

    path: Path
    state: State
    reason: str = ""
    kind: str | None = None
    date: datetime | None = None
    data: str | None = None
    epochs: int | None = None
    num_epochs: int | None = None
    figure: tuple[str, float] | None = None
    best: Path | None = None


def list_runs(folder: Path) -> list[RunOverview]:
    """Return all runs in a folder and its subfolders, sorted by path. Those of sweeps further down are left out.

    Raises:
        UserError: There is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the one that your runs are in: tfinpaint runs FOLDER")
    return sorted(_search(folder, MOST_LEVELS), key=lambda run: str(run.path))


def _search(folder: Path, levels: int) -> Iterator[RunOverview]:
    try:
        with os.scandir(folder) as entries:
            folders = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        is_run = CHECKPOINTS in folders or any((folder / name).exists() for name in (RESOLVED_CONFIG, METRICS_LOG))
    except OSError as error:
        yield RunOverview(folder, "broken", f"cannot be read: {error.strerror}")
        return
    if is_run:
        yield describe_run(folder)
    if not levels or (levels < MOST_LEVELS and (folder / SWEEP_PLAN).exists()):
        return
    for name in folders - _OWN_FOLDERS:
        if not name.startswith("."):
            yield from _search(folder / name, levels - 1)


def describe_run(folder: Path) -> RunOverview:
    """Return what the files of a run folder tell."""
    try:
        values, records = read_values(folder / RESOLVED_CONFIG), _read_records(folder / METRICS_LOG)
        date = datetime.fromtimestamp(_changed(folder)).astimezone()
        state, reason = _state(folder, values)
        data, best = _section(values, "data"), None
        if checkpoints := checkpoints_folder(folder):
            best = find_best(checkpoints)
        if state == "finished":
            reason = _loss(values, checkpoints)
    except (OSError, OverflowError, ValueError, UserError) as error:  # ValueError: a date beyond the year 9999
        return RunOverview(folder, "broken", f"cannot be read: {getattr(error, 'strerror', None) or error}")
    trains, asked = data.get("input_path") is not None, values.get("num_epochs")
    done = max((record["epoch"] for record in records if record["phase"] == "train"), default=0)
    path = data.get("input_path") or data.get("test_input_path")
    return RunOverview(
        folder, state, reason, _kind(values, data, checkpoints), date, path if isinstance(path, str) else None,
        done if trains else None, asked if trains and isinstance(asked, int) else None, _main_figure(records),
        best.path if best else None,
    )  # fmt: skip


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name)
    return section if isinstance(section, dict) else {}


def _changed(folder: Path) -> float:
    """Return when the run last wrote one of its main files, in seconds since 1970."""
    files = [folder / name for name in (SUMMARY, ENDING, METRICS_LOG, RESOLVED_CONFIG)]
    return max((file.stat().st_mtime for file in files if file.exists()), default=folder.stat().st_mtime)


def _state(folder: Path, values: Mapping[str, Any]) -> tuple[State, str]:
    """Return the state of a run, and the reason for it or ""."""
    if not values:
        missing = not (folder / RESOLVED_CONFIG).exists()
        if missing and is_locked(folder):
            return "starting", ""
        return "broken", f"{RESOLVED_CONFIG} {'is missing' if missing else 'cannot be read'}"
    if is_locked(folder):
        return "running", ""
    if (folder / SUMMARY).exists():
        summary = read_json(folder / SUMMARY)
        if not isinstance(summary, dict):
            return "broken", f"{SUMMARY} cannot be read"
        fault = fault_of_summary(summary)
        return ("broken", f"{SUMMARY}: {fault}") if fault else ("finished", "")
    ending = read_json(folder / ENDING)
    if not isinstance(ending, dict):
        return "stopped", ""
    return "failed" if ending.get("state") == "failed" else "stopped", str(ending.get("reason", ""))


def _loss(values: Mapping[str, Any], checkpoints: Path | None) -> str:
    """Return what is lost of the weights of a finished run; "" for nothing."""
    if _section(values, "data").get("input_path") is None or not _section(values, "checkpoints").get("save"):
        return ""  # it has saved none
    newest = newest_checkpoint(checkpoints) if checkpoints else None
    if newest is None:
        return "its checkpoints are gone"
    return "" if (newest / MODEL_WEIGHTS).is_file() else f"{newest.name} has lost {MODEL_WEIGHTS}"


def _kind(values: Mapping[str, Any], data: Mapping[str, Any], checkpoints: Path | None) -> str | None:
    if not values:
        newest = newest_checkpoint(checkpoints) if checkpoints else None
        return recorded_kind(newest) if newest else None
    if data.get("target_type") == "labels":
        return "classifier"
    steps = data.get("transforms")
    names = {name for step in (steps if isinstance(steps, list) else []) if isinstance(step, dict) for name in step}
    return "inpainter" if names & set(MASKS) else "image to image"


def _read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log of metrics that can be used; [] without a log.

    Raises:
        OSError: The log cannot be read.
        UserError: It is larger than any log that a run writes.
    """
    if not path.exists():
        return []
    if path.stat().st_size > MOST_LOG_BYTES:
        raise UserError(f"{path.name} has more than {MOST_LOG_BYTES >> 20} MiB")
    found = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # cut off by a crash
            continue
        if isinstance(record, dict) and record.get("phase") in _PHASES and isinstance(record.get("epoch"), int):
            found.append(record)
    return found


def _main_figure(records: Sequence[Mapping[str, Any]]) -> tuple[str, float] | None:
    """Return name and newest value of the figure that tells most about a run; None before the first epoch.

    Where views are compared, the loss of the reconstruction takes the place of the total loss, as in the log.
    """
    names = [RECONSTRUCTION if compares_views(records) and name == "loss" else name for name in _FIGURES]
    for phase in _PHASES:
        newest: Mapping[str, Any] = next((record for record in reversed(records) if record["phase"] == phase), {})
        for name in [*names, "loss"]:
            if isinstance(value := newest.get(name), float) and math.isfinite(value):
                return f"{phase} {name}", value
    return None
