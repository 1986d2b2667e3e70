"""Write checkpoints whole or not at all, delete old ones, and find the newest intact one.

A checkpoint is a folder `model_checkpoint_<epoch>`, or `model_checkpoint_<epoch>_step_<step>` if it was saved within
the next epoch. Its files are:

- `model.weights.h5`, in Keras's own format, with the header as an HDF5 attribute, so that the file can be used without
  its folder, and with the network if the model was built from a network file;
- `encoder.weights.h5`, likewise, which also loads into `keras.applications.ResNet50(include_top=False)`; not within
  epochs, and not for a network file;
- `optimizer.npz`, the optimizer's state, and `checkpoint.json`, the header;
- `discriminator.weights.h5` and `discriminator_optimizer.npz`, after training with a discriminator, and
  `projector.weights.h5` and `projector_optimizer.npz`, after training with an agreement of views;
- `progress.json`, the metrics so far and the data they belong to, and `ranks.npz`, the state in which ranks differ, so
  that a run can be resumed as if it had never stopped;
- `manifest.json`, the checksums of all files.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from tfinpaint.checkpoint.find import epoch_and_step, list_checkpoints
from tfinpaint.checkpoint.header import ATTRIBUTE, NETWORK, Header, RankState, SavedProgress
from tfinpaint.errors import UserError
from tfinpaint.layout import (
    ENCODER_WEIGHTS,
    HEADER,
    MODEL_WEIGHTS,
    OPTIMIZER_STATE,
    PROGRESS,
    RANKS,
    companion_optimizer,
    companion_weights,
)
from tfinpaint.storage.atomic import find_damage, remove_folder, write_folder
from tfinpaint.storage.disk_space import find_shortage
from tfinpaint.storage.hdf5_output import new_hdf5
from tfinpaint.storage.safe_npz import write_npz
from tfinpaint.storage.write_errors import explain_os_error, naming_file, then_continue

log = logging.getLogger(__name__)

_STEP_CHECKPOINTS = 2  # number of those kept if all checkpoints of epochs are kept


@dataclass(frozen=True)
class FrozenOptimizer:
    """A copy of an optimizer's state, to be written.

    Attributes:
        variables: the values of its `optimizer_state`.
    """

    variables: Sequence[np.ndarray]


def optimizer_state(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Return the variables of an optimizer that training changes.

    A constant learning rate is a variable too, but it is excluded, because the configuration defines it.
    """
    return [variable for variable in optimizer.variables if variable.name != "learning_rate"]


@dataclass(frozen=True)
class Companion:
    """A network that is trained beside the model, such as a discriminator, and its optimizer."""

    model: keras.Model
    optimizer: keras.Optimizer | FrozenOptimizer


@dataclass(frozen=True)
class TrainingState:
    """The models and optimizers that go into a checkpoint.

    Attributes:
        model, optimizer: the model that is trained, and its optimizer.
        encoder: the encoder inside `model`; None for a model built from a network file.
        network: the definition of such a model, as `models.keras_json.parse.read_network` returns it; else None.
        companions: the networks that are trained beside the model, by name.
    """

    model: keras.Model
    optimizer: keras.Optimizer | FrozenOptimizer
    encoder: keras.Model | None
    network: dict[str, Any] | None = None
    companions: Mapping[str, Companion] = field(default_factory=dict)

    @property
    def file_bytes(self) -> dict[str, int]:
        """Return name of each large file -> size of its arrays in bytes, which is a little less than the file's."""
        parts = {
            MODEL_WEIGHTS: self.model, ENCODER_WEIGHTS: self.encoder, OPTIMIZER_STATE: self.optimizer,
            **{companion_weights(name): companion.model for name, companion in self.companions.items()},
            **{companion_optimizer(name): companion.optimizer for name, companion in self.companions.items()},
        }  # fmt: skip
        return {
            name: sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in part.variables)
            for name, part in parts.items()
            if part is not None
        }


def save_checkpoint(
    folder: Path, header: Header, progress: SavedProgress, ranks: RankState, contents: TrainingState, keep: int | None
) -> Path:
    """Write a checkpoint into `folder`, whole or not at all, then delete those that it replaces.

    The newest `keep` checkpoints of epochs are kept, the best ones, and those within epochs that are among the newest
    `keep` of all (2 if `keep` is None). Checkpoints with more steps than this one are deleted: the run was resumed from
    an earlier one, or now has fewer steps in an epoch.

    Returns:
        The folder of the new checkpoint.

    Raises:
        UserError: The folder cannot be written (permissions, disk full); older checkpoints are left unchanged.
    """
    final = folder / header.folder_name

    def write(partial: Path) -> None:
        _write(partial, header, contents)
        _write_text(partial / PROGRESS, progress.model_dump_json() + "\n")
        _write_arrays(partial / RANKS, {"own": ranks.own, "sums": ranks.sums, "counts": ranks.counts})

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if lacking := find_shortage(folder, contents.file_bytes):
            raise UserError(f"{final}: the checkpoint was not written: {lacking}, {then_continue()}")
        write_folder(final, write)
        found = list_checkpoints(folder)
        later = [path for path in found if epoch_and_step(path) > epoch_and_step(final)]
        earlier = [path for path in found if path not in later]
        for path in [*later, *_superfluous(earlier, keep, progress.best_epochs)]:
            remove_folder(path)
    except OSError as error:
        where = f"{Path(error.filename).name}: " if error.filename else ""
        raise UserError(
            f"{final}: the checkpoint could not be written: {where}{explain_os_error(error)}, {then_continue()}"
        ) from None
    return final


def _superfluous(checkpoints: Sequence[Path], keep: int | None, best: Collection[int]) -> list[Path]:
    epochs = [path for path in checkpoints if epoch_and_step(path)[1] == 0]
    kept = epochs[-keep:] if keep else epochs
    kept += [path for path in epochs if epoch_and_step(path)[0] in best]
    kept += list(checkpoints)[-(keep or _STEP_CHECKPOINTS) :]
    return [path for path in checkpoints if path not in kept]


def _write(folder: Path, header: Header, contents: TrainingState) -> None:
    _write_weights(folder / MODEL_WEIGHTS, contents.model, header, contents.network)
    if contents.encoder is not None and not header.step_in_epoch:
        described = header.model_copy(update={"kind": "encoder", "classes": ()})
        _write_weights(folder / ENCODER_WEIGHTS, contents.encoder, described)
    _write_optimizer(folder / OPTIMIZER_STATE, contents.optimizer)
    for name, companion in contents.companions.items():
        _write_weights(folder / companion_weights(name), companion.model)
        _write_optimizer(folder / companion_optimizer(name), companion.optimizer)
    _write_text(folder / HEADER, header.model_dump_json(indent=2) + "\n")


def _write_weights(
    path: Path, model: keras.Model, header: Header | None = None, network: dict[str, Any] | None = None
) -> None:
    with new_hdf5(path) as output:
        model.save_weights(output)
        if header is None:
            return
        with h5py.File(output, "r+") as file:
            file.attrs[ATTRIBUTE] = header.model_dump_json()
            if network is not None:
                file[NETWORK] = np.frombuffer(json.dumps(network).encode(), np.uint8)


def _write_optimizer(path: Path, optimizer: keras.Optimizer | FrozenOptimizer) -> None:
    if isinstance(optimizer, FrozenOptimizer):
        values = optimizer.variables
    else:
        values = [variable.numpy() for variable in optimizer_state(optimizer)]
    _write_arrays(path, {str(number): value for number, value in enumerate(values)})


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with naming_file(path):
        write_npz(path, arrays)


def _write_text(path: Path, text: str) -> None:
    with naming_file(path):
        path.write_text(text, "utf-8")


def find_newest_intact(folder: Path, num_epochs: int) -> Path | None:
    """Return the newest undamaged checkpoint, from which a run of `num_epochs` epochs is resumed; log damaged ones.

    If the run has been shortened, checkpoints within later epochs are ignored.

    Returns:
        None if there is no checkpoint.

    Raises:
        UserError: All checkpoints are damaged, or lie within later epochs.
    """
    damaged, later = [], None
    for path in reversed(list_checkpoints(folder)):
        epochs, step = epoch_and_step(path)
        if step and epochs >= num_epochs:
            later = path
            continue
        reason = find_damage(path)
        if reason is None:
            return path
        damaged.append(f"{path} is damaged: {reason}")
        log.warning(f"{damaged[-1]}; trying the previous one")
    if damaged:
        raise UserError(f"no intact checkpoint is left to resume from: {damaged[0]}; start again with --overwrite")
    if later:
        raise UserError(
            f"{later}: is within epoch {epoch_and_step(later)[0] + 1}, and num_epochs is {num_epochs}: no earlier "
            "checkpoint is left to end with; raise num_epochs, or start again with --overwrite"
        )
    return None
