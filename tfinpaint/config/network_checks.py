"""Refuse settings of network, optimizer, views and validation that do not fit together or to the command."""

from __future__ import annotations

from typing import Literal

from tfinpaint.config.encoders import ARCHITECTURES
from tfinpaint.config.optimizer import Optimizer
from tfinpaint.config.schema import Config, ConfigError
from tfinpaint.config.sections import Model

# Keys of `model` that describe the built-in network, and those of them that one command alone has a use for.
_BUILT_IN = ("stem", "bottleneck", "decoder", "batchnorm_visible_only", "head", "head_init")
_OF_COMMAND = {"pretrain": ("bottleneck", "decoder", "batchnorm_visible_only"), "classify": ("head", "head_init")}


def check_network(config: Config, command: Literal["pretrain", "classify"]) -> None:
    """Check the settings of network, optimizer, views and validation.

    Raises:
        ConfigError: one line that names the key, what was found and what to do.
    """
    changed = [key for key in _BUILT_IN if getattr(config.model, key) != Model.model_fields[key].default]
    for owner, keys in _OF_COMMAND.items():
        if owner != command and (foreign := [key for key in keys if key in changed]):
            raise ConfigError(f"model.{foreign[0]} is for {owner} only; remove it for {command}")
    if changed and config.layers is not None:
        raise ConfigError(
            f"model.{changed[0]} is for the built-in network; with `layers`, put it into the network file"
        )
    if config.layers is None:
        _check_encoder(config.model)
    if config.model.head_init != "random" and config.model.head != "pool":
        raise ConfigError(
            "model.head_init: logistic_regression is fitted to averaged features, but model.head is flatten; set "
            "model.head: pool"
        )
    for key in ("layer_decay", "unfreeze_every"):
        if getattr(config.optimizer, key) != Optimizer.model_fields[key].default and config.layers is not None:
            raise ConfigError(f"optimizer.{key} is for the built-in network, whose layers have groups; remove it")
    if config.optimizer.unfreeze_every is not None and command != "classify":
        raise ConfigError("optimizer.unfreeze_every is for classify only; remove it for pretrain")
    if config.optimizer.ema_decay is not None and not config.model.batchnorm_batches:
        raise ConfigError(
            "optimizer.ema_decay needs model.batchnorm_batches above 0, because the statistics of batch norms must be "
            "those of the averaged weights"
        )
    if config.model.batchnorm_visible_only:
        _check_visible_only(config)
    _check_views(config)
    _check_probe(config, command)
    _check_validation(config, command)


def _check_encoder(model: Model) -> None:
    """Check what the encoder cannot be combined with."""
    architecture = ARCHITECTURES[model.encoder]
    if problem := architecture.problem(model.stem, model.encoder_output):
        raise ConfigError(f"model.encoder: {model.encoder}: {problem}")
    if model.batchnorm_visible_only and not architecture.has_batchnorms:
        raise ConfigError(f"model.batchnorm_visible_only: {model.encoder} has no batch norms; remove it")


def _check_visible_only(config: Config) -> None:
    if config.mask is None:
        raise ConfigError("model.batchnorm_visible_only needs a mask at the end of data.transforms")
    if moving := [step.kind for step in config.data.input_transforms if not step.changes_values]:
        raise ConfigError(
            f"model.batchnorm_visible_only needs inputs as they were erased; move {moving[0]} from "
            "data.input_transforms to data.transforms"
        )
    if config.distributed.sync_batchnorm:
        raise ConfigError("model.batchnorm_visible_only takes the statistics of each rank; remove sync_batchnorm")


def _check_views(config: Config) -> None:
    """Check what two views, and their agreement, need."""
    data, model = config.data, config.model
    if (mask := config.mask) and mask.kind == "grid" and mask.section.complementary and data.views != 2:
        raise ConfigError("grid.complementary is for two views of each image; set data.views: 2")
    if config.loss.agreement is None:
        return
    if data.views != 2:
        raise ConfigError("loss.agreement compares two views of each image; set data.views: 2")
    if config.layers is not None:
        raise ConfigError("loss.agreement takes the features of the built-in encoder; remove `layers`")
    if model.encoder_output != "after_relu":
        raise ConfigError(
            "loss.agreement takes the features behind the encoder's last ReLU; set model.encoder_output: after_relu"
        )
    if data.test_output_path and not config.reconstructs:
        raise ConfigError(
            "data.test_output_path is for restored images, but loss.reconstruction_weight is 0, so the decoder is not "
            "trained; remove one of them"
        )
    if config.accumulate_steps > 1:
        raise ConfigError(
            "loss.agreement compares all images of a batch, which accumulate_steps would divide; set accumulate_steps: "
            "1, and recompute: true to need less memory"
        )


def _check_probe(config: Config, command: str) -> None:
    if config.probe is None:
        return
    if command != "pretrain":
        raise ConfigError("probe is for pretrain only; remove it for classify, which has data.validation_fraction")
    if config.layers is not None:
        raise ConfigError("probe takes the features of the built-in encoder; remove it, or `layers`")
    if config.probe.path is not None and not config.probe.path.is_dir():
        raise ConfigError(f"probe.path: no such folder: {config.probe.path}")


def _check_validation(config: Config, command: str) -> None:
    data = config.data
    if command == "pretrain":
        if config.loss.weight == "balanced":
            raise ConfigError("loss.weight: balanced is for classify only; give a weight for each class")
        if data.mixup:
            raise ConfigError("data.mixup mixes images with their classes; it is for classify only")
        if data.validation_fraction:
            raise ConfigError("data.validation_fraction is for classify only; remove it for pretrain")
    if config.early_stopping and not data.validation_fraction:
        raise ConfigError("early_stopping needs validation images: set data.validation_fraction, such as 0.2")
    if data.validation_fraction and data.input_path and config.checkpoints.save is None:
        raise ConfigError(
            "data.validation_fraction restores the best epoch from its checkpoint, but checkpoints.save is null"
        )
