"""The contents of a checkpoint: its header, a run's progress, the state of each rank, and a check of the header."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tfinpaint.config.encoders import ARCHITECTURES, STRIDES, EncoderName, EncoderOutput, Stem
from tfinpaint.config.transforms import MAX_SIDE, Fill, Transform
from tfinpaint.errors import UserError
from tfinpaint.layout import checkpoint_name

Kind = Literal["inpainter", "classifier", "encoder"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Phase = Literal["train", "validation", "test"]
RECORD_KEYS = {"phase", "epoch", "loss", "seconds", "images_per_second"}  # keys of every record of metrics
ATTRIBUTE = "tfinpaint"  # the attribute of a weight file that holds the header
FORMAT = 1  # of checkpoints; to be raised if an older tfinpaint would misread a newer checkpoint
NETWORK = "tfinpaint_network"  # the data set with the network's JSON, which is too long for an attribute


class InputSpec(BaseModel):
    """The preparation of an inpainter's input, so that it can restore other images than those of its run.

    Attributes:
        fill: how the hole is filled.
        input_transforms: the transforms after that, which change values and do not move pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    fill: Fill
    input_transforms: tuple[Transform, ...] = ()


class Header(BaseModel):
    """The description of a weight file: enough to build the model that it fits, and to resume training.

    Attributes:
        format: the format of the checkpoint; the oldest checkpoints lack this field.
        kind: "inpainter" (context encoder), "classifier", or "encoder" (the encoder's weights alone).
        epoch, step: whole epochs and steps since the start of the run.
        encoder, encoder_output: arguments of `models.encoder.build_encoder`; None if there is a network file.
        stem: another argument of it.
        network: SHA-256 of the network file's definition; None without one.
        height, width, channels: those of the input images; pixels, 1 or 3.
        target_channels: channels of an inpainter's output images.
        bottleneck, decoder, output_activation: arguments of `models.decoder.build_inpainter`.
        head: argument of `models.classifier.build_classifier`.
        restoration: how the input is prepared, if the outputs are pixels of the erased image; else None.
        adversarial: type of the discriminator's optimizer in the configuration; None without a discriminator.
        classes: a classifier's class names; else empty.
        optimizer: type of the optimizer in the configuration, since different optimizers may have states of equal
            shapes.
        loss_scaled: whether the optimizer's state includes that of a loss scale.
        lr_factor: factor of the learning rates for the number of ranks.
        batch_size, steps_per_epoch: those of the run, which determine the images of each step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = Field(1, ge=1)
    kind: Kind
    epoch: int = Field(ge=0)
    step: int = Field(ge=0)
    encoder: EncoderName | None
    encoder_output: EncoderOutput | None
    stem: Stem = "standard"
    network: str | None = None
    height: int
    width: int
    channels: int = 3
    target_channels: int = 3
    bottleneck: Literal["channelwise"] | None = None
    decoder: Literal["plain", "batchnorm"] = "plain"
    output_activation: Literal["sigmoid", "linear"] = "sigmoid"
    head: Literal["flatten", "pool"] = "flatten"
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
        """Return the steps done in the epoch after `epoch`; all of them if it has not been evaluated yet."""
        return self.step - self.epoch * self.steps_per_epoch

    @property
    def folder_name(self) -> str:
        """Return the name of the checkpoint's folder."""
        return checkpoint_name(self.epoch, self.step_in_epoch)


class SavedProgress(BaseModel):
    """The state of a run besides its weights, which is the same on all ranks.

    Attributes:
        records: the records of its metrics, as in `report.metrics_log.MetricsLog`.
        config: its configuration, as `config.diff.as_values` returns it; empty if it is unknown.
        best_epoch: the saved epoch with the lowest loss on held-out images; None without any.
        best_probe_epoch: the saved epoch with the highest accuracy of the probe in pretraining; None without any.
        data: digest of the names of the training images, in their order.
        images: number of training images.
        listed: digest of the names of all images that existed when the run began.
        left_out: indices among these of the images that were unusable.
        names: names of the sums over the steps of the current epoch, see `RankState.sums`.
        seconds: duration of these steps.
        ranks, own: number of rows of `RankState`, and of columns of `RankState.own`.
        own_names: names of the variables in these columns; None in checkpoints of older versions.
        sum_parts: length of the second axis of `RankState.sums`, if that of `RankState.counts` is 1; None in older
            checkpoints, in which both are the number of steps of the current epoch.
        trained: name of each trained weight -> number of its updates, in the order of their states in `optimizer.npz`;
            None in checkpoints of older versions.
        transferred: lines of the log about the weights that the run began with; () for random ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    records: tuple[dict[str, Phase | int | float], ...] = ()
    config: dict[str, Any] = {}
    best_epoch: int | None = None
    best_probe_epoch: int | None = None
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

    @property
    def best_epochs(self) -> set[int]:
        """The epochs whose checkpoints are the best by a criterion."""
        return {epoch for epoch in (self.best_epoch, self.best_probe_epoch) if epoch is not None}

    @field_validator("records")
    @classmethod
    def _are_records(cls, records: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for record in records:
            numbers = {name: value for name, value in record.items() if name != "phase"}
            if not record.keys() >= RECORD_KEYS or record["phase"] not in get_args(Phase):
                raise ValueError("not a record of the metrics of an epoch")
            if not isinstance(record["epoch"], int) or any(isinstance(value, str) for value in numbers.values()):
                raise ValueError("a record of metrics holds a value that is not a number")
        return records


@dataclass(frozen=True)
class RankState:
    """The state in which ranks differ, with a row for each rank.

    Attributes:
        own: float64 [ranks, numbers]: the values of variables in which ranks differ, concatenated.
        sums: float64 [ranks, parts, names]: the exact sum over the parts is the sum of the loss or of a metric over the
            images of the current epoch so far.
        counts: int64 [ranks, 1], or [ranks, parts] in older checkpoints: the number of these images.
    """

    own: np.ndarray
    sums: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class OptimizerSlot:
    """An array in `optimizer.npz`.

    Attributes:
        shape, dtype: those of the array.
        variable: the variable that it is read into; None if it is skipped.
    """

    shape: tuple[int, ...]
    dtype: str
    variable: keras.Variable | None

    @classmethod
    def of(cls, variable: keras.Variable) -> OptimizerSlot:
        return cls(tuple(variable.shape), variable.dtype, variable)


def refuse_newer_format(path: Path, header: str) -> None:
    """Refuse a checkpoint of a format that this version does not know.

    Raises:
        UserError: The format is newer.
        ValueError, TypeError, AttributeError: `header` is not JSON of a header.
    """
    found = json.loads(header).get("format", 1)
    if found > FORMAT:
        raise UserError(
            f"{path}: was written by a newer tfinpaint (its format is {found}, this one reads {FORMAT}); update "
            "tfinpaint"
        )


def find_contradiction(header: Header, has_network: bool, file_bytes: int) -> str | None:
    """Return why the model in a header cannot exist, or its weights cannot be in the file; None if they can.

    Args:
        has_network: whether the file contains a network.
        file_bytes: size of the file.
    """
    height, width = header.height, header.width
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE) or {header.channels, header.target_channels} - {1, 3}:
        return f"images of {width} x {height} with {header.channels} channels become {header.target_channels} channels"
    if header.kind == "classifier" and not header.classes:
        return "a classifier without classes"
    if has_network != (header.network is not None):
        return "it names a network that the file lacks, or lacks the name of the file's network"
    if header.restoration and not all(
        s.changes_values and not s.is_random for s in header.restoration.input_transforms
    ):
        return "restoration.input_transforms change more than pixel values"
    if has_network:
        return None  # `models.keras_json.build` counts the weights
    if not header.encoder or not header.encoder_output:
        return "it names neither an encoder nor a network"
    architecture, stride = ARCHITECTURES[header.encoder], STRIDES[header.stem]
    if problem := architecture.problem(header.stem, header.encoder_output):
        return f"{header.encoder}: {problem}"
    if header.kind == "inpainter" and (height | width) % stride:
        return f"no encoder makes images of {width} x {height}"
    positions, maps = -(-height // stride) * -(-width // stride), architecture.maps
    weights = {"inpainter": maps * positions**2 if header.bottleneck else 0, "encoder": 0}
    weights["classifier"] = maps * (positions if header.head == "flatten" else 1) * len(header.classes)
    if 4 * weights[header.kind] > file_bytes:
        return f"{weights[header.kind]} weights of one layer in {file_bytes} bytes"
    return None
