"""What is done to the images of each task: from a configuration to chains of steps and batches for the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import tensorflow as tf

from tfinpaint.batch import Batch, ImageBatch
from tfinpaint.config.schema import Config
from tfinpaint.config.transforms import shape_after
from tfinpaint.data import masks, transforms
from tfinpaint.data.examples import Preprocessing, split_steps
from tfinpaint.data.images.decode import Reading
from tfinpaint.data.masks import fill_hole
from tfinpaint.data.targets import make_targets, normalize_cells, pixel_weights
from tfinpaint.data.transforms import Keys, Numbered


@dataclass(frozen=True)
class Task:
    """What is done to the images of a task, and how the model's batches are made of them.

    Attributes:
        images, targets: the steps of either side; no `targets` where they are labels or cut from the inputs.
        prepare: the last step, on whole batches.
        has_targets: whether it makes "targets".
    """

    images: Preprocessing
    targets: Preprocessing | None
    prepare: Callable[[ImageBatch], Batch]
    has_targets: bool = True


@dataclass(frozen=True)
class _Steps:
    """The steps of a configuration with their numbers: shared by input and target, then each its own."""

    shared: Numbered
    inputs: Numbered
    targets: Numbered

    @classmethod
    def of(cls, config: Config, augment: bool) -> _Steps:
        """Random steps are left out without `augment`; numbers are counted over all steps alike."""
        data, first, lists = config.data, 0, []
        for steps in (data.transforms, data.input_transforms, data.target_transforms):
            numbered = enumerate(steps, first)
            lists.append(tuple((n, step) for n, step in numbered if augment or not step.is_random))
            first += len(steps)
        return cls(tuple((n, step) for n, step in lists[0] if not step.erases), *lists[1:])


def _for_masks(steps: Numbered) -> Numbered:
    return tuple((number, step) for number, step in steps if not step.changes_values)


def classification(config: Config, *, labels: bool, augment: bool) -> Task:
    """The task of the classifier.

    Args:
        labels: the classes are known; otherwise there is only inference.
        augment: without it, random steps are left out.
    """

    def prepare(batch: ImageBatch) -> Batch:
        made: Batch = {"inputs": batch["images"]}
        if labels:
            made["targets"] = batch["labels"]
        return made

    steps = _Steps.of(config, augment)
    return Task(split_steps((*steps.shared, *steps.inputs), _input_reading(config)), None, prepare, labels)


def inpainting(config: Config, *, separate: bool, augment: bool) -> Task:
    """The task of pretraining: a fresh mask per example and pass, input and target made apart by it.

    Args:
        separate: targets are images of their own; otherwise they are cut from the inputs.
        augment: without it, random steps are left out; the mask stays.
    """
    erase, steps, is_mask = config.mask, _Steps.of(config, augment), config.data.target_is_mask
    assert erase  # the configuration was checked
    height, width, _ = shape_after(config.data.transforms, config.input_channels)
    assert height
    assert width
    own = _for_masks(steps.targets) if is_mask else steps.targets
    fill, loss = erase.section.fill, config.loss

    def prepare(batch: ImageBatch) -> Batch:
        keys = Keys(config.seed, batch["epoch"], batch["examples"])
        originals, mask = batch["images"], masks.draw_mask(erase, keys, height=height, width=width)
        inputs = fill_hole(originals, mask, fill, keys)
        targets = make_targets(batch["targets"] if separate else originals, mask, loss)
        targets = transforms.apply(targets, own, keys, nearest=is_mask)
        if loss.normalize_patches:
            targets = normalize_cells(targets, loss.normalize_patches)
        made: Batch = {
            "inputs": transforms.apply(inputs, steps.inputs, keys),
            "targets": _as_targets(targets, config),
            "originals": originals,
            "mask": mask,
        }
        if config.weighs_pixels:
            made["weights"] = pixel_weights(mask, loss)
        return made

    shared = _for_masks(steps.shared) if is_mask else steps.shared
    targets = split_steps(shared, _target_reading(config)) if separate else None
    return Task(split_steps(steps.shared, _input_reading(config)), targets, prepare)


def image_to_image(config: Config, *, targets: bool, augment: bool, classes: int | None = None) -> Task:
    """The task of pairs of images, or of inference where there are no `targets`.

    Args:
        classes: number of values that a mask may hold; None: any.
    """
    steps = _Steps.of(config, augment)

    def prepare(batch: ImageBatch) -> Batch:
        made: Batch = {"inputs": batch["images"]}
        if targets:
            made["targets"] = _as_targets(batch["targets"], config)
        return made

    images = split_steps((*steps.shared, *steps.inputs), _input_reading(config))
    if not targets:
        return Task(images, None, prepare, has_targets=False)
    own = (*steps.shared, *steps.targets)
    reading = replace(_target_reading(config), classes=classes)
    return Task(images, split_steps(_for_masks(own) if config.data.target_is_mask else own, reading), prepare)


def _input_reading(config: Config) -> Reading:
    return Reading(channels=config.input_channels, max_mpixels=config.data.max_image_mpixels)


def _target_reading(config: Config) -> Reading:
    data = config.data
    return Reading(channels=config.target_channels, is_mask=data.target_is_mask, max_mpixels=data.max_image_mpixels)


def _as_targets(images: tf.Tensor, config: Config) -> tf.Tensor:
    return tf.cast(images[..., 0], tf.int32) if config.data.target_is_mask else images
