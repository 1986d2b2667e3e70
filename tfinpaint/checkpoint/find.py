"""Find the checkpoints of a run, and the one that a path refers to. Imports no TensorFlow."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfinpaint.config.loader import move_outputs, read_values
from tfinpaint.errors import UserError
from tfinpaint.layout import BEST, CHECKPOINTS, PROGRESS, RESOLVED_CONFIG, checkpoint_name

MOST_PROGRESS_BYTES = 16 * 2**20  # of 30,000 epochs; a hostile file may take thirty times its size in memory
BEST_BY = "lowest loss on held-out images"
_NAME = re.compile(r"model_checkpoint_(\d+)(?:_step_(\d+))?$")
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
class BestCheckpoint:
    """The checkpoint of a run with the lowest loss on held-out images.

    Attributes:
        path: its folder.
        epoch: the epoch after which it was saved, from 1.
        loss: its loss on held-out images; None if the run's records lack it.
    """

    path: Path
    epoch: int
    loss: float | None


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


def find_best(folder: Path) -> BestCheckpoint | None:
    """Return the best checkpoint in a folder, according to the newest one that can be read.

    Returns:
        None if no checkpoint was saved with a loss on held-out images, or the best one has been deleted.
    """
    for path in reversed(list_checkpoints(folder)):
        progress = _read_progress(path / PROGRESS)
        if progress is None:
            continue
        epoch = progress.get("best_epoch")
        if not isinstance(epoch, int) or not (best := folder / checkpoint_name(epoch)).is_dir():
            return None
        return BestCheckpoint(best, epoch, _loss_at(epoch, progress.get("records")))
    return None


def _loss_at(epoch: int, records: Any) -> float | None:
    """Return the loss on held-out images after an epoch; None if the records lack it."""
    found = [r for r in records if isinstance(r, dict)] if isinstance(records, list) else []
    losses = [r.get("loss") for r in found if r.get("phase") in ("validation", "test") and r.get("epoch") == epoch]
    return losses[-1] if losses and isinstance(losses[-1], float) else None


def _read_progress(path: Path) -> dict[str, Any] | None:
    try:
        if not path.is_file() or path.stat().st_size > MOST_PROGRESS_BYTES:
            return None
        progress = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return progress if isinstance(progress, dict) else None


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


def find_checkpoint(path: Path, key: str = "") -> FoundCheckpoint:
    """Find the checkpoint that a path refers to.

    Args:
        path: one of

            - a checkpoint folder or a weight file, which is used as it is;
            - a run folder or its folder of checkpoints, for the newest checkpoint saved at the end of an epoch;
            - `best` in either of these, for the checkpoint with the lowest loss on held-out images;
            - rmldnn's `model_checkpoint_100.pt`, for this project's `model_checkpoint_100`, or the newest one of an
              earlier epoch, because a shortened run ends with another number.
        key: the configuration key that names the path, for messages.

    Raises:
        UserError: There is none; the message lists the existing ones.
    """
    try:
        return _find(path)
    except (UserError, OSError) as error:
        reason = f"no such checkpoint: {path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise UserError(f"{key}: {reason}" if key else reason) from None


def _find(path: Path) -> FoundCheckpoint:
    if path.suffix == ".pt" and (found := _find_for_rmldnn(path)):
        return found
    folder = checkpoints_folder(path) if path.is_dir() else None
    if folder is not None:
        return _newest(path, folder)
    if path.exists():
        return FoundCheckpoint(path)
    folder = checkpoints_folder(path.parent) if path.name == BEST else None
    if folder is None:
        raise UserError(f"no such checkpoint: {path}; {_what_is_there(path)}")
    best = find_best(folder)
    if best is None:
        raise UserError(
            f"no such checkpoint: {path}: the best one is unknown, because none was saved with a loss on held-out "
            f"images (data.test_input_path); {_named(list_checkpoints(folder), folder)}"
        )
    loss = "" if best.loss is None else f" ({best.loss:.4g})"
    return FoundCheckpoint(best.path, f"Using {best.path.name}, the best of {path.parent}: {BEST_BY}{loss}")


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
    note = f"Using {newest.name}, the newest of {path}"
    if epoch_and_step(newest)[1]:
        note += "; it was saved within an epoch, so its batch-norm statistics are not recalibrated for inference"
    elif (best := find_best(folder)) and best.path != newest:
        note += f"; the best one ({BEST_BY}) is {best.path.name}; name {path / BEST} to use it"
    return FoundCheckpoint(newest, note)


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
    return f"there is no {missing}{beside}" if missing != path or runs else f"{path.parent} holds no checkpoints"


def _named(checkpoints: Sequence[Path], folder: Path) -> str:
    if not checkpoints:
        return f"{folder} holds none"
    return f"{folder} holds {_some([each.name for each in checkpoints])}"


def _some(names: Sequence[str]) -> str:
    """Return the last few names as a text."""
    more = f"{len(names) - _MOST_NAMED} more and " if len(names) > _MOST_NAMED else ""
    return more + ", ".join(names[-_MOST_NAMED:])


def find_weights(path: Path) -> FoundCheckpoint:
    """Find the checkpoint that a path refers to, as `find_checkpoint` does; of a run, the best one if it is known.

    Raises:
        UserError: There is none.
    """
    folder = checkpoints_folder(path) if path.is_dir() else None
    return find_checkpoint(path / BEST if folder is not None and find_best(folder) else path)
