"""Find the checkpoints of a run, and the one that a path refers to. Imports no TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfinpaint.checkpoint.missing import refuse_incomplete
from tfinpaint.config.loader import read_values
from tfinpaint.config.paths import move_outputs
from tfinpaint.errors import UserError
from tfinpaint.layout import (
    BEST,
    BEST_PROBE,
    CHECKPOINTS,
    ENCODER_WEIGHTS,
    HEADER,
    MODEL_WEIGHTS,
    PROGRESS,
    PROJECT,
    RESOLVED_CONFIG,
    checkpoint_name,
)
from tfinpaint.report.parts_of_loss import RECONSTRUCTION, compares_views
from tfinpaint.storage.safe_json import read_json
from tfinpaint.system.paths import display_path, typed_path

MOST_PROGRESS_BYTES = 16 * 2**20  # of 30,000 epochs; a hostile file may take thirty times its size in memory
PROBED = "probe_stage5"  # the metric by which the probe in pretraining chooses
_NAME = re.compile(r"model_checkpoint_(\d+)(?:_step_(\d+))?$")
_FILES = (MODEL_WEIGHTS, ENCODER_WEIGHTS, HEADER)  # a folder with one of them was a checkpoint, also if renamed
_MOST_NAMED = 5


@dataclass(frozen=True)
class FoundCheckpoint:
    """The checkpoint that a path refers to.

    Attributes:
        path: a checkpoint folder or a weight file.
        note: a line for the log about which one was chosen and why; "" if the path itself names it.
    """

    path: Path
    note: str = ""


@dataclass(frozen=True)
class Criterion:
    """What makes a checkpoint the best one of its run.

    Attributes:
        name: stands for that checkpoint in a path.
        entry: the entry of `progress.json` that has its epoch.
        metric, phases: of the records that have its value.
        words: the criterion in words.
        needed: what a run needs, for checkpoints to be judged by it.
    """

    name: str
    entry: str
    metric: str
    phases: tuple[str, ...]
    words: str
    needed: str


BY_LOSS = Criterion(
    BEST, "best_epoch", "loss", ("validation", "test"), "lowest loss on held-out images",
    "a loss on held-out images (data.test_input_path)",
)  # fmt: skip
BY_PROBE = Criterion(
    BEST_PROBE, "best_probe_epoch", PROBED, ("train",), "highest accuracy of the probe", "a probe (section probe)"
)
CRITERIA = (BY_LOSS, BY_PROBE)


@dataclass(frozen=True)
class BestCheckpoint:
    """The best checkpoint of a run.

    Attributes:
        path: its folder.
        epoch: the epoch after which it was saved, from 1.
        value: its loss or accuracy; None if the run's records lack it.
        reconstruction: the part of that loss that the log shows in its place where views are compared; else None.
    """

    path: Path
    epoch: int
    value: float | None
    reconstruction: float | None = None

    @property
    def shown(self) -> str:
        """The value as text; "" if it is not known."""
        if self.reconstruction is not None:
            return f"reconstruction {self.reconstruction:.4f}"
        return "" if self.value is None else f"{self.value:.4g}"


def epoch_and_step(path: Path) -> tuple[int, int]:
    """Return the finished epochs of a checkpoint, and the steps of the next one, from its name."""
    match = _NAME.match(path.name)
    assert match
    return int(match[1]), int(match[2] or 0)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first, damaged ones included."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.match(path.name) and path.is_dir()), key=epoch_and_step)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint saved at the end of an epoch, else the newest one; None without any.

    Batch-norm statistics are recalibrated for inference at the end of an epoch.
    """
    found = list_checkpoints(folder)
    return max(found, key=lambda path: (epoch_and_step(path)[1] == 0, epoch_and_step(path)), default=None)


def find_best(folder: Path, by: Criterion = BY_LOSS) -> BestCheckpoint | None:
    """Return the best checkpoint in a folder, according to the newest one that can be read.

    Returns:
        None if no checkpoint was judged by this criterion, or the best one has been deleted.
    """
    for path in reversed(list_checkpoints(folder)):
        progress = _read_progress(path / PROGRESS)
        if progress is None:
            continue
        epoch = progress.get(by.entry)
        if not isinstance(epoch, int) or not (best := folder / checkpoint_name(epoch)).is_dir():
            return None
        found = progress.get("records")
        records = [r for r in found if isinstance(r, dict)] if isinstance(found, list) else []
        part = _value_at(epoch, records, by, RECONSTRUCTION) if by is BY_LOSS and compares_views(records) else None
        return BestCheckpoint(best, epoch, _value_at(epoch, records, by, by.metric), part)
    return None


def _value_at(epoch: int, records: Sequence[Mapping[str, Any]], by: Criterion, metric: str) -> float | None:
    """Return a metric after an epoch, of the images that a criterion judges; None if the records lack it."""
    values = [r.get(metric) for r in records if r.get("phase") in by.phases and r.get("epoch") == epoch]
    return values[-1] if values and isinstance(values[-1], float) else None


def _read_progress(path: Path) -> dict[str, Any] | None:
    progress = read_json(path, MOST_PROGRESS_BYTES)
    return progress if isinstance(progress, dict) else None


def labels_of_choice(path: Path) -> int:
    """Return the number of labelled images of the probe in pretraining by which a checkpoint is the best of its run.

    Args:
        path: a checkpoint folder, or a weight file, which may lie in one.

    Returns:
        0 for any other checkpoint or file.
    """
    folder = path if path.is_dir() else path.parent
    best = find_best(folder.parent, BY_PROBE)
    if best is None or best.path != folder:
        return 0
    config = (_read_progress(folder / PROGRESS) or {}).get("config")
    section = config.get("probe") if isinstance(config, dict) else None
    images = section.get("images") if isinstance(section, dict) else None
    return images if isinstance(images, int) else 0


def checkpoints_folder(path: Path) -> Path | None:
    """Return the folder with the checkpoints of a run folder, or `path` itself if it holds them; None for other paths.

    A run's configuration names that folder in `checkpoints.save`. If it was below the run folder, it is found there
    even after the run folder was moved.
    """
    named = None
    if (path / RESOLVED_CONFIG).is_file():
        values = move_outputs(read_values(path / RESOLVED_CONFIG), path.resolve())
        section = values.get("checkpoints")
        save = section.get("save") if isinstance(section, dict) else None
        named = Path(save) if isinstance(save, str) else path / CHECKPOINTS
    places = [*([named] if named else []), path / CHECKPOINTS, path]
    return next((place for place in places if list_checkpoints(place)), named)


def run_folder_of(path: Path) -> Path | None:
    """Return the run folder that a path is, or lies in; None if there is none."""
    return next((each for each in (path, *path.parents[:3]) if (each / RESOLVED_CONFIG).is_file()), None)


def find_checkpoint(path: Path, key: str = "", one_of: Sequence[str] = (MODEL_WEIGHTS,)) -> FoundCheckpoint:
    """Find the checkpoint that a path refers to.

    Args:
        path: one of

            - a checkpoint folder or a weight file, which is used as it is;
            - a run folder or its folder of checkpoints, for the newest checkpoint saved at the end of an epoch;
            - `best` in either of these, for the checkpoint with the lowest loss on held-out images;
            - `best_probe` in either of these, for that with the highest accuracy of the probe in pretraining;
            - rmldnn's `model_checkpoint_100.pt`, for this project's `model_checkpoint_100`, or the newest one of an
              earlier epoch, because a shortened run ends with another number.
        key: the configuration key that names the path, for messages.
        one_of: names of files, of which a checkpoint that a run has saved must have one.

    Raises:
        UserError: There is none, and the message lists the existing ones; or it has lost the file, which is named.
    """
    try:
        found = _find(path)
        if found.path.is_dir() and _NAME.match(found.path.name):
            refuse_incomplete(found.path, one_of, list_checkpoints(found.path.parent))
        return found
    except (UserError, OSError) as error:
        reason = f"no such checkpoint: {path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise UserError(f"{key}: {reason}" if key else reason) from None


def _find(path: Path) -> FoundCheckpoint:
    if path.suffix == ".pt" and (found := _find_for_rmldnn(path)):
        return found
    folder = checkpoints_folder(path) if path.is_dir() else None
    if folder is not None:
        return _newest(path, folder)
    if path.is_dir() and not _NAME.match(path.name) and not any((path / name).exists() for name in _FILES):
        raise UserError(f"{path}: not a checkpoint of tfinpaint; {_what_is_in(path)}")
    if path.suffix in (".yaml", ".yml", ".json") and checkpoints_folder(run := path.with_suffix("")):
        raise UserError(f"{path}: is a configuration; name its run: {typed_path(run)}")
    if path.exists():
        return FoundCheckpoint(path)
    by = next((each for each in CRITERIA if each.name == path.name), None)
    folder = checkpoints_folder(path.parent) if by else None
    if by is None or folder is None:
        raise UserError(f"no such checkpoint: {path}; {_what_is_there(path)}")
    best = find_best(folder, by)
    if best is None:
        raise UserError(
            f"no such checkpoint: {path}: the best one is unknown, because none was saved with {by.needed}; "
            f"{_named(list_checkpoints(folder), folder)}"
        )
    value = f" ({best.shown})" if best.shown else ""
    return FoundCheckpoint(
        best.path, f"Using {best.path.name}, the best of {display_path(path.parent)}: {by.words}{value}"
    )


def _find_for_rmldnn(path: Path) -> FoundCheckpoint | None:
    kept, name = list_checkpoints(path.parent), _NAME.match(path.stem)
    if name is None:  # a checkpoint that was renamed
        return FoundCheckpoint(path.with_suffix("")) if path.with_suffix("").is_dir() and not path.exists() else None
    if path.with_suffix("") in kept:
        return FoundCheckpoint(path.with_suffix(""))
    if path.exists():
        return FoundCheckpoint(path)
    for other in reversed(kept):
        epochs, step = epoch_and_step(other)
        if epochs <= int(name[1]) and not step:
            return FoundCheckpoint(other, f"{path.stem} does not exist; using {other.name}, the newest one before it")
    return None


def _newest(path: Path, folder: Path) -> FoundCheckpoint:
    newest = newest_checkpoint(folder)
    if newest is None:
        raise UserError(f"no such checkpoint: {path} is a run folder without checkpoints; {folder} holds none")
    note = f"Using {newest.name}, the newest of {display_path(path)}"
    if epoch_and_step(newest)[1]:
        note += "; it was saved within an epoch, so its batch-norm statistics are not recalibrated for inference"
        return FoundCheckpoint(newest, note)
    for by in CRITERIA:
        if (best := find_best(folder, by)) and best.path != newest:
            note += f"; the best one ({by.words}) is {best.path.name}; name {typed_path(path / by.name)} to use it"
    return FoundCheckpoint(newest, note)


def _what_is_in(folder: Path) -> str:
    """Return which runs a folder holds that is neither a run nor a checkpoint, for a message."""
    runs = sorted(str(each.parent) for each in folder.glob(f"*/{RESOLVED_CONFIG}"))
    if runs:
        return f"name a run in it: {_some(runs)}"
    if (folder / PROJECT).is_file():
        return f"it is a project that has not run yet; type: tfinpaint run {typed_path(folder)}"
    return "expected a run folder with checkpoints, a folder model_checkpoint_<epoch>, or a weight file"


def _what_is_there(path: Path) -> str:
    """Return what exists where a checkpoint was expected, for a message."""
    for near in (path.parent, path.parent.parent):
        if folder := checkpoints_folder(near):
            return _named(list_checkpoints(folder), folder)
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    runs = sorted(each for each in missing.parent.iterdir() if (each / RESOLVED_CONFIG).is_file())
    beside = f"; run folders beside it: {_some([run.name for run in runs])}" if runs else ""
    there = f"there is no folder {missing}" if missing != path or runs else f"{path.parent} holds nothing of that name"
    return f"{there}{beside}"


def _named(checkpoints: Sequence[Path], folder: Path) -> str:
    if not checkpoints:
        return f"{folder} holds none"
    return f"{folder} holds {_some([each.name for each in checkpoints])}"


def _some(names: Sequence[str]) -> str:
    """Return the last few names as a text."""
    more = f"{len(names) - _MOST_NAMED} more and " if len(names) > _MOST_NAMED else ""
    return more + ", ".join(names[-_MOST_NAMED:])


def find_weights(path: Path, key: str = "") -> FoundCheckpoint:
    """Find the checkpoint that a path refers to, as `find_checkpoint` does; of a run, the best one if it is known.

    The best one is that of the probe in pretraining, or else that of the lowest loss.

    Raises:
        UserError: There is none.
    """
    folder = checkpoints_folder(path) if path.is_dir() else None
    known = [by.name for by in (BY_PROBE, BY_LOSS) if folder is not None and find_best(folder, by)]
    return find_checkpoint(path / known[0] if known else path, key, (MODEL_WEIGHTS, ENCODER_WEIGHTS))


def find_reported(path: Path) -> FoundCheckpoint:
    """Find the checkpoint that a path refers to, as `find_checkpoint` does; of a run, that which its report describes.

    That is the best one if validation images have chosen it, and otherwise the newest.

    Raises:
        UserError: There is none.
    """
    values = read_values(path / RESOLVED_CONFIG) if path.is_dir() else {}
    data = values.get("data")
    has_validation = isinstance(data, dict) and bool(data.get("validation_fraction"))
    return find_checkpoint(path / BEST if has_validation else path)
