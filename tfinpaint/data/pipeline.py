"""The tf.data chains: one for training, one for evaluation, each an operation a line.

The order of a pass is dealt in lanes, so that the global batch at every step is the same for any number of ranks
although each rank holds only its own share of the images: with global batch B, lane l holds the examples l, l+B,
l+2B, ...; each pass shuffles every lane by itself and step s takes the s-th example of each lane. Rank r of R reads
the lanes r, r+R, ..., which are exactly the examples r, r+R, ... of the listing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from tfinpaint.batch import Batch, ImageBatch
from tfinpaint.data import rng
from tfinpaint.data.examples import Images, RankShare
from tfinpaint.data.failures import Failures
from tfinpaint.data.transforms import Keys

log = logging.getLogger(__name__)


# Steps of a chain are traced as they are: there is no control flow for AutoGraph to convert, and it is slow.
_no_autograph = tf.autograph.experimental.do_not_convert


def steps_per_pass(examples: int, batch_size: int) -> int:
    """Whole batches in one pass; what is left over is another part of the data in every pass."""
    return examples // batch_size


def pass_order(examples: int, batch_size: int, shard: RankShare, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """The example indices of one shuffled pass.

    Returns:
        int64 [steps, batch_size / shard.count]: a row per step; the rows of all shards together are the global batch.
    """
    lanes = tf.range(shard.index, batch_size, shard.count, dtype=tf.int64)
    rounds = tf.range(-(-examples // batch_size), dtype=tf.int64)

    def shuffle(lane: tf.Tensor) -> tf.Tensor:
        ids = lane + rounds * batch_size
        keys = rng.random_bits(seed, rng.ORDER, epoch, ids)
        keys = tf.cast(tf.bitwise.right_shift(keys, tf.constant(1, tf.uint64)), tf.int64)
        keys = tf.where(ids < examples, keys, tf.int64.max)  # places beyond the last example sort to the end
        return tf.argsort(keys)

    # A lane at a time, and int32 until the end: with millions of examples the many steps of `shuffle` would take more
    # memory than everything else.
    order = tf.map_fn(_no_autograph(shuffle), lanes, parallel_iterations=1, fn_output_signature=tf.int32)
    # The transpose, written as a gather: oneDNN's transpose complains about integers on older CPUs.
    steps = tf.range(steps_per_pass(examples, batch_size))
    places = steps[:, None] + tf.range(tf.shape(lanes)[0])[None, :] * tf.shape(rounds)[0]
    return lanes + batch_size * tf.cast(tf.gather(tf.reshape(order, [-1]), places), tf.int64)


def train_batches(
    images: Images,
    targets: Images | None = None,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    prepare: Callable[[ImageBatch], Batch],
    failures: Failures | None = None,
) -> tf.data.Dataset:
    """Endless training batches from global step `first_step` on.

    Args:
        images: this rank's images.
        targets: the images to compare outputs with, in the same order; None: labels, or cut from the images.
        batch_size: over all ranks; a multiple of their number, at most the number of examples.
        seed: of the run.
        first_step: number of steps that a resumed run has already made.
        prepare: from decoded images to what the model is trained on.
        failures: takes up the examples that can no longer be read; None: they are errors.
    """
    steps = steps_per_pass(len(images.listing), batch_size)
    share = batch_size // images.shard.count

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        rows = pass_order(len(images.listing), batch_size, images.shard, seed, epoch)
        return tf.data.Dataset.from_tensor_slices((tf.fill([steps], epoch), rows))

    def numbered(batch: ImageBatch) -> Batch:
        return {**prepare(batch), "examples": batch["examples"]}

    return (
        tf.data.Dataset.range(first_step // steps, np.iinfo(np.int64).max)
        .flat_map(_no_autograph(order))
        .skip(first_step % steps)  # only integers have been made so far: skipping costs nothing
        .apply(lambda rows: _with_pixels(rows, images, targets, seed, share, failures or Failures()))
        .map(_no_autograph(numbered), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(
    images: Images,
    targets: Images | None = None,
    *,
    batch_size: int,
    seed: int,
    prepare: Callable[[ImageBatch], Batch],
    failures: Failures | None = None,
) -> tf.data.Dataset:
    """Every example of this rank's share exactly once, in order; the last batch may be smaller.

    The epoch that `prepare` sees is always 0, so what it draws at random is the same at every evaluation.

    Args:
        failures: takes up the example that can no longer be read; it has no limit, so that one is an error.
    """
    share = batch_size // images.shard.count
    ids = images.shard.indices(len(images.listing))
    return (
        tf.data.Dataset.range(ids.start, ids.stop, ids.step)
        .batch(share)
        .map(_no_autograph(lambda row: (tf.constant(0, tf.int64), row)))
        .apply(lambda rows: _with_pixels(rows, images, targets, seed, share, failures or Failures()))
        .map(_no_autograph(prepare), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _with_pixels(
    rows: tf.data.Dataset, images: Images, targets: Images | None, seed: int, share: int, failures: Failures
) -> tf.data.Dataset:
    """(epoch, example indices) -> {"images", perhaps "targets", "labels", "examples", "epoch"}, after the chains."""
    labels = tf.constant(images.listing.labels, tf.int32)
    sides = {"images": images} | ({"targets": targets} if targets else {})

    def finish(epoch: tf.Tensor, ids: tf.Tensor, pixels: Mapping[str, tf.Tensor]) -> ImageBatch:
        keys = Keys(seed, epoch, ids)
        done = {name: side.chain.apply(pixels[name], side.chain.batched, keys) for name, side in sides.items()}
        found: ImageBatch = {
            "images": done["images"],
            "labels": tf.gather(labels, ids),
            "examples": ids,
            "epoch": epoch,
        }
        if "targets" in done:
            found["targets"] = done["targets"]
        return found

    if all(isinstance(side.pixels, tf.Tensor) and not side.chain.single for side in sides.values()):

        def gather(epoch: tf.Tensor, ids: tf.Tensor) -> ImageBatch:
            places = ids // images.shard.count
            return finish(epoch, ids, {name: _scaled(tf.gather(s.pixels, places), s) for name, s in sides.items()})

        return rows.map(_no_autograph(gather), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def one_by_one(epoch: tf.Tensor, ids: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((tf.fill(tf.shape(ids), epoch), ids))

    def decode(index: np.ndarray) -> tuple[np.ndarray, ...]:
        example, pixels = failures.read(list(sides.values()), int(index))
        return np.asarray(example, np.int64), *pixels

    def read(epoch: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        # From here on the example is the one that was read: its number, and so its label and its random numbers.
        types = [tf.int64, *(tf.uint8 for _ in sides)]
        example, *pixels = tf.numpy_function(decode, [index], types, stateful=False)
        example = tf.ensure_shape(example, [])
        keys = Keys(seed, epoch, example[None])
        named = zip(sides.items(), pixels, strict=True)
        return epoch, example, {name: _of_one_size(side, image, keys) for (name, side), image in named}

    return (
        rows.flat_map(_no_autograph(one_by_one))
        .map(
            _no_autograph(read), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )  # Pillow decodes without the GIL
        .batch(share)
        .map(
            _no_autograph(lambda epochs, ids, pixels: finish(epochs[0], ids, pixels)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    )


def _of_one_size(side: Images, pixels: tf.Tensor, keys: Keys) -> tf.Tensor:
    """float32 [height, width, channels] of one example, as decoded before; all of one size from here on."""
    reading = side.chain.reading
    pixels = tf.ensure_shape(pixels, [*(reading.size or (None, None)), reading.channels])
    return side.chain.apply(_scaled(pixels[None], side), side.chain.single, keys)[0]


def _scaled(pixels: tf.Tensor, side: Images) -> tf.Tensor:
    """uint8 -> float32: 0 to 1, or the integers of a mask."""
    pixels = tf.cast(pixels, tf.float32)
    return pixels if side.chain.reading.is_mask else pixels / 255
