"""Refuse what cannot work for a command, before anything slow starts. Imports no TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tfinpaint.config.encoders import STRIDES
from tfinpaint.config.loss import PIXEL_LOSSES, Loss
from tfinpaint.config.network_checks import check_network
from tfinpaint.config.schema import Config, ConfigError
from tfinpaint.config.tracker_checks import check_trackers
from tfinpaint.config.transforms import MASKS, MAX_RECTANGLES, Shape, Transform, shape_after
from tfinpaint.layout import PROJECT
from tfinpaint.system.paths import typed_path
from tfinpaint.system.wording import counted

Command = Literal["pretrain", "classify"]
_PATHS = ("input_path", "target_path", "test_input_path", "test_target_path")
_PRETRAIN_LOSS = (
    "target", "overlap", "normalize_patches", "reconstruction_weight", "agreement", "adversarial", "perceptual",
)  # fmt: skip


def with_defaults(config: Config, command: Command) -> Config:
    """Return a configuration with the command's defaults for `data.target_type` and `loss.function`."""
    target_type, function = ("images", "BCE") if command == "pretrain" else ("labels", "NLL")
    data = config.data.model_copy(update={"target_type": config.data.target_type or target_type})
    loss = config.loss.model_copy(update={"function": config.loss.function or function})
    return config.model_copy(update={"data": data, "loss": loss})


def check_command(config: Config, command: Command, ranks: int, expected: Sequence[Path] = ()) -> Config:
    """Check that a configuration can work for a command on this number of ranks.

    `cli.options` checks the checkpoints that it names.

    Args:
        expected: folders that another command will make; what lies in them may be missing.

    Returns:
        The configuration `with_defaults`.

    Raises:
        ConfigError: one line that names the key, what was found and what to do.
    """
    config = with_defaults(config, command)
    if command == "pretrain":  # the wrong command is named before missing files
        _check_pretrain(config)
    else:
        _check_classify(config)
    check_trackers(config)
    check_network(config, command)
    _check_paths(config, expected)
    check_ranks(config, ranks)
    transforms = "data.transforms and input_transforms" if config.data.input_transforms else "data.transforms"
    _check_steps(transforms, config.input_steps, config.input_channels)
    if command == "pretrain":
        _check_images(config)
    _check_size(config)
    return config


def _check_pretrain(config: Config) -> None:
    if config.data.target_type != "images":
        raise ConfigError(
            "pretrain needs data.target_type: images; this configuration is for classify: start it with `tfinpaint "
            "classify`, or name the one of pretrain"
        )
    if config.loss.function == "NLL" and not config.data.target_is_mask:
        raise ConfigError("loss.function NLL scores labels; pretrain takes another, or data.target_is_mask: true")
    if config.model.trainable == "head_only":
        raise ConfigError("model.trainable: head_only would leave the encoder untrained; pretrain needs another value")


def _check_classify(config: Config) -> None:
    data, loss = config.data, config.loss
    if data.target_type != "labels":
        raise ConfigError(
            "classify needs data.target_type: labels; this configuration is for pretrain: start it with `tfinpaint "
            "pretrain`, or name the one of classify"
        )
    if masks := [step.kind for step in config.input_steps if step.erases]:
        raise ConfigError(f"data.transforms: classify takes no mask; remove {masks[0]}, or use pretrain")
    if loss.function != "NLL":
        raise ConfigError(f"loss.function {loss.function} scores images; classify takes NLL")
    if foreign := [name for name in _PRETRAIN_LOSS if getattr(loss, name) != Loss.model_fields[name].default]:
        raise ConfigError(f"loss.{foreign[0]} is for pretrain only; remove it for classify")
    if data.views > 1:
        raise ConfigError("data.views is for pretrain only; remove it for classify")
    if data.target_path or data.test_target_path or data.target_transforms:
        raise ConfigError(
            "data: the labels of classify are folder names; remove target_path, test_target_path and target_transforms"
        )


def check_ranks(config: Config, ranks: int) -> None:
    """Check that a configuration can work on this number of ranks.

    Raises:
        ConfigError: one line that names the key, what was found and what to do.
    """
    _check_batches(config, ranks)
    distributed = config.distributed
    if distributed.lr_scaling and not config.data.batch_size_per_rank:
        raise ConfigError(
            "distributed.lr_scaling needs data.batch_size_per_rank: true; otherwise data.batch_size counts the images "
            "of all ranks and does not grow with their number"
        )
    if config.loss.agreement and config.jit_compile is True and ranks > 1:
        raise ConfigError(
            "loss.agreement compares views of all ranks in the forward pass, which XLA cannot compile; set "
            "jit_compile: false"
        )
    if distributed.sync_batchnorm and config.jit_compile is True and ranks > 1:
        raise ConfigError(
            "distributed.sync_batchnorm reduces statistics over the ranks in the forward pass, which XLA cannot "
            "compile; set jit_compile: false"
        )


def fitting_ranks(config: Config) -> list[int]:
    """Return the numbers of ranks that can share the batches of this configuration."""

    def fits(ranks: int) -> bool:
        try:
            _check_batches(config, ranks)
        except ConfigError:
            return False
        return True

    return [ranks for ranks in range(1, max(config.data.batch_size, config.data.test_batch_size) + 1) if fits(ranks)]


def _check_batches(config: Config, ranks: int) -> None:
    """Check that each rank gets an equal part of each batch, and can divide it into `accumulate_steps` equal parts."""
    data = config.data
    keys = {"batch_size": (data.input_path, config.accumulate_steps), "test_batch_size": (data.test_input_path, 1)}
    for key, (path, parts) in keys.items():
        batch = getattr(data, key)
        of, divisor, by = "over all ranks", ranks * parts, f"the number of ranks, {ranks}"
        if data.batch_size_per_rank:
            of, divisor, by = "of each rank", parts, f"accumulate_steps, {parts}"
        elif parts > 1:
            by = f"the number of ranks times accumulate_steps, {ranks} x {parts}"
        if path and batch % divisor:
            near = sorted({max(divisor, batch // divisor * divisor), (batch // divisor + 1) * divisor})
            raise ConfigError(
                f"data.{key} {batch} is the batch {of} and must be divisible by {by}; use {' or '.join(map(str, near))}"
            )


def _check_paths(config: Config, expected: Sequence[Path]) -> None:
    data = config.data
    for key in _PATHS:
        path, inputs = getattr(data, key), key.replace("target", "input")
        if path is not None and not any(path.is_relative_to(folder) for folder in expected):
            _check_images_at(key, path)
        if path is not None and getattr(data, inputs) is None:
            raise ConfigError(f"data.{key} needs the inputs of these targets, data.{inputs}")
    if config.layers is not None and config.recompute:
        raise ConfigError(
            "recompute: true is for the built-in networks; with `layers`, set accumulate_steps to need less memory"
        )
    if isinstance(config.layers, Path) and not config.layers.is_file():
        raise ConfigError(f"layers: not a file: {config.layers}")
    if data.input_path is None and data.test_input_path is None:
        raise ConfigError("data has neither input_path (images to train on) nor test_input_path (images to evaluate)")
    if data.input_path is None and config.checkpoints.load is None:
        raise ConfigError("without data.input_path there is no training: set checkpoints.load to the weights to use")
    output = data.test_output_path
    if output is None:
        return
    if data.test_input_path is None:
        raise ConfigError("data.test_output_path needs data.test_input_path, the images to predict")
    for key in _PATHS:
        path = getattr(data, key)
        if path and (output.is_relative_to(path) or path.is_relative_to(output)):
            raise ConfigError(f"data.test_output_path {output} and data.{key} {path} must not contain each other")


def _check_images_at(key: str, path: Path) -> None:
    """Check that a path is a folder, or a file where it may be one: a test set may be a single image, read later."""
    if os.path.isdir(path):  # noqa: PTH112 (unlike Path.is_dir, False if forbidden)
        return
    if not os.path.isfile(path):  # noqa: PTH113
        project = next((folder for folder in path.parents[:2] if (folder / PROJECT).is_file()), None)
        command = f"run {typed_path(project)}" if project else "prepare"
        raise ConfigError(
            f"data.{key}: no such folder: {path}; name a folder of images, or make this one with `tfinpaint {command}`"
        )
    if not key.startswith("test"):
        raise ConfigError(
            f"data.{key}: is a file: {path}; expected a folder of images; `tfinpaint prepare` makes one of an archive"
        )


def _check_steps(name: str, steps: Sequence[Transform], channels: int) -> None:
    """Check that the transforms of one side fit together, and produce images of one size."""
    shape: Shape = (None, None, channels)
    decoding = True  # a crop while an image is read is checked against its size, image by image
    for step in steps:
        height, width, channels = shape
        decoding = decoding and step.kind in ("resize", "center_crop")
        if crop := step.center_crop:
            if not decoding and not height:
                raise ConfigError(f"{name}: center_crop must come first or after a resize, because it needs the size")
            if height and width and (crop[1] > height or crop[0] > width):
                raise ConfigError(f"{name}: center_crop {crop} is larger than the image, {width} x {height}")
        if (step.erases or step.gaussian_blur) and not (height and width):
            raise ConfigError(f"{name}: a resize must come before {step.kind}, such as `- resize: [128, 128]`")
        if step.convert_color and (1 if step.convert_color.startswith("GRAY") else 3) != channels:
            raise ConfigError(
                f"{name}: convert_color {step.convert_color} cannot convert {counted(channels, 'channel')}"
            )
        for values in (step.normalize.mean, step.normalize.std) if step.normalize else ():
            if isinstance(values, list) and len(values) != channels:
                raise ConfigError(
                    f"{name}: normalize has {counted(len(values), 'value')} for {counted(channels, 'channel')}"
                )
        shape = step.shape_after(shape)
    if shape[0] is None:
        raise ConfigError(f"{name} must produce images of one size: add a resize, such as `- resize: [128, 128]`")


def _check_size(config: Config) -> None:
    (height, width, _), stride = config.input_shape, STRIDES[config.model.stem]
    if config.layers is None and ((height or 0) % stride or (width or 0) % stride):
        raise ConfigError(
            f"data.transforms produce images of {width} x {height}: both sides must be multiples of {stride}"
        )


def _check_images(config: Config) -> None:
    data = config.data
    _check_mask(config)
    _check_loss(config)
    if data.input_path and not data.target_path and not config.mask and config.reconstructs:
        raise ConfigError(
            "data.target_path is missing: name the folder of target images, or, for inpainting, add "
            "`- random_patches: {number: 16, size: 16}` to data.transforms"
        )
    _check_steps("data.transforms and target_transforms", config.target_steps, config.target_channels)
    has_test_targets = config.mask or data.test_target_path
    if data.test_input_path and not data.input_path and not data.test_output_path and not has_test_targets:
        raise ConfigError("inference without targets needs data.test_output_path, the folder for its predictions")
    (height, width, _), (target_height, target_width, _) = config.input_shape, config.target_shape
    if config.layers is None and (height, width) != (target_height, target_width):
        raise ConfigError(
            f"the inputs are {width} x {height}, the targets {target_width} x {target_height}: without a network "
            "file in `layers` they must have the same size; resize both in data.transforms"
        )


def _check_mask(config: Config) -> None:
    data, mask = config.data, config.mask
    apart = [step.kind for step in [*data.input_transforms, *data.target_transforms]]
    if early := [step.kind for step in data.transforms[:-1] if step.erases]:
        raise ConfigError(f"data.transforms: {early[0]} must come last, because it makes the targets from the inputs")
    if misplaced := [kind for kind in apart if kind in MASKS]:
        raise ConfigError(f"{misplaced[0]} applies to inputs and targets; move it to the end of data.transforms")
    if not mask:
        return
    if "jitter_crop" in apart:
        raise ConfigError(f"jitter_crop must come before {mask.kind}, in data.transforms")
    if data.target_is_mask and config.targets_are_cut:
        raise ConfigError(
            f"data.target_is_mask: {mask.kind} makes the targets from the input images, which are no label maps; "
            "name the folder of label maps in data.target_path"
        )
    height, width, _ = shape_after(data.transforms, 3)
    if height and width and (problem := _mask_problem(mask, height, width)):
        raise ConfigError(f"data.transforms: {mask.kind}.{problem}")


def _mask_problem(mask: Transform, height: int, width: int) -> str | None:
    """Return why a mask cannot be drawn, or would erase nothing or everything, in images of this size."""
    pixels, image = height * width, f"the image, {width} x {height}"
    if patches := mask.random_patches:
        area, square = patches.area, patches.size**2
        if patches.size > min(height, width):
            return f"size {patches.size} is larger than {image}"
        if patches.size == max(height, width):
            return f"size {patches.size} erases all of {image}"
        if area and square > area * pixels:
            return f"area {area} of {image} is less than one square of {patches.size}; it would erase nothing"
        if area and area * pixels > MAX_RECTANGLES * square:
            return f"size {patches.size} needs more than {MAX_RECTANGLES} squares to erase {area} of {image}"
    if center := mask.center:
        sides = round(center.side * height), round(center.side * width)
        if not min(sides) or sides == (height, width):
            return f"side {center.side} erases {sides[1]} x {sides[0]} pixels of {image}"
    if block := mask.random_block:
        low, high = (max(1, round(side * height)) * max(1, round(side * width)) for side in block.side)
        if high == pixels:
            return f"side {block.side[1]} erases all of {image}"
        if block.number is None and high > block.limit * pixels:
            return f"side {block.side[1]} allows rectangles larger than the area, {block.limit} of {image}"
        if block.number is None and block.limit * pixels > MAX_RECTANGLES * low:
            return f"side {block.side[0]} needs more than {MAX_RECTANGLES} rectangles to erase {block.limit} of {image}"
    if (region := mask.random_region) and not round(region.area[0] * pixels):
        return f"area {region.area[0]} of {image} is less than one pixel"
    if grid := mask.grid:
        cells = pixels // grid.size**2
        if height % grid.size or width % grid.size:
            return f"size {grid.size} does not divide {image}"
        for ratio in grid.ratios:
            if round(ratio * cells) == cells or (ratio and not round(ratio * cells)):
                return f"ratio {ratio} erases {round(ratio * cells)} of {cells} cells"
    return None


def _check_loss(config: Config) -> None:
    loss, data = config.loss, config.data
    parts = [name for name in ("adversarial", "perceptual") if getattr(loss, name)]
    if config.mask is None:
        if loss.target != "patches" or parts:
            key = parts[0] if parts else f"target: {loss.target}"
            raise ConfigError(
                f"loss.{key} needs a mask at the end of data.transforms, such as `- center: {{side: 0.5}}`"
            )
        return
    height, width = (side or 0 for side in config.target_shape[:2])
    if config.weighs_pixels and (data.target_is_mask or loss.function not in PIXEL_LOSSES):
        functions = f"{', '.join(PIXEL_LOSSES[:-1])} or {PIXEL_LOSSES[-1]}"
        raise ConfigError(f"loss.target masked and loss.overlap need target images and loss.function {functions}")
    if config.weighs_pixels and not all(step.changes_values for step in data.target_transforms):
        raise ConfigError("loss.target masked and loss.overlap need target_transforms that move no pixels")
    if loss.normalize_patches and data.target_is_mask:
        raise ConfigError("loss.normalize_patches needs target images, not label maps (data.target_is_mask)")
    if (cell := loss.normalize_patches) and (height % cell or width % cell):
        raise ConfigError(f"loss.normalize_patches {cell} does not divide the target, {width} x {height}")
    if parts and config.unmeasured:
        raise ConfigError(f"loss.{parts[0]} compares the output with the original image, but {config.unmeasured}")
    if loss.perceptual and min(height, width) < (least := STRIDES["standard"]):
        raise ConfigError(f"loss.perceptual: its encoder needs images of at least {least} x {least}")
