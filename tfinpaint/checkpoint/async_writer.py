"""Write checkpoints in a thread, from copies of the weights, while training continues."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from tfinpaint.checkpoint.header import Header, RankState, SavedProgress
from tfinpaint.checkpoint.store import FrozenOptimizer, TrainingState, optimizer_state, save_checkpoint
from tfinpaint.system.paths import display_path

log = logging.getLogger(__name__)

SLOW_SECONDS = 5.0  # a longer wait for the disk is logged


class AsyncWriter:
    """A writer of checkpoints, one at a time, each in a thread, while training changes the weights."""

    def __init__(self, live: TrainingState, make_copy: Callable[[TrainingState], TrainingState]) -> None:
        """Prepare to write; nothing is copied before the first `write`.

        Args:
            live: the models and optimizers that are trained.
            make_copy: returns other models of the same form, for the thread.
        """
        self._live, self._make_copy = live, make_copy
        self._copy: TrainingState | None = None
        self._values: dict[str, list[np.ndarray]] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def write(self, folder: Path, header: Header, progress: SavedProgress, ranks: RankState, keep: int | None) -> None:
        """Copy the current weights and begin to write them.

        Raises:
            UserError: The previous checkpoint could not be written.
        """
        self.wait()
        if self._copy is None:
            self._copy = self._make_copy(self._live)
            self._values = {n: [np.empty(v.shape, v.dtype) for v in part] for n, part in _states(self._live).items()}
        copy = self._copy
        # The arrays are reused: copying into new pages of memory takes ten times as long.
        for name, part in _states(self._live).items():
            for variable, value in zip(part, self._values[name], strict=True):
                np.copyto(value, np.asarray(variable.value.read_value()))

        def write() -> None:
            try:
                path = save_checkpoint(folder, header, progress, ranks, _fill(copy, self._values), keep)
                log.log(logging.DEBUG if header.step_in_epoch else logging.INFO, f"Saved {display_path(path)}")
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=write, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the checkpoint that is being written is on the disk.

        Raises:
            UserError: It could not be written.
        """
        if self._thread:
            began = time.monotonic()
            self._thread.join()
            self._thread = None
            if (waited := time.monotonic() - began) > SLOW_SECONDS:
                log.info(f"Training waited {waited:.0f} s for a checkpoint to be written")
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise the error of the previous checkpoint, if there was one, without waiting for the current one.

        Raises:
            UserError: The previous checkpoint could not be written.
        """
        if self._error:
            error, self._error = self._error, None
            raise error


def _states(live: TrainingState) -> dict[str, list[keras.Variable]]:
    """Return the variables that are saved, by the model or optimizer that they belong to."""
    found = {"model": live.model.variables, "optimizer": optimizer_state(live.optimizer)}
    for name, companion in live.companions.items():
        found[name] = companion.model.variables
        found[f"{name}_optimizer"] = optimizer_state(companion.optimizer)
    return found


def _fill(copy: TrainingState, values: Mapping[str, Sequence[np.ndarray]]) -> TrainingState:
    """Assign values to the models of a copy; return the copy with optimizers that hold their values."""
    for name, model in {"model": copy.model, **{n: each.model for n, each in copy.companions.items()}}.items():
        for variable, value in zip(model.variables, values[name], strict=True):
            variable.assign(value)
    companions = {
        name: replace(companion, optimizer=FrozenOptimizer(values[f"{name}_optimizer"]))
        for name, companion in copy.companions.items()
    }
    return replace(copy, optimizer=FrozenOptimizer(values["optimizer"]), companions=companions)
