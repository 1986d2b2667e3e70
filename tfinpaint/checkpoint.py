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
from typing import Any, Literal, get_args

import h5py
import keras
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tfinpaint import commits, hdf5, npz, room
from tfinpaint.config_transforms import MOST_SIDE, Fill, Transform
from tfinpaint.errors import UserError
from tfinpaint.files import explained, naming
from tfinpaint.hdf5_output import new_hdf5
from tfinpaint.models.encoder import MAPS, STRIDE
from tfinpaint.models.network_file import MAX_BYTES
from tfinpaint.run_folder import MOST_PROGRESS_BYTES, PROGRESS, list_checkpoints, place_of

log = logging.getLogger(__name__)

Kind = Literal["inpainter", "classifier", "encoder"]
Phase = Literal["train", "test"]
RECORD_KEYS = {"phase", "epoch", "loss", "seconds", "images_per_second"}  # that every record of metrics has
KINDS: tuple[Kind, ...] = get_args(Kind)
MODEL, ENCODER, OPTIMIZER, HEADER = "model.weights.h5", "encoder.weights.h5", "optimizer.npz", "checkpoint.json"
DISCRIMINATOR, DISCRIMINATOR_OPTIMIZER = "discriminator.weights.h5", "discriminator_optimizer.npz"
RANKS = "ranks.npz"
ATTRIBUTE = "tfinpaint"  # of a weight file: its header
FORMAT = 1  # of a checkpoint; more where an older tfinpaint would misread it
_NETWORK = "tfinpaint_network"  # data set: the network's JSON, which is too long for an attribute
_STEP_CHECKPOINTS = 2  # kept where all checkpoints of epochs are


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
        format: of the checkpoint; those without a number are of the first.
        kind: "inpainter" (context encoder), "classifier", or "encoder" (the encoder's weights alone).
        epoch, step: training done, counted from the start of the run: whole epochs, and steps.
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
    format: int = Field(1, ge=1)
    kind: Kind
    epoch: int = Field(ge=0)
    step: int = Field(ge=0)
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
    batch_size: int = Field(ge=0)
    steps_per_epoch: int = Field(ge=0)

    @property
    def step_in_epoch(self) -> int:
        """Steps done of the epoch after `epoch`; all of them where it has not been evaluated yet."""
        return self.step - self.epoch * self.steps_per_epoch

    @property
    def folder_name(self) -> str:
        """Of the checkpoint."""
        return f"model_checkpoint_{self.epoch}" + (f"_step_{self.step_in_epoch}" if self.step_in_epoch else "")


class Progress(BaseModel):
    """What a run knows when it is saved, besides weights; every rank knows the same.

    Attributes:
        records: its metrics, as `report.metrics.MetricsLog` has them.
        config: its configuration, as `config_file.as_values` gives it; empty where it is not known.
        best_epoch: the saved epoch with the lowest loss on held-out images; None without any.
        data: digest of the names of the training images, in their order.
        images: their number.
        listed: digest of the names of all images that were there when the run began.
        left_out: the places among these of the images that could not be used then.
        names: of what the steps of the epoch under way have summed up, see `RankState.sums`.
        seconds: that these steps took.
        ranks, own: the rows of `RankState`, and the numbers that `RankState.own` has in each.
        own_names: names of the variables that these numbers are of; None where an older version has not recorded them.
        sum_parts: the length of the second axis of `RankState.sums`, where `RankState.counts` has 1; None in older
            checkpoints, where both have the steps of the epoch under way.
        trained: name of each trained weight -> for how many updates it has been trained, in the order in which
            `optimizer.npz` has their states; None where an older version has not recorded it.
        transferred: what was said of the weights that the run began with; () for random ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    records: tuple[dict[str, Phase | int | float], ...] = ()
    config: dict[str, Any] = {}
    best_epoch: int | None = None
    data: str = ""
    images: int = 0
    listed: str = ""
    left_out: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    seconds: float = 0.0
    ranks: int = Field(1, ge=1)
    own: int = Field(0, ge=0)
    own_names: tuple[str, ...] | None = None
    sum_parts: int | None = Field(None, ge=1)
    trained: dict[str, int] | None = None
    transferred: tuple[str, ...] = ()

    @field_validator("records")
    @classmethod
    def _are_records(cls, records: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for record in records:
            numbers = {name: value for name, value in record.items() if name != "phase"}
            if not record.keys() >= RECORD_KEYS or record["phase"] not in get_args(Phase):
                raise ValueError("not a record of an epoch's metrics")
            if not isinstance(record["epoch"], int) or any(isinstance(value, str) for value in numbers.values()):
                raise ValueError("a record of metrics holds what is no number")
        return records


@dataclass(frozen=True)
class RankState:
    """What each rank knows alone, a row per rank; the last two of the steps done of the epoch under way.

    Attributes:
        own: float64 [ranks, numbers]: variables in which the ranks differ, one after the other.
        sums: float64 [ranks, parts, names]: the exact sum of the parts is that of the loss or a metric over the images.
        counts: int64 [ranks, 1], or in older checkpoints [ranks, parts]: of these images.
    """

    own: np.ndarray
    sums: np.ndarray
    counts: np.ndarray


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
class Slot:
    """An array of `optimizer.npz`.

    Attributes:
        variable: what it is read into; None for what is passed over.
    """

    shape: tuple[int, ...]
    dtype: str
    variable: keras.Variable | None

    @classmethod
    def of(cls, variable: keras.Variable) -> Slot:
        return cls(tuple(variable.shape), variable.dtype, variable)


@dataclass(frozen=True)
class Contents:
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
            MODEL: self.model, ENCODER: self.encoder, OPTIMIZER: self.optimizer,
            DISCRIMINATOR: self.discriminator, DISCRIMINATOR_OPTIMIZER: self.discriminator_optimizer,
        }  # fmt: skip
        return {
            name: sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in part.variables)
            for name, part in parts.items()
            if part is not None
        }


def save(
    folder: Path, header: Header, progress: Progress, ranks: RankState, contents: Contents, keep: int | None
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
        if lacking := room.shortage(folder, contents.file_bytes):
            raise UserError(f"{final}: the checkpoint was not written: {lacking}, then go on with --resume")
        commits.write(final, write)
        found = list_checkpoints(folder)
        later = [path for path in found if place_of(path) > place_of(final)]
        earlier = [path for path in found if path not in later]
        for path in [*later, *_superfluous(earlier, keep, progress.best_epoch)]:
            commits.remove(path)
    except OSError as error:
        where = f"{Path(error.filename).name}: " if error.filename else ""
        raise UserError(
            f"{final}: the checkpoint could not be written: {where}{explained(error)}, then go on with --resume"
        ) from None
    return final


def _superfluous(checkpoints: Sequence[Path], keep: int | None, best_epoch: int | None) -> list[Path]:
    epochs = [path for path in checkpoints if place_of(path)[1] == 0]
    kept = epochs[-keep:] if keep else epochs
    kept += [path for path in epochs if place_of(path)[0] == best_epoch]
    kept += list(checkpoints)[-(keep or _STEP_CHECKPOINTS) :]
    return [path for path in checkpoints if path not in kept]


def _write(folder: Path, header: Header, contents: Contents) -> None:
    _write_weights(folder / MODEL, contents.model, header, contents.network)
    if contents.encoder is not None and not header.step_in_epoch:
        described = header.model_copy(update={"kind": "encoder", "classes": ()})
        _write_weights(folder / ENCODER, contents.encoder, described)
    _write_optimizer(folder / OPTIMIZER, contents.optimizer)
    if contents.discriminator is not None:
        _write_weights(folder / DISCRIMINATOR, contents.discriminator)
        _write_optimizer(folder / DISCRIMINATOR_OPTIMIZER, contents.discriminator_optimizer)
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
                file[_NETWORK] = np.frombuffer(json.dumps(network).encode(), np.uint8)


def _write_optimizer(path: Path, optimizer: keras.Optimizer | FrozenOptimizer | None) -> None:
    if isinstance(optimizer, FrozenOptimizer):
        values = optimizer.variables
    else:
        assert optimizer is not None
        values = [variable.numpy() for variable in optimizer_state(optimizer)]
    _write_arrays(path, {str(number): value for number, value in enumerate(values)})


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with naming(path):
        npz.write(path, arrays)


def _write_text(path: Path, text: str) -> None:
    with naming(path):
        path.write_text(text, "utf-8")


def newest_intact(folder: Path, num_epochs: int) -> Path | None:
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
        reason = commits.damage(path)
        if reason is None:
            return path
        damaged.append(f"{path} is damaged: {reason}")
        log.warning(f"{damaged[-1]}; looking at the one before it")
    if damaged:
        raise UserError(f"no checkpoint is left to go on from: {damaged[0]}; start anew with --overwrite")
    return None


def read_header(path: Path, allowed: tuple[Kind, ...] = KINDS) -> Header:
    """What a checkpoint folder or weight file holds.

    Raises:
        UserError: not a checkpoint of this project, of a kind that is not allowed here, or one whose header cannot be
            true.
    """
    file = path / MODEL if path.is_dir() else path
    try:
        with hdf5.open_file(file) as weights:
            _refuse_newer(path, str(weights.attrs[ATTRIBUTE]))
            header = Header.model_validate_json(str(weights.attrs[ATTRIBUTE]))
            has_network = _NETWORK in weights
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError):  # pydantic's: ValueErrors
        what = "a file of libtorch cannot be read" if path.suffix == ".pt" else "not a checkpoint of tfinpaint"
        raise UserError(
            f"{path}: {what}; expected a folder model_checkpoint_<epoch> or its {ENCODER}; checkpoints.load also takes "
            "the .h5, .weights.h5 and .keras files of Keras"
        ) from None
    if header.kind not in allowed:
        raise UserError(f"{path}: holds the weights of kind {header.kind}; expected: {' or '.join(allowed)}")
    if wrong := _contradiction(header, has_network, file.stat().st_size):
        raise UserError(f"{path}: its header cannot be true: {wrong}; copy the checkpoint anew")
    return header


def _refuse_newer(path: Path, header: str) -> None:
    """Refuse a checkpoint of a format that is not known yet. Raises ValueError, TypeError where there is no header."""
    found = json.loads(header).get("format", 1)
    if found > FORMAT:
        raise UserError(
            f"{path}: was written by a newer tfinpaint (its format is {found}, this one reads {FORMAT}); update "
            "tfinpaint"
        )


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


def read_progress(path: Path) -> Progress:
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
        return Progress.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        raise UserError(f"{file}: not the progress of a run; copy the checkpoint anew") from None


def read_ranks(path: Path, header: Header, progress: Progress) -> RankState:
    """What each rank knew when a checkpoint folder with this header and progress was written.

    Raises:
        UserError: the file is damaged.
    """
    ranks, steps = progress.ranks, header.step_in_epoch
    parts, columns = (progress.sum_parts, 1) if progress.sum_parts else (steps, steps)
    shapes = {"own": (ranks, progress.own), "sums": (ranks, parts, len(progress.names))}
    expected: npz.Expected = {name: (shape, np.float64) for name, shape in shapes.items()}
    return RankState(**npz.read(path / RANKS, {**expected, "counts": ((ranks, columns), np.int64)}))


def load_weights(path: Path, model: keras.Model) -> None:
    """Fill a model that was built as the file's header says.

    Raises:
        UserError: the file is damaged or does not fit the model.
    """
    _load_weights(path / MODEL if path.is_dir() else path, model)


def restore(
    path: Path,
    contents: Contents,
    slots: Sequence[Slot] | None = None,
    discriminator_slots: Sequence[Slot] | None = None,
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


def restore_models(path: Path, contents: Contents) -> None:
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


def _restore_optimizer(
    file: Path, optimizer: keras.Optimizer | FrozenOptimizer | None, slots: Sequence[Slot] | None
) -> None:
    assert isinstance(optimizer, keras.Optimizer), "a frozen state is only written"
    if slots is None:
        slots = [Slot.of(variable) for variable in optimizer_state(optimizer)]
    arrays = npz.read(file, {str(n): (slot.shape, slot.dtype) for n, slot in enumerate(slots)})
    for number, slot in enumerate(slots):
        if slot.variable is not None:
            slot.variable.assign(arrays[str(number)])
