"""Checkpoints: written whole or not at all, self-describing, loaded by kind.

A checkpoint is a folder `model_checkpoint_<epoch>` with `model.weights.h5`, `encoder.weights.h5` (both in Keras's own
format; the encoder file also loads into `keras.applications.ResNet50(include_top=False)`), `optimizer.npz` and
`checkpoint.json`; after training with a discriminator also `discriminator.weights.h5` and
`discriminator_optimizer.npz`. The weight files of model and encoder carry the same header as an HDF5 attribute, so they
can be moved on their own. A model that was built from a network file has no encoder file, and carries its network in
`model.weights.h5`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import keras
import numpy as np
from pydantic import BaseModel, ConfigDict

from tfinpaint import hdf5
from tfinpaint.config_transforms import MOST_SIDE, Fill, Transform
from tfinpaint.errors import UserError
from tfinpaint.models.encoder import MAPS, STRIDE
from tfinpaint.models.network_file import MAX_BYTES

log = logging.getLogger(__name__)

Kind = Literal["inpainter", "classifier", "encoder"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MODEL, ENCODER, OPTIMIZER, HEADER = "model.weights.h5", "encoder.weights.h5", "optimizer.npz", "checkpoint.json"
DISCRIMINATOR, DISCRIMINATOR_OPTIMIZER = "discriminator.weights.h5", "discriminator_optimizer.npz"
_ATTRIBUTE = "tfinpaint"
_NETWORK = "tfinpaint_network"  # data set: the network's JSON, which is too long for an attribute
SPACE_MARGIN_BYTES = 32 * 2**20  # file formats' own overhead, and what other programs write meanwhile
_NAME = re.compile(r"model_checkpoint_(\d+)$")


class Restoration(BaseModel):
    """How an inpainter's input is made, so that it can restore pictures outside of its run.

    Attributes:
        fill: what it sees in the hole.
        input_transforms: steps after that; they change values, not places.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    fill: Fill
    input_transforms: tuple[Transform, ...] = ()


class Header(BaseModel):
    """What a weight file holds: enough to build the model that it fits, and to go on training.

    Attributes:
        kind: "inpainter" (context encoder), "classifier", or "encoder" (the encoder's weights alone).
        epoch, step: training done, counted from the start of the run.
        encoder, encoder_output: arguments of `models.encoder.build_encoder`; None for a network of its own.
        network: SHA-256 of that network's definition, else None.
        height, width, channels: of the input images; pixels, 1 or 3.
        target_channels: of the images that an inpainter makes.
        bottleneck, output_activation: of an inpainter, arguments of `models.inpaint.build_inpainter`.
        restoration: of an inpainter whose outputs are pixels of the erased image; else None.
        adversarial: type of the discriminator's optimizer in the configuration; None without a discriminator.
        classes: class names of a classifier, else empty.
        optimizer: its type in the configuration; several have states of the same shapes.
        loss_scaled: the optimizer's state holds that of a loss scale.
        lr_factor: by which learning rates were multiplied for the number of ranks.
        batch_size, steps_per_epoch: of the run; they place `step` in the data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Kind
    epoch: int
    step: int
    encoder: Literal["resnet50", "tiny"] | None
    encoder_output: Literal["before_add", "after_relu"] | None
    network: str | None = None
    height: int
    width: int
    channels: int = 3
    target_channels: int = 3
    bottleneck: Literal["channelwise"] | None = None
    output_activation: Literal["sigmoid", "linear"] = "sigmoid"
    restoration: Restoration | None = None
    adversarial: str | None = None
    classes: tuple[str, ...] = ()
    optimizer: str | None = None
    loss_scaled: bool = False
    lr_factor: float = 1.0
    batch_size: int
    steps_per_epoch: int


@dataclass(frozen=True)
class Contents:
    """What goes into a checkpoint besides its header.

    Attributes:
        encoder: the encoder inside `model`, None for a model built from a network file.
        network: definition of such a model's network, as `models.network.read_network` gives it.
        discriminator, discriminator_optimizer: of the joint loss, both or neither.
    """

    model: keras.Model
    optimizer: keras.Optimizer
    encoder: keras.Model | None
    network: dict[str, Any] | None = None
    discriminator: keras.Model | None = None
    discriminator_optimizer: keras.Optimizer | None = None

    @property
    def variables(self) -> list[keras.Variable]:
        """All that is written, twice where it is written twice."""
        written = (self.model, self.encoder, self.optimizer, self.discriminator, self.discriminator_optimizer)
        return [variable for part in written if part is not None for variable in part.variables]


def save(folder: Path, header: Header, contents: Contents, keep: int | None) -> Path:
    """Write `folder/model_checkpoint_<epoch>` under a temporary name, sync it, rename it; drop all but `keep`.

    Raises:
        UserError: the folder cannot be written (permissions, disk full); older checkpoints are left as they were.
    """
    final = folder / f"model_checkpoint_{header.epoch}"
    partial = folder / f".{final.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_space(folder, contents.variables)
        for leftover in folder.glob(".model_checkpoint_*.partial"):
            shutil.rmtree(leftover)
        partial.mkdir()
        _write(partial, header, contents)
        _sync(partial)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _sync_folder(folder)
        if keep is not None:
            remove([path for path in list_checkpoints(folder)[:-keep] if path != final])
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"{final}: the checkpoint could not be written: {error.strerror or error}") from None
    return final


def _check_space(folder: Path, variables: Sequence[keras.Variable]) -> None:
    """Refuse before writing: HDF5 does not survive a disk that fills while it writes."""
    needed = sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in variables) + SPACE_MARGIN_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free // 2**20} MiB free, {needed // 2**20} MiB needed for a checkpoint; make room and go on "
            "with --resume"
        )


def _write(folder: Path, header: Header, contents: Contents) -> None:
    contents.model.save_weights(folder / MODEL)
    _describe(folder / MODEL, header, contents.network)
    if contents.encoder is not None:
        contents.encoder.save_weights(folder / ENCODER)
        _describe(folder / ENCODER, header.model_copy(update={"kind": "encoder", "classes": ()}))
    _write_optimizer(folder / OPTIMIZER, contents.optimizer)
    if contents.discriminator is not None:
        contents.discriminator.save_weights(folder / DISCRIMINATOR)
        _write_optimizer(folder / DISCRIMINATOR_OPTIMIZER, contents.discriminator_optimizer)
    (folder / HEADER).write_text(header.model_dump_json(indent=2) + "\n")


def _write_optimizer(path: Path, optimizer: keras.Optimizer) -> None:
    store: dict[str, np.ndarray] = {}
    optimizer.save_own_variables(store)
    np.savez(path, allow_pickle=False, **store)


def _describe(path: Path, header: Header, network: dict[str, Any] | None = None) -> None:
    with h5py.File(path, "a") as file:
        file.attrs[_ATTRIBUTE] = header.model_dump_json()
        if network is not None:
            file[_NETWORK] = np.frombuffer(json.dumps(network).encode(), np.uint8)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a folder, oldest epoch first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.match(path.name))]
    return [path for _, path in sorted(found) if (path / HEADER).is_file()]


def remove(checkpoints: Iterable[Path]) -> None:
    """Delete these checkpoint folders."""
    for path in checkpoints:
        shutil.rmtree(path)


def find(path: Path) -> Path:
    """A checkpoint folder or weight file.

    The seed tool's `model_checkpoint_100.pt` finds this project's `model_checkpoint_100`; in its absence, with a
    warning, the newest one before it: a run that was made shorter ends with another number.

    Raises:
        UserError: there is none.
    """
    kept = list_checkpoints(path.parent)
    seed_name = _NAME.match(path.stem) if path.suffix == ".pt" else None
    if seed_name and path.with_suffix("") in kept:
        return path.with_suffix("")
    if path.exists():
        return path
    if seed_name and (earlier := [other for other in kept if _epoch(other) <= int(seed_name[1])]):
        log.warning(f"checkpoints.load: {path.stem} is not there; taking {earlier[-1].name}, the newest before")
        return earlier[-1]
    hint = f"; there are {', '.join(other.name for other in kept)}" if kept else ""
    raise UserError(f"checkpoints.load: no such checkpoint: {path}{hint}")


def _epoch(path: Path) -> int:
    return int(path.name.rpartition("_")[2])


def read_header(path: Path, allowed: tuple[Kind, ...] = KINDS) -> Header:
    """What a checkpoint folder or weight file holds.

    Raises:
        UserError: not a checkpoint of this project, of a kind that is not allowed here, or one whose header cannot be
            true.
    """
    file = path / MODEL if path.is_dir() else path
    try:
        with hdf5.open_file(file) as weights:
            header = Header.model_validate_json(str(weights.attrs[_ATTRIBUTE]))
            has_network = _NETWORK in weights
    except (OSError, RuntimeError, LookupError, ValueError, TypeError):  # pydantic's errors are ValueErrors
        what = "a file of libtorch cannot be read" if path.suffix == ".pt" else "not a checkpoint of tfinpaint"
        raise UserError(
            f"{path}: {what}; expected a folder model_checkpoint_<epoch>, its {ENCODER}, or a Keras 2 file (.h5)"
        ) from None
    if header.kind not in allowed:
        raise UserError(f"{path}: holds the weights of kind {header.kind}; expected: {' or '.join(allowed)}")
    if wrong := _contradiction(header, has_network, file.stat().st_size):
        raise UserError(f"{path}: its header cannot be true: {wrong}; copy the checkpoint anew")
    return header


def _contradiction(header: Header, has_network: bool, file_bytes: int) -> str | None:
    """Why no model can be built as a header says, or none whose weights the file could hold; None where one can."""
    height, width = header.height, header.width
    if not (0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE) or {header.channels, header.target_channels} - {1, 3}:
        return f"images of {width} x {height} with {header.channels} channels become {header.target_channels} channels"
    if header.kind == "classifier" and not header.classes:
        return "a classifier without classes"
    if has_network != (header.network is not None):
        return "it names a network that is not there, or none where there is one"
    if header.restoration and not all(
        s.changes_values and not s.is_random for s in header.restoration.input_transforms
    ):
        return "restoration.input_transforms change more than values"
    if has_network:
        return None  # `models.network` counts the weights
    if not header.encoder or not header.encoder_output or (header.kind == "inpainter" and (height | width) % STRIDE):
        return f"no encoder makes images of {width} x {height}"
    positions, maps = -(-height // STRIDE) * -(-width // STRIDE), MAPS[header.encoder]
    weights = {"inpainter": maps * positions**2 if header.bottleneck else 0, "encoder": 0}
    weights["classifier"] = maps * positions * len(header.classes)
    if 4 * weights[header.kind] > file_bytes:
        return f"{weights[header.kind]} weights of one layer in {file_bytes} bytes"
    return None


def read_network(path: Path) -> dict[str, Any] | None:
    """The network of a checkpoint folder or weight file; None where the header describes the model.

    It is as untrusted as a network file: `models.network.build_network` builds nothing that is not on its list.

    Raises:
        UserError: it is damaged.
    """
    try:
        with hdf5.open_file(path / MODEL if path.is_dir() else path) as file:
            if _NETWORK not in file:
                return None
            size = file[_NETWORK].size  # of a group: AttributeError
            if size > MAX_BYTES:
                raise UserError(f"{path}: its network takes {size} bytes, more than {MAX_BYTES}")
            network = json.loads(file[_NETWORK][()].tobytes())
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: its network is damaged ({_first_line(error)}); copy the checkpoint anew") from None
    if not isinstance(network, dict):
        raise UserError(f"{path}: its network is damaged (not an object); copy the checkpoint anew")
    return network


def most_weights(path: Path) -> int:
    """How many weights a checkpoint folder or weight file can hold, by its size."""
    return (path / MODEL if path.is_dir() else path).stat().st_size // 4


def load_weights(path: Path, model: keras.Model) -> None:
    """Fill a model that was built as the file's header says.

    Raises:
        UserError: the file is damaged or does not fit the model.
    """
    _load_weights(path / MODEL if path.is_dir() else path, model)


def restore(path: Path, contents: Contents) -> None:
    """Fill models and built optimizers from a checkpoint folder, to go on training.

    Raises:
        UserError: a file is damaged or does not fit.
    """
    _load_weights(path / MODEL, contents.model)
    _restore_optimizer(path / OPTIMIZER, contents.optimizer)
    if contents.discriminator is not None:
        _load_weights(path / DISCRIMINATOR, contents.discriminator)
        _restore_optimizer(path / DISCRIMINATOR_OPTIMIZER, contents.discriminator_optimizer)


def _load_weights(file: Path, model: keras.Model) -> None:
    if not file.name.endswith("weights.h5"):  # Keras decides by the name, and would read the same bytes as an archive
        raise UserError(f"{file}: the weights cannot be loaded: expected a name that ends in .weights.h5")
    try:
        with hdf5.open_file(file) as weights:
            _check_sizes(weights, model)
        model.load_weights(file)
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise UserError(f"{file}: the weights cannot be loaded: {_first_line(error)}") from None


def _check_sizes(weights: h5py.File, model: keras.Model) -> None:
    """Names and shapes are compared by Keras, which reads an array before. Raises ValueError."""
    stored: list[int] = []

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and name != _NETWORK:
            stored.append(item.nbytes)

    weights.visititems(add)
    wanted = [int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in model.variables]
    if stored and (max(stored) > max(wanted, default=0) or sum(stored) > sum(wanted)):
        raise ValueError(f"{sum(stored)} bytes in {len(stored)} arrays, of a larger model than this one")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _restore_optimizer(file: Path, optimizer: keras.Optimizer) -> None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: the optimizer state cannot be loaded: {error}") from None
    shapes = [tuple(variable.shape) for variable in optimizer.variables]
    if {name: array.shape for name, array in arrays.items()} != {str(i): shape for i, shape in enumerate(shapes)}:
        raise UserError(f"{file}: the state of another optimizer; resume with the optimizer of the run")
    rate = optimizer.get_config()["learning_rate"]
    optimizer.load_own_variables(arrays)
    if isinstance(rate, float):  # a constant rate is among the variables; the configuration's has the last word
        optimizer.learning_rate = rate
