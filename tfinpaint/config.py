"""YAML (or the seed tool's JSON) -> one frozen, strict, validated `Config`. Imports no TensorFlow.

The key names are a superset of the seed tool's. Every default of the project stands in this file and nowhere else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from tfinpaint.errors import UserError

STRIDE = 32  # ResNet50 halves the image five times, the decoder doubles it five times


class ConfigError(UserError):
    """A configuration that cannot be used. The message names file, line, key and remedy."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class RandomPatches(_Section):
    """Cut `number` squares of `size` pixels out of each image: the input keeps the rest, the target the squares."""

    number: int = Field(ge=1, description="squares per image; they may overlap")
    size: int = Field(ge=1, description="side of a square, pixels")


class Transform(_Section):
    """One step of `data.transforms`: a mapping with exactly one key."""

    resize: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, min_length=2, max_length=2, description="[width, height] in pixels"
    )
    random_horizontal_flip: float | None = Field(None, ge=0, le=1, description="probability of mirroring an image")
    random_patches: RandomPatches | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Transform:
        given = [name for name in self.model_fields_set if getattr(self, name) is not None]
        if len(given) != 1 or len(self.model_fields_set) != 1:
            raise ValueError(f"expected exactly one of {', '.join(Transform.model_fields)}")
        return self

    @model_serializer(mode="wrap")
    def _only_the_one(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialise(self).items() if name in self.model_fields_set}


class Checkpoints(_Section):
    save: Path | None = Field(Path("model_checkpoints"), description="folder for checkpoints; null: none are written")
    interval: int = Field(1, ge=1, description="epochs between checkpoints; the last epoch is always saved")
    keep: int = Field(2, ge=1, description="newest checkpoints kept on disk")
    load: Path | None = Field(None, description="checkpoint folder or weight file to start from")


class Data(_Section):
    type: Literal["images"] | None = Field(None, description="sets input_type and target_type together")
    input_type: Literal["images"] = "images"
    target_type: Literal["images", "labels"] = "images"
    input_path: Path | None = Field(None, description="training images: class folders, or any tree of images")
    target_path: Path | None = Field(None, description="must equal input_path: the targets are cut from the inputs")
    test_input_path: Path | None = Field(None, description="held-out images; null: no evaluation")
    test_target_path: Path | None = Field(None, description="must equal test_input_path")
    batch_size: int = Field(64, ge=1, description="images per step over all ranks together")
    test_batch_size: int = Field(64, ge=1, description="the same for evaluation")
    preload: bool = Field(False, description="decode once and keep the images as uint8 in memory, each rank its share")
    label_fraction: float = Field(1.0, gt=0, le=1, description="share of each class's training images to use")
    max_bad_images: int = Field(0, ge=0, description="unreadable images to skip; one more is an error")
    transforms: list[Transform] = Field(
        default_factory=list, description="steps in order: resize first (sides multiples of 32), random_patches last"
    )


class LrScheduler(_Section):
    type: Literal["Cosine"] = Field(description="half a cosine from learning_rate down to 0")
    warmup_epochs: float = Field(0.0, ge=0, description="epochs of linear rise from 0 to learning_rate before it")


class Optimizer(_Section):
    type: Literal["SGD", "Adam", "AdamW"] = "Adam"
    learning_rate: float = Field(0.01, gt=0, description="peak learning rate")
    momentum: float = Field(0.0, ge=0, lt=1, description="SGD")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam, AdamW")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam, AdamW")
    eps: float = Field(1e-8, gt=0, description="Adam, AdamW")
    weight_decay: float = Field(0.0, ge=0, description="AdamW: decoupled decay")
    lr_scheduler: LrScheduler | None = Field(None, description="null: constant")

    @model_validator(mode="after")
    def _only_what_it_uses(self) -> Optimizer:
        unused = {"SGD": ("beta1", "beta2", "eps", "weight_decay"), "Adam": ("momentum", "weight_decay")}
        for name in unused.get(self.type, ("momentum",)):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{self.type} has no {name}")
        return self


class Loss(_Section):
    function: Literal["BCE", "MSE", "NLL"] = Field("BCE", description="BCE, MSE: images; NLL: labels")


class Model(_Section):
    encoder: Literal["resnet50", "tiny"] = Field("resnet50", description="tiny: one block a stage, for tests")
    encoder_output: Literal["before_add", "after_relu"] = Field(
        "before_add", description="cut the encoder before its last add (as the seed does) or after its last ReLU"
    )
    trainable: Literal["all", "head_only", "batchnorm_frozen"] | list[str] = Field(
        "all", description="a preset, or shell patterns of the layer names to train"
    )
    batchnorm_batches: int = Field(
        16,
        ge=0,
        description="training batches from which batch-norm statistics are estimated, of trained layers before "
        "evaluating and saving, of frozen ones once after a transfer; 0: moving averages, or what was transferred",
    )


class Distributed(_Section):
    fusion_threshold_mb: int = Field(64, ge=0, description="Horovod's tensor-fusion buffer, MiB")
    cycle_time_ms: float | None = Field(
        None, gt=0, description="Horovod's wait between reduction rounds; null: 5 where ranks share cores, else 1"
    )
    stall_timeout_s: int = Field(300, ge=1, description="seconds without a missing rank before all ranks stop")


class Config(_Section):
    num_epochs: int = Field(1, ge=1, description="epochs of the whole run, resumed parts included")
    steps_per_epoch: int | None = Field(None, ge=1, description="null: the whole data set")
    outfile: Path | None = Field(None, description="X.txt writes X_train.txt and X_test.txt")
    workdir: Path | None = Field(None, description="run folder; null: the folder of the config file")
    seed: int = Field(0, ge=0, lt=2**31, description="of weights, order, patches and the choice of labels")
    precision: Literal["float32", "mixed_bfloat16"] = Field(
        "float32", description="mixed_bfloat16: compute in bfloat16, weights and gradients in float32"
    )
    jit_compile: bool | Literal["auto"] = Field("auto", description="XLA for forward and backward; auto: on GPUs")
    figures_interval: int = Field(5, ge=1, description="epochs between pictures; the last epoch always has them")
    layers: Path | None = Field(None, description="a Keras network file of the seed tool; not supported yet")
    checkpoints: Checkpoints = Checkpoints()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    loss: Loss = Loss()
    model: Model = Model()
    distributed: Distributed = Distributed()

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels, from the `resize` transform, which `check_task` has found."""
        width, height = next(step.resize for step in self.data.transforms if step.resize)
        return height, width

    @property
    def patches(self) -> RandomPatches | None:
        return next((step.random_patches for step in self.data.transforms if step.random_patches), None)

    @property
    def flip_probability(self) -> float:
        return next((s.random_horizontal_flip for s in self.data.transforms if s.random_horizontal_flip), 0.0)


def check_task(config: Config, task: Literal["pretrain", "classify"], ranks: int) -> None:
    """Refuse a configuration that cannot work for the task, before anything slow starts.

    Raises:
        ConfigError: one line that names the key, what was found and what to do.
    """
    data = config.data
    if config.layers is not None:
        raise ConfigError(
            "layers: network files are not supported yet; leave the key out to get the ResNet50 of the `model` section"
        )
    if data.input_path is None:
        raise ConfigError("data.input_path is missing: name the folder of training images")
    for key, path in (("input_path", data.input_path), ("test_input_path", data.test_input_path)):
        if path is not None and not os.path.isdir(path):  # noqa: PTH112 (unlike Path.is_dir, False where forbidden)
            raise ConfigError(f"data.{key}: no such folder: {path}")
    if data.target_path not in (None, data.input_path) or data.test_target_path not in (None, data.test_input_path):
        raise ConfigError("data.target_path must equal data.input_path (targets are cut from the input images)")
    for key, batch in (("batch_size", data.batch_size), ("test_batch_size", data.test_batch_size)):
        if batch % ranks:
            raise ConfigError(
                f"data.{key} {batch} is the batch over all ranks and must divide by their number, {ranks}; "
                f"use {max(ranks, batch // ranks * ranks)} or {(batch // ranks + 1) * ranks}"
            )
    load = config.checkpoints.load
    if load is not None and not load.exists() and not load.with_suffix("").exists():
        raise ConfigError(f"checkpoints.load: no such checkpoint: {load}")
    _check_transforms(config)
    _check_inpainting(config) if task == "pretrain" else _check_classification(config)


def _check_transforms(config: Config) -> None:
    kinds = [next(iter(step.model_fields_set)) for step in config.data.transforms]
    if kinds[:1] != ["resize"]:
        raise ConfigError("data.transforms must begin with a resize, such as `- resize: [128, 128]`")
    if len(set(kinds)) != len(kinds):
        raise ConfigError(f"data.transforms holds a step twice: {', '.join(kinds)}")
    if "random_patches" in kinds[:-1]:
        raise ConfigError("data.transforms: random_patches must come last: it makes input and target apart")
    height, width = config.image_size
    if height % STRIDE or width % STRIDE or not height or not width:
        raise ConfigError(
            f"data.transforms: resize [{width}, {height}]: both sides must be positive multiples of {STRIDE}"
        )


def _check_inpainting(config: Config) -> None:
    if config.data.target_type != "images":
        raise ConfigError("pretrain needs data.target_type: images (this configuration is for classify)")
    if config.loss.function == "NLL":
        raise ConfigError("loss.function NLL scores labels; pretrain takes BCE or MSE")
    if config.patches is None:
        raise ConfigError("data.transforms needs `- random_patches: {number: 16, size: 16}` for pretrain")
    if config.model.trainable == "head_only":
        raise ConfigError("model.trainable head_only would leave the encoder untrained; pretrain takes another")
    height, width = config.image_size
    if config.patches.size > min(height, width):
        raise ConfigError(
            f"data.transforms: random_patches.size {config.patches.size} is larger than the image, {width} x {height}"
        )


def _check_classification(config: Config) -> None:
    if config.data.target_type != "labels":
        raise ConfigError("classify needs data.target_type: labels (this configuration is for pretrain)")
    if config.loss.function != "NLL":
        raise ConfigError(f"loss.function {config.loss.function} scores images; classify takes NLL")
    if config.patches is not None:
        raise ConfigError("data.transforms: random_patches has no place in a classifier's configuration")
