"""The header of a checkpoint and the state that goes with it: what is in the files, and who may load it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tfinpaint.config.transforms import MOST_SIDE, Fill, Transform
from tfinpaint.errors import UserError
from tfinpaint.layout import checkpoint_name
from tfinpaint.models.encoder import MAPS, STRIDE

Kind = Literal["inpainter", "classifier", "encoder"]


Phase = Literal["train", "test"]


RECORD_KEYS = {"phase", "epoch", "loss", "seconds", "images_per_second"}  # that every record of metrics has


KINDS: tuple[Kind, ...] = get_args(Kind)


ATTRIBUTE = "tfinpaint"  # of a weight file: its header


FORMAT = 1  # of a checkpoint; more where an older tfinpaint would misread it


NETWORK = "tfinpaint_network"  # data set: the network's JSON, which is too long for an attribute


class InputSpec(BaseModel):
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
    restoration: InputSpec | None = None
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
        return checkpoint_name(self.epoch, self.step_in_epoch)


class SavedProgress(BaseModel):
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
class OptimizerSlot:
    """An array of `optimizer.npz`.

    Attributes:
        variable: what it is read into; None for what is passed over.
    """

    shape: tuple[int, ...]
    dtype: str
    variable: keras.Variable | None

    @classmethod
    def of(cls, variable: keras.Variable) -> OptimizerSlot:
        return cls(tuple(variable.shape), variable.dtype, variable)


def refuse_newer_format(path: Path, header: str) -> None:
    """Refuse a checkpoint of a format that is not known yet. Raises ValueError, TypeError where there is no header."""
    found = json.loads(header).get("format", 1)
    if found > FORMAT:
        raise UserError(
            f"{path}: was written by a newer tfinpaint (its format is {found}, this one reads {FORMAT}); update "
            "tfinpaint"
        )


def find_contradiction(header: Header, has_network: bool, file_bytes: int) -> str | None:
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
