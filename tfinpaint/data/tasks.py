"""What each task does with its images: from a configuration to preprocessing steps and batches for the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import tensorflow as tf

from tfinpaint.batch import Batch, ImageBatch
from tfinpaint.config.schema import Config
from tfinpaint.config.transforms import shape_after
from tfinpaint.data.erasing import make_eraser
from tfinpaint.data.examples import Preprocessing, split_steps
from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.data.mixing import draw_mixing
from tfinpaint.data.targets import make_targets, normalize_cells, pixel_weights
from tfinpaint.data.transforms import Keys, NumberedSteps, apply_transforms, to_float


@dataclass(frozen=True)
class Task:
    """The preprocessing of a task, and how the model's batches are made.

    Attributes:
        images: the preprocessing of the inputs.
        targets: the preprocessing of target images; None if targets are labels, or made of the inputs.
        prepare: the last step, from a batch of images to what the model is trained on.
        has_targets: whether `prepare` makes "targets".
        fixed_inputs: whether the images, as they are read, are the inputs, the same in every epoch.
        not_trained_on: the tensors that `prepare` makes for evaluation and pictures alone.
    """

    images: Preprocessing
    targets: Preprocessing | None
    prepare: Callable[[ImageBatch], Batch]
    has_targets: bool = True
    fixed_inputs: bool = False
    not_trained_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Steps:
    """The steps of a configuration with their numbers: those of both sides, then those of inputs and of targets."""

    shared: NumberedSteps
    inputs: NumberedSteps
    targets: NumberedSteps

    @property
    def of_inputs(self) -> NumberedSteps:
        """Those of both sides, then those of inputs."""
        return (*self.shared, *self.inputs)

    @classmethod
    def of(cls, config: Config, augment: bool) -> _Steps:
        """Number the steps, then remove the mask and, without `augment`, the other random steps."""
        data, first, lists = config.data, 0, []
        for steps in (data.transforms, data.input_transforms, data.target_transforms):
            numbered = enumerate(steps, first)
            lists.append(tuple((n, step) for n, step in numbered if augment or not step.is_random))
            first += len(steps)
        return cls(tuple((n, step) for n, step in lists[0] if not step.erases), *lists[1:])


def _are_fixed(steps: NumberedSteps) -> bool:
    """Return whether steps make the same of an image in every epoch."""
    return not any(step.is_random for _, step in steps)


def _for_label_maps(steps: NumberedSteps) -> NumberedSteps:
    """Return the steps that move pixels, without those that change their values."""
    return tuple((number, step) for number, step in steps if not step.changes_values)


def pretraining_task(config: Config, *, separate: bool, augment: bool, classes: int | None = None) -> Task:
    """Return the task of `pretrain`: inpainting if the configuration has a mask, otherwise image to image.

    Where nothing is restored (`loss.reconstruction_weight: 0`), there are no targets.

    Args:
        separate: targets are images of their own.
        augment: apply random steps.
        classes: number of classes in a label map; None: any values. An inpainting task does not check them.
    """
    if config.mask:
        task = inpainting_task(config, separate=separate, augment=augment)
    else:
        task = image_to_image_task(config, targets=separate, augment=augment, classes=classes)
    if not config.reconstructs:
        unused = ("targets", "originals", "weights", *(() if config.model.batchnorm_visible_only else ("mask",)))
        return replace(task, has_targets=False, fixed_inputs=False, not_trained_on=unused)
    return replace(task, fixed_inputs=task.fixed_inputs and config.data.views == 1)


def classification_task(config: Config, *, labels: bool, augment: bool) -> Task:
    """Return the task of the classifier.

    Args:
        labels: the classes are known; otherwise the task is inference only.
        augment: apply random steps.
    """

    def prepare(batch: ImageBatch) -> Batch:
        made: Batch = {"inputs": to_float(batch["images"])}
        if labels:
            made["targets"] = batch["labels"]
        if mixes:
            made["shares"], made["order"] = draw_mixing(config.seed, batch["epoch"], batch["examples"], alpha)
        return made

    alpha, steps = config.data.mixup, _Steps.of(config, augment).of_inputs
    mixes = augment and alpha > 0
    return Task(split_steps(steps, _input_options(config)), None, prepare, labels, _are_fixed(steps) and not mixes)


def inpainting_task(config: Config, *, separate: bool, augment: bool) -> Task:
    """Return the task of pretraining: each example gets a new mask in each epoch, which the network has to fill.

    Args:
        separate: targets are images of their own; otherwise they are made of the inputs.
        augment: apply random steps; the mask is drawn in any case, without `augment` with a hole in every image.
    """
    assert config.mask  # the configuration was checked
    mask_step = config.mask if augment else config.mask.without_whole_images
    steps, is_label_map = _Steps.of(config, augment), config.data.target_is_mask
    height, width, _ = shape_after(config.data.transforms, config.input_channels)
    assert height
    assert width
    target_steps = _for_label_maps(steps.targets) if is_label_map else steps.targets
    loss = config.loss
    erase = make_eraser(mask_step, config.seed, height=height, width=width, cut=loss.target == "patches")

    def prepare(batch: ImageBatch) -> Batch:
        keys = Keys(config.seed, batch["epoch"], batch["examples"])
        inputs, targets, mask = erase(batch["images"], batch["epoch"], batch["examples"])
        originals = to_float(batch["images"])
        if separate:
            targets = make_targets(to_float(batch["targets"], is_label_map=is_label_map), mask, loss)
        targets = apply_transforms(targets, target_steps, keys, nearest=is_label_map)
        if loss.normalize_patches:
            targets = normalize_cells(targets, loss.normalize_patches)
        made: Batch = {
            "inputs": apply_transforms(inputs, steps.inputs, keys),
            "targets": _as_targets(targets, config),
            "originals": originals,
            "mask": mask,
        }
        if config.weighs_pixels:
            made["weights"] = pixel_weights(mask, loss)
        return made

    shared = _for_label_maps(steps.shared) if is_label_map else steps.shared
    targets = split_steps(shared, _target_options(config)) if separate else None
    not_trained_on = () if loss.adversarial or loss.perceptual else ("originals",)
    images = split_steps(steps.shared, _input_options(config))
    return Task(images, targets, prepare, not_trained_on=not_trained_on)


def image_to_image_task(config: Config, *, targets: bool, augment: bool, classes: int | None = None) -> Task:
    """Return the task of pairs of images, or of inference if there are no `targets`.

    Args:
        augment: apply random steps.
        classes: number of classes in a label map; None: any values.
    """
    steps = _Steps.of(config, augment)

    def prepare(batch: ImageBatch) -> Batch:
        made: Batch = {"inputs": to_float(batch["images"])}
        if targets:
            images = to_float(batch["targets"], is_label_map=config.data.target_is_mask)
            made["targets"] = _as_targets(images, config)
        return made

    images, fixed = split_steps(steps.of_inputs, _input_options(config)), _are_fixed(steps.of_inputs)
    if not targets:
        return Task(images, None, prepare, has_targets=False, fixed_inputs=fixed)
    target_steps = (*steps.shared, *steps.targets)
    if config.data.target_is_mask:
        target_steps = _for_label_maps(target_steps)
    partners = split_steps(target_steps, replace(_target_options(config), classes=classes))
    return Task(images, partners, prepare, fixed_inputs=fixed)


def _input_options(config: Config) -> DecodeOptions:
    data = config.data
    return DecodeOptions(
        channels=config.input_channels, max_mpixels=data.max_image_mpixels, jpeg_scaling=data.jpeg_scaling
    )


def _target_options(config: Config) -> DecodeOptions:
    is_label_map = config.data.target_is_mask
    return replace(_input_options(config), channels=config.target_channels, is_label_map=is_label_map)


def _as_targets(images: tf.Tensor, config: Config) -> tf.Tensor:
    """Return images as they are, and label maps as int32 [batch, height, width]."""
    return tf.cast(images[..., 0], tf.int32) if config.data.target_is_mask else images
