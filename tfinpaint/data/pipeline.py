"""The tf.data chains: one for training, one for evaluation, each an operation a line.

The order of a pass is dealt in lanes, so that the global batch at every step is the same for any number of ranks
although each rank holds only its own share of the images: with global batch B, lane l holds the examples l, l+B,
l+2B, ...; each pass shuffles every lane by itself and step s takes the s-th example of each lane. Rank r of R reads
the lanes r, r+R, ..., which are exactly the examples r, r+R, ... of the listing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfinpaint.data import erasing, stateless
from tfinpaint.data.sources import Listing, load_images, read_image

Batch = Mapping[str, tf.Tensor]


@dataclass(frozen=True)
class Shard:
    """Which examples a rank sees: those whose index is `index` modulo `count`."""

    index: int = 0
    count: int = 1

    def indices(self, total: int) -> range:
        return range(self.index, total, self.count)


@dataclass(frozen=True)
class Images:
    """A rank's share of a listing, ready to be read by example index.

    Attributes:
        listing: the whole data set.
        shard: this rank's share of it.
        height, width: pixels after the resize.
        pixels: uint8 tensor [share, height, width, 3] when preloaded, else None (files are read as they are needed).
    """

    listing: Listing
    shard: Shard
    height: int
    width: int
    pixels: tf.Tensor | None

    @classmethod
    def open(cls, listing: Listing, shard: Shard, size: tuple[int, int], preload: bool) -> Images:
        pixels = None
        if preload:
            with tf.device("CPU:0"):
                pixels = tf.constant(load_images(listing, shard.indices(len(listing)), *size))
        return cls(listing, shard, *size, pixels)


def steps_per_pass(examples: int, batch_size: int) -> int:
    """Whole batches in one pass; what is left over is another part of the data in every pass."""
    return examples // batch_size


def pass_order(examples: int, batch_size: int, shard: Shard, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """The example indices of one shuffled pass.

    Returns:
        int64 [steps, batch_size / shard.count]: a row per step; the rows of all shards together are the global batch.
    """
    lanes = tf.range(shard.index, batch_size, shard.count, dtype=tf.int64)
    rounds = tf.range(-(-examples // batch_size), dtype=tf.int64)
    ids = lanes[:, None] + rounds[None, :] * batch_size
    keys = stateless.random_bits(seed, stateless.ORDER, epoch, ids)
    keys = tf.cast(tf.bitwise.right_shift(keys, tf.constant(1, tf.uint64)), tf.int64)
    keys = tf.where(ids < examples, keys, tf.int64.max)  # places beyond the last example sort to the end
    shuffled = tf.gather(ids, tf.argsort(keys, axis=1), batch_dims=1)
    steps = tf.range(steps_per_pass(examples, batch_size))
    # The transpose, written as a gather: oneDNN's transpose complains about int64 on older CPUs.
    places = steps[:, None] + tf.range(tf.shape(lanes)[0])[None, :] * tf.shape(rounds)[0]
    return tf.gather(tf.reshape(shuffled, [-1]), places)


def train_batches(
    images: Images, *, batch_size: int, seed: int, first_step: int, prepare: Callable[[Batch], Batch]
) -> tf.data.Dataset:
    """Endless training batches from global step `first_step` on.

    Args:
        images: this rank's images.
        batch_size: over all ranks; a multiple of their number, at most the number of examples.
        seed: of the run.
        first_step: number of steps that a resumed run has already made.
        prepare: from {"images", "labels", "examples", "epoch"} to what the model is trained on.
    """
    steps = steps_per_pass(len(images.listing), batch_size)
    share = batch_size // images.shard.count

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        rows = pass_order(len(images.listing), batch_size, images.shard, seed, epoch)
        return tf.data.Dataset.from_tensor_slices((tf.fill([steps], epoch), rows))

    return (
        tf.data.Dataset.range(first_step // steps, np.iinfo(np.int64).max)
        .flat_map(order)
        .skip(first_step % steps)  # only integers have been made so far: skipping costs nothing
        .apply(lambda rows: _with_pixels(rows, images, share))
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(images: Images, *, batch_size: int, prepare: Callable[[Batch], Batch]) -> tf.data.Dataset:
    """Every example of this rank's share exactly once, in order; the last batch may be smaller.

    The epoch that `prepare` sees is always 0, so what it draws at random is the same at every evaluation.
    """
    share = batch_size // images.shard.count
    ids = np.array(images.shard.indices(len(images.listing)), np.int64)
    return (
        tf.data.Dataset.from_tensor_slices(ids)
        .batch(share)
        .map(lambda row: (tf.constant(0, tf.int64), row))
        .apply(lambda rows: _with_pixels(rows, images, share))
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _with_pixels(rows: tf.data.Dataset, images: Images, share: int) -> tf.data.Dataset:
    """(epoch, example indices) -> {"images": float32 0 to 1, "labels", "examples", "epoch"}."""
    labels = tf.constant(images.listing.labels, tf.int32)

    def described(epoch: tf.Tensor, ids: tf.Tensor, pixels: tf.Tensor) -> Batch:
        scaled = tf.cast(pixels, tf.float32) / 255
        return {"images": scaled, "labels": tf.gather(labels, ids), "examples": ids, "epoch": epoch}

    if images.pixels is not None:
        return rows.map(
            lambda epoch, ids: described(epoch, ids, tf.gather(images.pixels, ids // images.shard.count)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def read(index: np.ndarray) -> np.ndarray:
        return read_image(images.listing.absolute(int(index)), images.height, images.width)

    def read_one(epoch: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        pixels = tf.numpy_function(read, [index], tf.uint8, stateful=False)
        return epoch, index, tf.ensure_shape(pixels, [images.height, images.width, 3])

    return (
        rows.flat_map(lambda epoch, ids: tf.data.Dataset.from_tensor_slices((tf.fill(tf.shape(ids), epoch), ids)))
        .map(read_one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)  # Pillow decodes without the GIL
        .batch(share)
        .map(lambda epochs, ids, pixels: described(epochs[0], ids, pixels))
    )


def inpainting(
    *, seed: int, number: int, size: int, height: int, width: int, flip_probability: float
) -> Callable[[Batch], Batch]:
    """The preparation of pretraining: fresh patches per example and pass.

    Returns:
        A function to {"inputs", "targets": float32 [batch, height, width, 3], "mask": float32 [..., 1]}.
    """

    def prepare(batch: Batch) -> Batch:
        patches = erasing.draw_patches(
            seed, batch["epoch"], batch["examples"], number=number, size=size, height=height, width=width
        )
        mask = erasing.patches_to_mask(patches, size=size, height=height, width=width)
        inputs, targets = erasing.erase(flip(batch, seed, flip_probability), mask)
        return {"inputs": inputs, "targets": targets, "mask": mask}

    return prepare


def classification(*, seed: int, flip_probability: float) -> Callable[[Batch], Batch]:
    """The preparation of the classifier: {"inputs": float32 [batch, height, width, 3], "targets": int32 [batch]}."""
    return lambda batch: {"inputs": flip(batch, seed, flip_probability), "targets": batch["labels"]}


def flip(batch: Batch, seed: int, probability: float) -> tf.Tensor:
    """The images, each mirrored left to right with this probability."""
    if not probability:
        return batch["images"]
    bits = stateless.random_bits(seed, stateless.FLIP, batch["epoch"], batch["examples"])
    flipped = stateless.random_uniform(bits) < probability
    return tf.where(flipped[:, None, None, None], batch["images"][:, :, ::-1], batch["images"])
