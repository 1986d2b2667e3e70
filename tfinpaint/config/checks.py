"""What cannot work for a task, refused before anything slow starts. Imports no TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tfinpaint.config.schema import Config, ConfigError, Loss
from tfinpaint.config.transforms import MASKS, MOST_RECTANGLES, Shape, Transform, shape_after

Command = Literal["pretrain", "classify"]
_PRETRAIN_LOSS = ("target", "overlap", "normalize_patches", "adversarial", "perceptual")
STRIDE = 32  # ResNet50 halves the image five times, the decoder doubles it five times


def check_command(config: Config, task: Command, ranks: int) -> Config:
    """Refuse a configuration that cannot work for a command on this many ranks.

    The checkpoints that it names are looked for by `cli.arguments`.

    Returns:
        The configuration, with the task's target type and loss where it leaves them open.

    Raises:
        ConfigError: one line that names the key, what was found and what to do.
    """
    config = _completed(config, task)
    _check_kind(config, task)
    _check_paths(config)
    check_ranks(config, ranks)
    data = config.data
    where = "data.transforms and input_transforms" if data.input_transforms else "data.transforms"
    _check_steps(where, config.input_steps, config.input_channels)
    if task == "pretrain":
        _check_images(config)
    else:
        _check_size("data.transforms", config.input_shape, config)
    return config


def _check_kind(config: Config, task: Command) -> None:
    """Refuse a configuration of the other command before its files are looked for, which may not be there yet."""
    data, loss = config.data, config.loss
    if task == "pretrain":
        if data.target_type != "images":
            raise ConfigError("pretrain needs data.target_type: images (this configuration is for classify)")
        if loss.function == "NLL" and not data.target_is_mask:
            raise ConfigError("loss.function NLL scores labels; pretrain takes another, or data.target_is_mask: true")
        if config.model.trainable == "head_only":
            raise ConfigError("model.trainable head_only would leave the encoder untrained; pretrain takes another")
        return
    if data.target_type != "labels":
        raise ConfigError("classify needs data.target_type: labels (this configuration is for pretrain)")
    if masks := [step.kind for step in config.input_steps if step.erases]:
        raise ConfigError(
            f"data.transforms: {masks[0]} has no place in a classifier's configuration (this one is for pretrain)"
        )
    if loss.function != "NLL":
        raise ConfigError(f"loss.function {loss.function} scores images; classify takes NLL")
    if foreign := [name for name in _PRETRAIN_LOSS if getattr(loss, name) != Loss.model_fields[name].default]:
        raise ConfigError(f"loss.{foreign[0]} has no place in a classifier's configuration")
    if config.model.bottleneck:
        raise ConfigError("model.bottleneck lies before a decoder; a classifier has none")
    if data.target_path or data.test_target_path or data.target_transforms:
        raise ConfigError("data: labels are folder names; target_path, test_target_path, target_transforms go out")


def _completed(config: Config, task: Command) -> Config:
    target_type, function = ("images", "BCE") if task == "pretrain" else ("labels", "NLL")
    data = config.data.model_copy(update={"target_type": config.data.target_type or target_type})
    loss = config.loss.model_copy(update={"function": config.loss.function or function})
    return config.model_copy(update={"data": data, "loss": loss})


def check_ranks(config: Config, ranks: int) -> None:
    """Refuse what cannot work on this many ranks.

    Raises:
        ConfigError: one line that names the key, what was found and what to do.
    """
    _check_batches(config, ranks)
    _check_distributed(config, ranks)


def fitting_ranks(config: Config) -> list[int]:
    """The numbers of ranks that can share the batches of this configuration."""

    def fits(ranks: int) -> bool:
        try:
            _check_batches(config, ranks)
        except ConfigError:
            return False
        return True

    return [ranks for ranks in range(1, max(config.data.batch_size, config.data.test_batch_size) + 1) if fits(ranks)]


def _check_batches(config: Config, ranks: int) -> None:
    """Every rank must get an equal part of every batch, and be able to divide that into equal parts."""
    data = config.data
    keys = {"batch_size": (data.input_path, config.accumulate_steps), "test_batch_size": (data.test_input_path, 1)}
    for key, (path, parts) in keys.items():
        batch = getattr(data, key)
        whole, shared, by = "over all ranks ", ranks * parts, f"their number, {ranks}"
        if data.batch_size_per_rank:
            whole, shared, by = "of each rank ", parts, f"accumulate_steps, {parts}"
        elif parts > 1:
            by = f"their number times accumulate_steps, {ranks} x {parts}"
        if path and batch % shared:
            near = sorted({max(shared, batch // shared * shared), (batch // shared + 1) * shared})
            raise ConfigError(
                f"data.{key} {batch} is the batch {whole}and must divide by {by}; use {' or '.join(map(str, near))}"
            )


def _check_distributed(config: Config, ranks: int) -> None:
    distributed = config.distributed
    if distributed.lr_scaling and not config.data.batch_size_per_rank:
        raise ConfigError(
            "distributed.lr_scaling needs data.batch_size_per_rank: true; otherwise data.batch_size counts the images "
            "of all ranks, and does not grow with their number"
        )
    if distributed.sync_batchnorm and config.jit_compile is True and ranks > 1:
        raise ConfigError(
            "distributed.sync_batchnorm exchanges statistics within the forward pass, where XLA allows none; set "
            "jit_compile: false"
        )


def _check_file(key: str, path: Path) -> None:
    """A test set may be a single image, whose contents are looked at later."""
    if not os.path.isfile(path):  # noqa: PTH113
        raise ConfigError(f"data.{key}: no such folder: {path}")
    if not key.startswith("test"):
        raise ConfigError(
            f"data.{key}: is a file: {path}; expected a folder of images; `tfinpaint prepare` makes one of an archive"
        )


def _check_paths(config: Config) -> None:
    data, load = config.data, config.checkpoints.load
    for key in ("input_path", "target_path", "test_input_path", "test_target_path"):
        path = getattr(data, key)
        if path is not None and not os.path.isdir(path):  # noqa: PTH112 (unlike Path.is_dir, False where forbidden)
            _check_file(key, path)
        if path is not None and key.endswith("target_path") and getattr(data, key.replace("target", "input")) is None:
            raise ConfigError(f"data.{key} needs the inputs of these targets, data.{key.replace('target', 'input')}")
    if isinstance(config.layers, Path) and not config.layers.is_file():
        raise ConfigError(f"layers: not a file: {config.layers}")
    if data.input_path is None and data.test_input_path is None:
        raise ConfigError("data names neither input_path (images to train on) nor test_input_path (to evaluate)")
    if data.input_path is None and load is None:
        raise ConfigError("without data.input_path nothing is trained: name the weights to use in checkpoints.load")
    _check_output_path(config)


def _check_output_path(config: Config) -> None:
    """Predictions must not end up among the images, where they would be overwritten or read."""
    data, output = config.data, config.data.test_output_path
    if output is None:
        return
    if data.test_input_path is None:
        raise ConfigError("data.test_output_path needs data.test_input_path, the images to predict")
    for key in ("input_path", "target_path", "test_input_path", "test_target_path"):
        path = getattr(data, key)
        if path and (output.is_relative_to(path) or path.is_relative_to(output)):
            raise ConfigError(f"data.test_output_path {output} and data.{key} {path} must lie apart from each other")


def _check_steps(name: str, steps: Sequence[Transform], channels: int) -> None:
    """The steps of one side fit together, and leave images of one size."""
    shape: Shape = (None, None, channels)
    decoding = True  # a crop while an image is read is checked against its size, image by image
    for step in steps:
        height, width, channels = shape
        decoding = decoding and step.kind in ("resize", "center_crop")
        if step.center_crop and not decoding and not height:
            raise ConfigError(f"{name}: center_crop must come first, or after a resize: here sizes are not known")
        if step.center_crop and height and width and (step.center_crop[1] > height or step.center_crop[0] > width):
            raise ConfigError(f"{name}: center_crop {step.center_crop} is larger than the image, {width} x {height}")
        if step.erases and not (height and width):
            raise ConfigError(f"{name}: a resize must come before {step.kind}, such as `- resize: [128, 128]`")
        if step.convert_color and (1 if step.convert_color.startswith("GRAY") else 3) != channels:
            raise ConfigError(f"{name}: convert_color {step.convert_color} is given images of {channels} channel(s)")
        if step.normalize:
            for values in (step.normalize.mean, step.normalize.std):
                if isinstance(values, list) and len(values) != channels:
                    raise ConfigError(f"{name}: normalize has {len(values)} values for {channels} channel(s)")
        shape = step.shape_after(shape)
    if shape[0] is None:
        raise ConfigError(f"{name} must leave images of one size: add a resize, such as `- resize: [128, 128]`")


def _check_size(name: str, shape: Shape, config: Config) -> None:
    height, width, _ = shape
    assert height
    assert width
    if config.layers is None and (height % STRIDE or width % STRIDE):
        raise ConfigError(f"{name} give images of {width} x {height}: both sides must be multiples of {STRIDE}")


def _check_images(config: Config) -> None:
    data = config.data
    _check_mask(config)
    _check_loss(config)
    if data.input_path and not data.target_path and not config.mask:
        raise ConfigError(
            "data.target_path is missing: name the folder of target images, or add "
            "`- random_patches: {number: 16, size: 16}` to data.transforms to inpaint"
        )
    _check_steps("data.transforms and target_transforms", config.target_steps, config.target_channels)
    if data.test_input_path and not data.input_path and not data.test_output_path and not _has_test_targets(config):
        raise ConfigError("inference without targets needs data.test_output_path, the folder for its predictions")
    _check_size("data.transforms", config.input_shape, config)
    if config.layers is not None and config.model.bottleneck:
        raise ConfigError(
            "model.bottleneck belongs to the built-in network; with `layers` the network file has its own"
        )
    if config.layers is None and config.input_shape[:2] != config.target_shape[:2]:
        (height, width, _), (target_height, target_width, _) = config.input_shape, config.target_shape
        raise ConfigError(
            f"the inputs are {width} x {height}, the targets {target_width} x {target_height}: without a network "
            "file in `layers` they must be equal; let the transforms resize both alike"
        )


def _has_test_targets(config: Config) -> bool:
    return bool(config.mask or config.data.test_target_path)


def _check_mask(config: Config) -> None:
    data, mask = config.data, config.mask
    apart = [step.kind for step in [*data.input_transforms, *data.target_transforms]]
    if early := [step.kind for step in data.transforms[:-1] if step.erases]:
        raise ConfigError(f"data.transforms: {early[0]} must come last: it makes input and target apart")
    if misplaced := [kind for kind in apart if kind in MASKS]:
        raise ConfigError(f"{misplaced[0]} makes input and target together: its place is the end of data.transforms")
    if not mask:
        return
    if "jitter_crop" in apart:
        raise ConfigError(f"jitter_crop must come before {mask.kind}, in data.transforms")
    if data.target_is_mask and config.targets_are_cut:
        raise ConfigError(f"data.target_is_mask: {mask.kind} makes the targets of the inputs, which are no masks")
    height, width, _ = shape_after(data.transforms, 3)
    if height and width and (problem := _misfit(mask, height, width)):
        raise ConfigError(f"data.transforms: {mask.kind}.{problem}")


def _misfit(mask: Transform, height: int, width: int) -> str | None:
    """Why this mask cannot be drawn, or would erase nothing or everything, in images of this size."""
    pixels, image = height * width, f"the image, {width} x {height}"
    if patches := mask.random_patches:
        if patches.size > min(height, width):
            return f"size {patches.size} is larger than {image}"
        if patches.size == max(height, width):
            return f"size {patches.size} erases all of {image}"
        if patches.area and patches.size**2 > patches.area * pixels:
            return f"area {patches.area} of {image} is less than one square of {patches.size}; it would erase nothing"
        if patches.area and patches.area * pixels > MOST_RECTANGLES * patches.size**2:
            return f"size {patches.size}: more than {MOST_RECTANGLES} squares to erase {patches.area} of {image}"
    if centre := mask.center:
        sides = round(centre.side * height), round(centre.side * width)
        if not min(sides) or sides == (height, width):
            return f"side {centre.side} erases {sides[1]} x {sides[0]} pixels of {image}"
    if block := mask.random_block:
        least, largest = (
            max(1, round(side * height)) * max(1, round(side * width)) for side in (block.side[0], block.side[1])
        )
        if largest == pixels:
            return f"side {block.side[1]} erases all of {image}"
        if block.number is None and largest > block.limit * pixels:
            return f"side: a block of up to {block.side[1]} of the sides can be larger than the area, {block.limit}"
        if block.number is None and block.limit * pixels > MOST_RECTANGLES * least:
            return f"side: more than {MOST_RECTANGLES} blocks of {block.side[0]} to erase {block.limit} of {image}"
    if (region := mask.random_region) and not round(region.area[0] * pixels):
        return f"area {region.area[0]} of {image} is less than one pixel"
    if grid := mask.grid:
        if height % grid.size or width % grid.size:
            return f"size {grid.size} does not divide {image}"
        cells = pixels // grid.size**2
        if not 0 < round(grid.ratio * cells) < cells:
            return f"ratio {grid.ratio} erases {round(grid.ratio * cells)} of {cells} cells"
    return None


def _check_loss(config: Config) -> None:
    loss, data = config.loss, config.data
    parts = [name for name in ("adversarial", "perceptual") if getattr(loss, name)]
    if config.mask is None:
        if loss.target != "patches" or parts:
            needy = f"{parts[0]}" if parts else f"target: {loss.target}"
            raise ConfigError(
                f"loss.{needy} needs a mask at the end of data.transforms, such as `- center: {{side: 0.5}}`"
            )
        return
    if config.weighs_pixels and (data.target_is_mask or loss.function not in ("BCE", "MSE", "L1")):
        raise ConfigError("loss.target masked and loss.overlap score pixels of images: by BCE, MSE (L2) or L1")
    if config.weighs_pixels and not all(step.changes_values for step in data.target_transforms):
        raise ConfigError("loss.target masked and loss.overlap need target_transforms that move no pixels")
    if loss.normalize_patches and data.target_is_mask:
        raise ConfigError("loss.normalize_patches needs targets that are images; data.target_is_mask says otherwise")
    if loss.normalize_patches:
        height, width, _ = config.target_shape
        if (height or 0) % loss.normalize_patches or (width or 0) % loss.normalize_patches:
            raise ConfigError(f"loss.normalize_patches {loss.normalize_patches} does not divide {width} x {height}")
    if parts and config.unmeasured:
        raise ConfigError(f"loss.{parts[0]} compares pixels with the original's, but {config.unmeasured}")
    height, width, _ = config.target_shape
    if loss.perceptual and min(height or 0, width or 0) < STRIDE:
        raise ConfigError(f"loss.perceptual: its encoder needs images of at least {STRIDE} x {STRIDE}")
