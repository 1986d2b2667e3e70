"""The batch of training images that `preview` shows, and how much of an image the masks erase."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfinpaint.config.schema import Config
from tfinpaint.config.transforms import shape_after
from tfinpaint.data.examples import Images, RankShare
from tfinpaint.data.listing.check import check_images
from tfinpaint.data.listing.listing import Listing
from tfinpaint.data.masks import draw_mask
from tfinpaint.data.pipeline import evaluation_batches
from tfinpaint.data.tasks import Task, pretraining_task
from tfinpaint.data.transforms import Keys
from tfinpaint.errors import UserError

_MASKS_AT_ONCE = 16


def spread(total: int, count: int) -> range:
    """Return at most `count` indices below `total`, starting with 0, at equal and greatest possible distances."""
    count = min(count, total)
    distance = (total - 1) // (count - 1) if count > 1 else total
    return range(0, count * distance, distance)


def draw_batch(
    config: Config, listing: Listing, targets: Listing | None, count: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return a batch of training images of epoch 0, and a line for each bad image that is excluded.

    Only the images that are shown are read. They have the masks that they have in training, unless images are bad:
    training numbers the images without the bad ones.

    Args:
        targets: the target images, in the order of the listing; None: targets are made of the inputs.
        count: how many images to show, at most, at equal distances in the listing.

    Raises:
        UserError: more images are bad than `data.max_bad_images`, or all.
    """
    task = pretraining_task(config, separate=targets is not None, augment=True)
    bad: list[str] = []
    while found := _find_bad(task, listing, targets, spread(len(listing), count)):
        bad += found.values()
        limit = config.data.max_bad_images
        if len(bad) > limit:
            head = f"{len(bad)} of the images to show are bad, data.max_bad_images allows {limit}; fix or delete them:"
            raise UserError("\n".join([head, *bad]))
        good = np.delete(np.arange(len(listing)), sorted(found))
        if not len(good):
            raise UserError(f"{listing.root}: no readable image is left")
        listing, targets = listing.select(good), targets.select(good) if targets else None
    shown = spread(len(listing), count)
    # The share of a rank has equal distances, and keeps the numbers of the images, and so their random numbers.
    share, until_last = RankShare(0, shown.step), range(shown[-1] + 1)
    inputs = Images.open(listing.select(until_last), share, task.images, preload=False)
    partners = None
    if targets and task.targets:
        partners = Images.open(targets.select(until_last), share, task.targets, preload=False)
    batches = evaluation_batches(
        inputs, partners, batch_size=len(shown) * shown.step, seed=config.seed, prepare=task.prepare
    )
    return next(batches.as_numpy_iterator()), [f"Excluding bad image {line}" for line in bad]


def _find_bad(task: Task, listing: Listing, targets: Listing | None, indices: Sequence[int]) -> dict[int, str]:
    """Return index -> file and reason, for those of these images that cannot be read or whose targets cannot."""
    sides = [(listing, task.images)] + ([(targets, task.targets)] if targets and task.targets else [])
    return {
        index: f"{files.place(index)}: {reason}"
        for files, preprocessing in sides
        for index, reason in check_images(files, indices, preprocessing.decoding).bad.items()
    }


def erased_fractions(config: Config, count: int) -> np.ndarray:
    """Return float [count]: the fraction of each of the first images that the mask erases in epoch 0."""
    height, width, _ = shape_after(config.data.transforms, config.input_channels)
    assert config.mask
    assert height
    assert width
    fractions = []
    for examples in tf.data.Dataset.range(count).batch(_MASKS_AT_ONCE):
        keys = Keys(config.seed, tf.constant(0, tf.int64), examples)
        mask = draw_mask(config.mask, keys, height=height, width=width)
        fractions.append(tf.reduce_mean(mask, axis=[1, 2, 3]).numpy())
    return np.concatenate(fractions)
