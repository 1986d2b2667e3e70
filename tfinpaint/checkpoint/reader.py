"""Read checkpoints: open a weight file once, build and fill its model, and restore the state of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from pydantic import ValidationError

from tfinpaint.checkpoint import keras3
from tfinpaint.checkpoint.find import MOST_PROGRESS_BYTES, list_checkpoints
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
from tfinpaint.checkpoint.keras_files import DAMAGED, KerasFile, explaining_damage, is_keras_file
from tfinpaint.checkpoint.missing import refuse_incomplete
from tfinpaint.checkpoint.model import build_model
from tfinpaint.checkpoint.store import FrozenOptimizer, TrainingState, optimizer_state
from tfinpaint.checkpoint.transfer import LayerWeights, layer_weights
from tfinpaint.config.schema import Config
from tfinpaint.errors import UserError, first_line
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
from tfinpaint.models.keras_json.parse import MAX_BYTES
from tfinpaint.storage.safe_hdf5 import CheckedFile, open_hdf5
from tfinpaint.storage.safe_npz import Expected, read_npz


@dataclass(frozen=True)
class SavedModel:
    """A model that this project has saved: a header, and weights in a file that is open and checked.

    Attributes:
        path: the checkpoint folder or weight file, for messages.
        header: the description of the model.
        weights: the weight file.
    """

    path: Path
    header: Header
    weights: CheckedFile

    def model(self, size: tuple[int, int] | None = None) -> keras.Model:
        """Build the model that the header describes, and fill it with the saved weights.

        Args:
            size: height and width of the input images in pixels, if they differ from the header's. An encoder alone
                has weights that do not depend on them.

        Raises:
            UserError: The file is damaged.
        """
        height, width = size or (self.header.height, self.header.width)
        header = self.header.model_copy(update={"height": height, "width": width})
        file = weight_file(self.path)
        most_weights = file.stat().st_size // np.dtype(np.float32).itemsize
        model = build_model(header, self.network(), str(self.path), most_weights)
        _fill(model, file, self.weights)
        return model

    def layer_weights(self) -> LayerWeights:
        """Return the saved weights by layer name.

        Raises:
            UserError: The file is damaged.
        """
        return layer_weights(self.model())

    def network(self) -> dict[str, Any] | None:
        """Return the network of the model, as untrusted as a network file; None if the header describes the model.

        Raises:
            UserError: The file is damaged.
        """
        if self.header.network is None:
            return None
        try:
            stored = self.weights.root[NETWORK]
            if stored.size > MAX_BYTES:  # a group has no size: AttributeError
                raise ValueError(f"{stored.size} bytes, more than {MAX_BYTES}")
            network = json.loads(stored[()].tobytes())
            if not isinstance(network, dict):
                raise TypeError("not a JSON object")
        except DAMAGED as error:
            raise UserError(
                f"{self.path}: its network is damaged ({first_line(error)}); copy the checkpoint again"
            ) from None
        return network


@contextmanager
def open_checkpoint(path: Path, allowed: Sequence[Kind] = KINDS) -> Iterator[SavedModel]:
    """Open a checkpoint of this project, and check all of its weight file once.

    Args:
        path: a folder `model_checkpoint_<epoch>`, or a weight file that was copied out of one.
        allowed: the kinds of models that the caller can use.

    Raises:
        UserError: It is not a checkpoint of this project, its header is inconsistent, or its kind is not allowed.
    """
    with open_weights(path, allowed) as saved:
        if isinstance(saved, KerasFile):
            raise _not_a_checkpoint(path)
        yield saved


@contextmanager
def open_weights(path: Path, allowed: Sequence[Kind] = KINDS) -> Iterator[SavedModel | KerasFile]:
    """Open a checkpoint as `open_checkpoint` does, or a weight file that Keras itself has saved.

    Raises:
        UserError: It is neither; or as for `open_checkpoint`.
    """
    with ExitStack() as stack:
        yield _open_archive(path, stack) if keras3.is_archive(path) else _open(path, allowed, stack)


def _open_archive(path: Path, stack: ExitStack) -> KerasFile:
    with explaining_damage(path):
        contents, names = keras3.read_archive(path)
        return KerasFile(path, stack.enter_context(open_hdf5(path, contents)).root, names)


def _open(path: Path, allowed: Sequence[Kind], stack: ExitStack) -> SavedModel | KerasFile:
    file = weight_file(path)
    try:
        weights = stack.enter_context(open_hdf5(file))
        attributes = weights.root.attrs
        if ATTRIBUTE not in attributes and is_keras_file(weights.root):
            return KerasFile(path, weights.root, {})
        header = _parse_header(path, str(attributes[ATTRIBUTE]))
    except DAMAGED:
        raise _not_a_checkpoint(path) from None
    _check_header(path, header, NETWORK in weights.root, file.stat().st_size, allowed)
    return SavedModel(path, header, weights)


def _parse_header(path: Path, text: str) -> Header:
    refuse_newer_format(path, text)
    return Header.model_validate_json(text)  # ValidationError is a ValueError


def _check_header(path: Path, header: Header, has_network: bool, file_bytes: int, allowed: Sequence[Kind]) -> None:
    if header.kind not in allowed:
        raise UserError(f"{path}: holds the weights of kind {header.kind}; expected: {' or '.join(allowed)}")
    if wrong := find_contradiction(header, has_network, file_bytes):
        raise UserError(f"{path}: inconsistent header: {wrong}; copy the checkpoint again")


def _not_a_checkpoint(path: Path) -> UserError:
    if (path / HEADER).is_file():
        refuse_incomplete(path, (MODEL_WEIGHTS,), list_checkpoints(path.parent))
    what = "files of libtorch cannot be read" if path.suffix == ".pt" else "not a checkpoint of tfinpaint"
    return UserError(
        f"{path}: {what}; expected a folder model_checkpoint_<epoch>, its {ENCODER_WEIGHTS}, or a run folder that has "
        "checkpoints; checkpoints.load, probe and features also take the .h5, .weights.h5 and .keras files of Keras"
    )


def read_header(path: Path, allowed: Sequence[Kind] = KINDS) -> Header:
    """Return the header of a checkpoint folder, from its checkpoint.json, or of a weight file.

    Raises:
        UserError: As for `open_checkpoint`.
    """
    file = path / HEADER
    if not file.is_file():
        with open_checkpoint(path, allowed) as saved:
            return saved.header
    try:
        if file.stat().st_size > MOST_PROGRESS_BYTES:
            raise _not_a_checkpoint(path)
        header, file_bytes = _parse_header(path, file.read_text("utf-8")), weight_file(path).stat().st_size
    except DAMAGED:
        raise _not_a_checkpoint(path) from None
    _check_header(path, header, header.network is not None, file_bytes, allowed)
    return header


def weight_file(path: Path) -> Path:
    """Return the file with the model's weights, of a checkpoint folder or such a file itself."""
    return path / MODEL_WEIGHTS if path.is_dir() else path


def read_progress(path: Path) -> SavedProgress:
    """Return the progress of the run that wrote a checkpoint folder.

    Raises:
        UserError: The file is missing or damaged.
    """
    file = path / PROGRESS
    try:
        if not file.is_file() or file.stat().st_size > MOST_PROGRESS_BYTES:
            raise UserError(
                f"{file}: missing, or larger than {MOST_PROGRESS_BYTES >> 20} MiB; copy the checkpoint again"
            )
        return SavedProgress.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        raise UserError(f"{file}: not the progress of a run; copy the checkpoint again") from None


def read_config(path: Path) -> Config | None:
    """Return the configuration of the run that wrote a checkpoint.

    Args:
        path: a checkpoint folder, or a weight file in one.

    Returns:
        None where it is not recorded beside the weights.

    Raises:
        UserError: It cannot be used.
    """
    folder = path if path.is_dir() else path.parent
    values = read_progress(folder).config if (folder / PROGRESS).is_file() else {}
    try:
        return Config.model_validate(values) if values else None
    except ValidationError:
        raise UserError(f"{folder / PROGRESS}: its configuration is not one of this version") from None


def require_config(path: Path) -> Config:
    """Return the configuration of the run that wrote a checkpoint folder.

    Raises:
        UserError: It is not recorded, or cannot be used.
    """
    if not path.is_dir():
        raise UserError(
            f"{path}: does not say how its run prepared images; name the run folder, or its checkpoint folder"
        )
    refuse_incomplete(path, (PROGRESS,), list_checkpoints(path.parent))
    config = read_config(path)
    if config is None:
        raise UserError(f"{path / PROGRESS}: does not have the configuration of the run; name another checkpoint")
    return config


def read_ranks(path: Path, header: Header, progress: SavedProgress) -> RankState:
    """Return the state of each rank when a checkpoint folder with this header and progress was written.

    Raises:
        UserError: The file is missing or damaged.
    """
    ranks, steps = progress.ranks, header.step_in_epoch
    parts, columns = (progress.sum_parts, 1) if progress.sum_parts else (steps, steps)
    shapes = {"own": (ranks, progress.own), "sums": (ranks, parts, len(progress.names))}
    expected: Expected = {name: (shape, np.float64) for name, shape in shapes.items()}
    return RankState(**read_npz(path / RANKS, {**expected, "counts": ((ranks, columns), np.int64)}))


def restore_training(
    path: Path,
    contents: TrainingState,
    slots: Sequence[OptimizerSlot] | None = None,
    companion_slots: Mapping[str, Sequence[OptimizerSlot]] | None = None,
) -> None:
    """Fill models and built optimizers from a checkpoint folder, so that training can continue.

    Args:
        slots, companion_slots: the arrays in the files of the optimizers, those of companions by their names; None: the
            state of the optimizers in `contents`.

    Raises:
        UserError: A file is damaged or does not fit.
    """
    load_weights(path / MODEL_WEIGHTS, contents.model)
    _restore_optimizer(path / OPTIMIZER_STATE, contents.optimizer, slots)
    for name, companion in contents.companions.items():
        load_weights(path / companion_weights(name), companion.model)
        others = companion_slots[name] if companion_slots is not None else None
        _restore_optimizer(path / companion_optimizer(name), companion.optimizer, others)


def load_weights(file: Path, model: keras.Model) -> None:
    """Fill a built model from a weight file.

    Raises:
        UserError: The file is damaged or does not fit the model.
    """
    with ExitStack() as stack:
        try:
            weights = stack.enter_context(open_hdf5(file))
        except DAMAGED as error:
            raise _cannot_load(file, first_line(error)) from None
        _fill(model, file, weights)


def _fill(model: keras.Model, file: Path, weights: CheckedFile) -> None:
    if not file.name.endswith("weights.h5"):  # Keras decides by the name, and would read the same bytes as an archive
        raise _cannot_load(file, "expected a name that ends in .weights.h5")
    stored = [size for name, size in weights.array_bytes.items() if name != f"/{NETWORK}"]
    wanted = [int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in model.variables]
    # Keras compares names and shapes, but reads an array into memory before it does.
    if stored and (max(stored) > max(wanted, default=0) or sum(stored) > sum(wanted)):
        raise _cannot_load(file, f"{sum(stored)} bytes in {len(stored)} arrays are more than this model has")
    try:
        model.load_weights(file)
    except DAMAGED as error:
        raise _cannot_load(file, first_line(error)) from None


def _cannot_load(file: Path, reason: str) -> UserError:
    return UserError(f"{file}: cannot load the weights: {reason}")


def _restore_optimizer(
    file: Path, optimizer: keras.Optimizer | FrozenOptimizer, slots: Sequence[OptimizerSlot] | None
) -> None:
    assert isinstance(optimizer, keras.Optimizer), "a frozen state is only written"
    if slots is None:
        slots = [OptimizerSlot.of(variable) for variable in optimizer_state(optimizer)]
    arrays = read_npz(file, {str(n): (slot.shape, slot.dtype) for n, slot in enumerate(slots)})
    for number, slot in enumerate(slots):
        if slot.variable is not None:
            slot.variable.assign(arrays[str(number)])
