"""Checkpoints: written whole or not at all, self-describing, loaded by kind.

A checkpoint is a folder `model_checkpoint_<epoch>`, or `model_checkpoint_<epoch>_step_<step>` for one that was made
within the epoch after it, with `model.weights.h5`, `encoder.weights.h5` (both in Keras's own format; the encoder file
also loads into `keras.applications.ResNet50(include_top=False)`, and is left out within epochs), `optimizer.npz` and
`checkpoint.json`; after training with a discriminator also `discriminator.weights.h5` and
`discriminator_optimizer.npz`. The weight files of model and encoder carry the same header as an HDF5 attribute, so they
can be moved on their own. A model that was built from a network file has no encoder file, and carries its network in
`model.weights.h5`.

So that a run can go on as if it had never stopped, there are also `progress.json`, its metrics so far and what they
were measured on, and `ranks.npz`, what each rank knows alone. `manifest.json` has the checksums of all files.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from tfinpaint.checkpoint.find import list_checkpoints, place_of
from tfinpaint.checkpoint.header import ATTRIBUTE, NETWORK, Header, RankState, SavedProgress
from tfinpaint.errors import UserError
from tfinpaint.layout import (
    DISCRIMINATOR_OPTIMIZER_STATE,
    DISCRIMINATOR_WEIGHTS,
    ENCODER_WEIGHTS,
    HEADER,
    MODEL_WEIGHTS,
    OPTIMIZER_STATE,
    PROGRESS,
    RANKS,
)
from tfinpaint.storage.atomic import find_damage, remove_folder, write_folder
from tfinpaint.storage.disk_space import find_shortage
from tfinpaint.storage.hdf5_output import new_hdf5
from tfinpaint.storage.safe_npz import write_npz
from tfinpaint.storage.write_errors import explain_os_error, naming

log = logging.getLogger(__name__)

_STEP_CHECKPOINTS = 2  # kept where all checkpoints of epochs are


@dataclass(frozen=True)
class FrozenOptimizer:
    """The state that an optimizer had at some moment, to be written.

    Attributes:
        variables: values of its `optimizer_state`.
    """

    variables: Sequence[np.ndarray]


def optimizer_state(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """The variables of an optimizer that training has changed.

    A constant learning rate is a variable too, but the configuration's has the last word; one that a schedule gives,
    such as that of more ranks, is not.
    """
    return [variable for variable in optimizer.variables if variable.name != "learning_rate"]


@dataclass(frozen=True)
class TrainingState:
    """The weights that go into a checkpoint.

    Attributes:
        encoder: the encoder inside `model`, None for a model built from a network file.
        network: definition of such a model's network, as `models.network.read_network` gives it.
        discriminator, discriminator_optimizer: of the joint loss, both or neither.
    """

    model: keras.Model
    optimizer: keras.Optimizer | FrozenOptimizer
    encoder: keras.Model | None
    network: dict[str, Any] | None = None
    discriminator: keras.Model | None = None
    discriminator_optimizer: keras.Optimizer | FrozenOptimizer | None = None

    @property
    def file_bytes(self) -> dict[str, int]:
        """The numbers in each file of a checkpoint, in bytes, by the name of the file; the formats add some."""
        parts = {
            MODEL_WEIGHTS: self.model, ENCODER_WEIGHTS: self.encoder, OPTIMIZER_STATE: self.optimizer,
            DISCRIMINATOR_WEIGHTS: self.discriminator, DISCRIMINATOR_OPTIMIZER_STATE: self.discriminator_optimizer,
        }  # fmt: skip
        return {
            name: sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in part.variables)
            for name, part in parts.items()
            if part is not None
        }


def save_checkpoint(
    folder: Path, header: Header, progress: SavedProgress, ranks: RankState, contents: TrainingState, keep: int | None
) -> Path:
    """Write a checkpoint below `folder`, whole or not at all; then delete those that it replaces.

    What stays: the newest `keep` of epochs, the best one, and of those made within epochs the ones that are among the
    newest `keep` of all (2 where `keep` is None). None stays that is further than this one: the run has gone on from
    an earlier one, or has fewer steps in an epoch now.

    Raises:
        UserError: the folder cannot be written (permissions, disk full); older checkpoints are left as they were.
    """
    final = folder / header.folder_name

    def write(partial: Path) -> None:
        _write(partial, header, contents)
        _write_text(partial / PROGRESS, progress.model_dump_json() + "\n")
        _write_arrays(partial / RANKS, {"own": ranks.own, "sums": ranks.sums, "counts": ranks.counts})

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if lacking := find_shortage(folder, contents.file_bytes):
            raise UserError(f"{final}: the checkpoint was not written: {lacking}, then go on with --resume")
        write_folder(final, write)
        found = list_checkpoints(folder)
        later = [path for path in found if place_of(path) > place_of(final)]
        earlier = [path for path in found if path not in later]
        for path in [*later, *_superfluous(earlier, keep, progress.best_epoch)]:
            remove_folder(path)
    except OSError as error:
        where = f"{Path(error.filename).name}: " if error.filename else ""
        raise UserError(
            f"{final}: the checkpoint could not be written: {where}{explain_os_error(error)}, then go on with --resume"
        ) from None
    return final


def _superfluous(checkpoints: Sequence[Path], keep: int | None, best_epoch: int | None) -> list[Path]:
    epochs = [path for path in checkpoints if place_of(path)[1] == 0]
    kept = epochs[-keep:] if keep else epochs
    kept += [path for path in epochs if place_of(path)[0] == best_epoch]
    kept += list(checkpoints)[-(keep or _STEP_CHECKPOINTS) :]
    return [path for path in checkpoints if path not in kept]


def _write(folder: Path, header: Header, contents: TrainingState) -> None:
    _write_weights(folder / MODEL_WEIGHTS, contents.model, header, contents.network)
    if contents.encoder is not None and not header.step_in_epoch:
        described = header.model_copy(update={"kind": "encoder", "classes": ()})
        _write_weights(folder / ENCODER_WEIGHTS, contents.encoder, described)
    _write_optimizer(folder / OPTIMIZER_STATE, contents.optimizer)
    if contents.discriminator is not None:
        _write_weights(folder / DISCRIMINATOR_WEIGHTS, contents.discriminator)
        _write_optimizer(folder / DISCRIMINATOR_OPTIMIZER_STATE, contents.discriminator_optimizer)
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


def _write_optimizer(path: Path, optimizer: keras.Optimizer | FrozenOptimizer | None) -> None:
    if isinstance(optimizer, FrozenOptimizer):
        values = optimizer.variables
    else:
        assert optimizer is not None
        values = [variable.numpy() for variable in optimizer_state(optimizer)]
    _write_arrays(path, {str(number): value for number, value in enumerate(values)})


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with naming(path):
        write_npz(path, arrays)


def _write_text(path: Path, text: str) -> None:
    with naming(path):
        path.write_text(text, "utf-8")


def find_newest_intact(folder: Path, num_epochs: int) -> Path | None:
    """The checkpoint from which a run of so many epochs goes on: the newest that is as it was written.

    A line is logged for each that is not. Of a run that is to end earlier now, none made within a later epoch.

    Returns:
        None where there are none.

    Raises:
        UserError: there are, and all of them are damaged.
    """
    damaged = []
    for path in reversed(list_checkpoints(folder)):
        epochs, step = place_of(path)
        if step and epochs >= num_epochs:
            continue
        reason = find_damage(path)
        if reason is None:
            return path
        damaged.append(f"{path} is damaged: {reason}")
        log.warning(f"{damaged[-1]}; looking at the one before it")
    if damaged:
        raise UserError(f"no checkpoint is left to go on from: {damaged[0]}; start anew with --overwrite")
    return None
