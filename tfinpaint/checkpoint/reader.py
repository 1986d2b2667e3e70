"""Read a checkpoint: its header, its network, and the weights and optimizer state that fill a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from pydantic import ValidationError

from tfinpaint.checkpoint.find import MOST_PROGRESS_BYTES, PROGRESS
from tfinpaint.checkpoint.header import (
    ATTRIBUTE,
    KINDS,
    NETWORK,
    Header,
    Kind,
    OptimizerSlot,
    RankState,
    SavedProgress,
    find_contradiction,
    refuse_newer_format,
)
from tfinpaint.checkpoint.store import (
    DISCRIMINATOR,
    DISCRIMINATOR_OPTIMIZER,
    ENCODER,
    MODEL,
    OPTIMIZER,
    RANKS,
    FrozenOptimizer,
    TrainingState,
    optimizer_state,
)
from tfinpaint.errors import UserError
from tfinpaint.models.keras_json.parse import MAX_BYTES
from tfinpaint.storage import safe_npz
from tfinpaint.storage.safe_hdf5 import open_hdf5
from tfinpaint.storage.safe_npz import read_npz


def read_header(path: Path, allowed: tuple[Kind, ...] = KINDS) -> Header:
    """What a checkpoint folder or weight file holds.

    Raises:
        UserError: not a checkpoint of this project, of a kind that is not allowed here, or one whose header cannot be
            true.
    """
    file = path / MODEL if path.is_dir() else path
    try:
        with open_hdf5(file) as weights:
            refuse_newer_format(path, str(weights.attrs[ATTRIBUTE]))
            header = Header.model_validate_json(str(weights.attrs[ATTRIBUTE]))
            has_network = NETWORK in weights
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError):  # pydantic's: ValueErrors
        what = "a file of libtorch cannot be read" if path.suffix == ".pt" else "not a checkpoint of tfinpaint"
        raise UserError(
            f"{path}: {what}; expected a folder model_checkpoint_<epoch> or its {ENCODER}; checkpoints.load also takes "
            "the .h5, .weights.h5 and .keras files of Keras"
        ) from None
    if header.kind not in allowed:
        raise UserError(f"{path}: holds the weights of kind {header.kind}; expected: {' or '.join(allowed)}")
    if wrong := find_contradiction(header, has_network, file.stat().st_size):
        raise UserError(f"{path}: its header cannot be true: {wrong}; copy the checkpoint anew")
    return header


def read_network(path: Path) -> dict[str, Any] | None:
    """The network of a checkpoint folder or weight file; None where the header describes the model.

    It is as untrusted as a network file: `models.network.build_network` builds nothing that is not on its list.

    Raises:
        UserError: it is damaged.
    """
    try:
        with open_hdf5(path / MODEL if path.is_dir() else path) as file:
            if NETWORK not in file:
                return None
            size = file[NETWORK].size  # of a group: AttributeError
            if size > MAX_BYTES:
                raise UserError(f"{path}: its network takes {size} bytes, more than {MAX_BYTES}")
            network = json.loads(file[NETWORK][()].tobytes())
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: its network is damaged ({_first_line(error)}); copy the checkpoint anew") from None
    if not isinstance(network, dict):
        raise UserError(f"{path}: its network is damaged (not an object); copy the checkpoint anew")
    return network


def most_weights(path: Path) -> int:
    """How many weights a checkpoint folder or weight file can hold, by its size."""
    return (path / MODEL if path.is_dir() else path).stat().st_size // 4


def read_progress(path: Path) -> SavedProgress:
    """Where the run stood that wrote a checkpoint folder.

    Raises:
        UserError: the file is damaged.
    """
    file = path / PROGRESS
    try:
        if not file.is_file() or file.stat().st_size > MOST_PROGRESS_BYTES:
            raise UserError(
                f"{file}: missing, or larger than {MOST_PROGRESS_BYTES >> 20} MiB; copy the checkpoint anew"
            )
        return SavedProgress.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        raise UserError(f"{file}: not the progress of a run; copy the checkpoint anew") from None


def read_ranks(path: Path, header: Header, progress: SavedProgress) -> RankState:
    """What each rank knew when a checkpoint folder with this header and progress was written.

    Raises:
        UserError: the file is damaged.
    """
    ranks, steps = progress.ranks, header.step_in_epoch
    parts, columns = (progress.sum_parts, 1) if progress.sum_parts else (steps, steps)
    shapes = {"own": (ranks, progress.own), "sums": (ranks, parts, len(progress.names))}
    expected: safe_npz.Expected = {name: (shape, np.float64) for name, shape in shapes.items()}
    return RankState(**read_npz(path / RANKS, {**expected, "counts": ((ranks, columns), np.int64)}))


def load_weights(path: Path, model: keras.Model) -> None:
    """Fill a model that was built as the file's header says.

    Raises:
        UserError: the file is damaged or does not fit the model.
    """
    _load_weights(path / MODEL if path.is_dir() else path, model)


def restore_training(
    path: Path,
    contents: TrainingState,
    slots: Sequence[OptimizerSlot] | None = None,
    discriminator_slots: Sequence[OptimizerSlot] | None = None,
) -> None:
    """Fill models and built optimizers from a checkpoint folder, to go on training.

    Args:
        slots, discriminator_slots: what the files of the optimizers hold; None: the state of `contents`' optimizers.

    Raises:
        UserError: a file is damaged or does not fit.
    """
    restore_models(path, contents)
    _restore_optimizer(path / OPTIMIZER, contents.optimizer, slots)
    if contents.discriminator is not None:
        _restore_optimizer(path / DISCRIMINATOR_OPTIMIZER, contents.discriminator_optimizer, discriminator_slots)


def restore_models(path: Path, contents: TrainingState) -> None:
    """Fill models from a checkpoint folder, without their optimizers.

    Raises:
        UserError: a file is damaged or does not fit.
    """
    _load_weights(path / MODEL, contents.model)
    if contents.discriminator is not None:
        _load_weights(path / DISCRIMINATOR, contents.discriminator)


def _load_weights(file: Path, model: keras.Model) -> None:
    if not file.name.endswith("weights.h5"):  # Keras decides by the name, and would read the same bytes as an archive
        raise UserError(f"{file}: the weights cannot be loaded: expected a name that ends in .weights.h5")
    try:
        with open_hdf5(file) as weights:
            _check_sizes(weights, model)
        model.load_weights(file)
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise UserError(f"{file}: the weights cannot be loaded: {_first_line(error)}") from None


def _check_sizes(weights: h5py.File, model: keras.Model) -> None:
    """Names and shapes are compared by Keras, which reads an array before. Raises ValueError."""
    stored: list[int] = []

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and name != NETWORK:
            stored.append(item.nbytes)

    weights.visititems(add)
    wanted = [int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in model.variables]
    if stored and (max(stored) > max(wanted, default=0) or sum(stored) > sum(wanted)):
        raise ValueError(f"{sum(stored)} bytes in {len(stored)} arrays, of a larger model than this one")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _restore_optimizer(
    file: Path, optimizer: keras.Optimizer | FrozenOptimizer | None, slots: Sequence[OptimizerSlot] | None
) -> None:
    assert isinstance(optimizer, keras.Optimizer), "a frozen state is only written"
    if slots is None:
        slots = [OptimizerSlot.of(variable) for variable in optimizer_state(optimizer)]
    arrays = read_npz(file, {str(n): (slot.shape, slot.dtype) for n, slot in enumerate(slots)})
    for number, slot in enumerate(slots):
        if slot.variable is not None:
            slot.variable.assign(arrays[str(number)])
