"""The tf.data pipelines of training and of evaluation.

The global batch of every step is the same for any number of ranks, although each rank holds only its own share of the
images. For that, the examples of a pass are divided into lanes: with global batch B, lane l holds the examples l, l+B,
l+2B, ...; each pass shuffles every lane by itself, and step s takes the s-th example of each lane. Rank r of R reads
the lanes r, r+R, ..., which are exactly the examples r, r+R, ... of the listing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import cast

import numpy as np
import tensorflow as tf

from tfinpaint.batch import Batch, ImageBatch, tensors_of
from tfinpaint.data import rng
from tfinpaint.data.examples import Images, RankShare
from tfinpaint.data.failures import Failures
from tfinpaint.data.features import Features
from tfinpaint.data.transforms import Keys, NumberedSteps, to_float

# The functions of a pipeline have no control flow that AutoGraph would convert, and converting is slow.
_no_autograph = tf.autograph.experimental.do_not_convert


def steps_per_pass(examples: int, batch_size: int) -> int:
    """Return the number of whole batches in one pass; each pass leaves out different examples of the remainder."""
    return examples // batch_size


def pass_order(examples: int, batch_size: int, share: RankShare, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Return the example indices of one shuffled pass.

    Returns:
        int64 [steps, batch_size / share.count]: a row per step; the rows of all ranks together are the global batch.
    """
    lanes = tf.range(share.index, batch_size, share.count, dtype=tf.int64)
    rounds = tf.range(-(-examples // batch_size), dtype=tf.int64)

    def shuffle(lane: tf.Tensor) -> tf.Tensor:
        ids = lane + rounds * batch_size
        keys = rng.random_bits(seed, rng.ORDER, epoch, ids)
        keys = tf.cast(tf.bitwise.right_shift(keys, tf.constant(1, tf.uint64)), tf.int64)
        keys = tf.where(ids < examples, keys, tf.int64.max)  # places beyond the last example sort to the end
        return tf.argsort(keys)

    # One lane at a time, and int32 until the end, to save memory with millions of examples.
    order = tf.map_fn(_no_autograph(shuffle), lanes, parallel_iterations=1, fn_output_signature=tf.int32)
    # A gather instead of a transpose, because oneDNN's transpose warns about integers on older CPUs.
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
    features: Features | None = None,
    leave_out: Collection[str] = (),
    views: int = 1,
) -> tf.data.Dataset:
    """Return endless training batches from global step `first_step` on.

    Args:
        images: this rank's images.
        targets: the target images, in the same order; None: targets are labels, or made of the images.
        batch_size: over all ranks; a multiple of their number, at most the number of examples.
        seed: of the run.
        first_step: number of steps that a resumed run has already made.
        prepare: makes the model's batch of a batch of images.
        failures: records the examples that can no longer be read, and replaces them; None: they are errors.
        features: those of `images`, which batches then have in place of "inputs"; None: images are read.
        leave_out: the tensors of a batch that training does not use. They are not computed.
        views: how often each image is in a batch, each time with random numbers of its own (see `batch`).
    """
    steps = steps_per_pass(len(images.listing), batch_size)
    share = batch_size // images.share.count

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        rows = pass_order(len(images.listing), batch_size, images.share, seed, epoch)
        return tf.data.Dataset.from_tensor_slices((tf.fill([steps], epoch), rows))

    def prepare_with_examples(batch: ImageBatch) -> Batch:
        made = tensors_of(_prepared(batch, prepare, features))
        kept = {name: tensor for name, tensor in made.items() if name not in leave_out}
        return cast("Batch", {**kept, "examples": rng.examples_of(batch["examples"])})

    return (
        tf.data.Dataset.range(first_step // steps, np.iinfo(np.int64).max)
        .flat_map(_no_autograph(order))
        .skip(first_step % steps)  # nothing but integers so far: skipping them costs nothing
        .apply(lambda rows: _read_batches(rows, images, targets, seed, share, failures or Failures(), features, views))
        .map(_no_autograph(prepare_with_examples), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
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
    features: Features | None = None,
) -> tf.data.Dataset:
    """Return every example of this rank's share once, in order; the last batch may be smaller.

    `prepare` always sees epoch 0, so that every evaluation draws the same random numbers.

    Args:
        images, targets, batch_size, seed, prepare, features: as for `train_batches`.
        failures: records the example that can no longer be read, which is an error.
    """
    share = batch_size // images.share.count
    ids = images.share.indices(len(images.listing))
    return (
        tf.data.Dataset.range(ids.start, ids.stop, ids.step)
        .batch(share)
        .map(_no_autograph(lambda row: (tf.constant(0, tf.int64), row)))
        .apply(lambda rows: _read_batches(rows, images, targets, seed, share, failures or Failures(), features))
        .map(
            _no_autograph(lambda batch: _prepared(batch, prepare, features)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .prefetch(tf.data.AUTOTUNE)
    )


def _prepared(batch: ImageBatch, prepare: Callable[[ImageBatch], Batch], features: Features | None) -> Batch:
    """Return the model's batch; what was made of features is not called "inputs" in it."""
    made = prepare(batch)
    if features:
        made["features"] = made.pop("inputs")
    return made


def _read_batches(
    rows: tf.data.Dataset, images: Images, targets: Images | None, seed: int, share: int, failures: Failures,
    features: Features | None, views: int = 1,
) -> tf.data.Dataset:  # fmt: skip
    """Map (epoch, example indices) to the preprocessed `ImageBatch` of these examples.

    Args:
        rows: int64 [] and int64 [share], a row per step.
        share: examples of this rank in a batch.
        views: of each example, all of them in the batch.
        features: in place of the pixels of `images`; None: they are read.
    """
    labels = tf.constant(images.listing.labels, tf.int32)
    sides = {"images": images} | ({"targets": targets} if targets else {})
    if features:
        sides.pop("images")
        rows = rows.map(_no_autograph(lambda epoch, ids: (epoch, features.replaced(ids))))

    def finish(epoch: tf.Tensor, ids: tf.Tensor, pixels: Mapping[str, tf.Tensor]) -> ImageBatch:
        """Return the batch of these examples, from pixels [share, views or 1, height, width, channels]."""
        every, keys = tf.tile(ids, [views]), Keys(seed, epoch, rng.view_keys(ids, views))
        done = {
            name: _apply(side, _one_after_another(pixels[name], views), side.preprocessing.per_batch, keys)
            for name, side in sides.items()
        }
        batch: ImageBatch = {
            "images": features.gather(every) if features else done["images"],
            "labels": tf.gather(labels, every),
            "examples": keys.examples,
            "epoch": epoch,
        }
        if "targets" in done:
            batch["targets"] = done["targets"]
        return batch

    if all(isinstance(side.pixels, tf.Tensor) and not side.preprocessing.per_image for side in sides.values()):
        return _gather_from_memory(rows, sides, images.share.count, finish)
    if all(side.preprocessing.decoding.size and not side.preprocessing.per_image for side in sides.values()):
        return _read_in_parts(rows, sides, share, failures).map(
            _no_autograph(finish), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
    return (
        _read_one_by_one(rows, sides, seed, failures, views)
        .batch(share)
        .map(
            _no_autograph(lambda epochs, ids, pixels: finish(epochs[0], ids, pixels)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    )


def _gather_from_memory(
    rows: tf.data.Dataset, sides: Mapping[str, Images], ranks: int,
    finish: Callable[[tf.Tensor, tf.Tensor, Mapping[str, tf.Tensor]], ImageBatch],
) -> tf.data.Dataset:  # fmt: skip
    """Map rows of (epoch, example indices) to what `finish` makes of them and of their pixels, which are in memory.

    Args:
        sides: each with the pixels of this rank's examples, which are every `ranks`-th one of the listing.
        finish: takes the pixels of each side as [share, 1, height, width, channels].
    """

    def gather(epoch: tf.Tensor, ids: tf.Tensor) -> ImageBatch:
        places = ids // ranks
        return finish(epoch, ids, {name: tf.gather(side.pixels, places)[:, None] for name, side in sides.items()})

    batches = rows.map(_no_autograph(gather), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False  # they would copy the pixels
    return batches.with_options(options)


def _one_after_another(pixels: tf.Tensor, views: int) -> tf.Tensor:
    """Return [views * batch, ...] of [batch, views, ...], or of [batch, 1, ...] if all views begin with one image."""
    each = tf.unstack(pixels, axis=1) if pixels.shape[1] == views > 1 else [tf.squeeze(pixels, 1)] * views
    return tf.concat(each, axis=0) if views > 1 else each[0]


def _threads() -> int:
    return tf.config.threading.get_inter_op_parallelism_threads() or len(os.sched_getaffinity(0))


def _read_in_parts(
    rows: tf.data.Dataset, sides: Mapping[str, Images], share: int, failures: Failures
) -> tf.data.Dataset:
    """Map rows of (epoch, example indices) to (epoch, examples, side -> uint8 [share, 1, height, width, channels]).

    TensorFlow calls Python once for a part of a row, not for each image: small images would take longer to hand over
    than to decode. The parts of a row are read in parallel, since Pillow releases the GIL.
    """
    parts = min(_threads(), share)

    def decode(ids: np.ndarray) -> tuple[np.ndarray, ...]:
        examples, pixels = failures.read_all(list(sides.values()), ids)
        return examples, *pixels

    def read(epoch: tf.Tensor, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        types = [tf.int64, *(tf.uint8 for _ in sides)]
        # The last row of an evaluation may be shorter.
        ends = tf.range(parts + 1) * tf.size(ids) // parts
        done = [tf.numpy_function(decode, [ids[ends[n] : ends[n + 1]]], types, stateful=False) for n in range(parts)]
        # The labels and the random numbers are those of the examples that were read, which may be replacements.
        examples, *pixels = (tf.concat(each, axis=0) for each in zip(*done, strict=True))
        named = zip(sides.items(), pixels, strict=True)
        return epoch, tf.ensure_shape(examples, [None]), {name: _with_shape(side, each) for (name, side), each in named}

    # Threads that have read their part of one row begin with the next.
    return rows.map(_no_autograph(read), num_parallel_calls=2, deterministic=True)


def _with_shape(side: Images, pixels: tf.Tensor) -> tf.Tensor:
    """Return [batch, 1, height, width, channels] of [batch, height, width, channels], whose shape is unknown."""
    decoding = side.preprocessing.decoding
    return tf.ensure_shape(pixels, [None, *(decoding.size or ()), decoding.channels])[:, None]


def _read_one_by_one(
    rows: tf.data.Dataset, sides: Mapping[str, Images], seed: int, failures: Failures, views: int
) -> tf.data.Dataset:
    """Map rows of (epoch, example indices) to (epoch, example, side -> [views or 1, height, width, channels]).

    It is for images that go through steps of their own after decoding, of which some get one size only there.
    """

    def split(epoch: tf.Tensor, ids: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((tf.fill(tf.shape(ids), epoch), ids))

    def decode(index: np.ndarray) -> tuple[np.ndarray, ...]:
        example, pixels = failures.read(list(sides.values()), int(index))
        return np.asarray(example, np.int64), *pixels

    def read(epoch: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        # The label and the random numbers are those of the example that was read, which may be a replacement.
        types = [tf.int64, *(tf.uint8 for _ in sides)]
        example, *pixels = tf.numpy_function(decode, [index], types, stateful=False)
        example = tf.ensure_shape(example, [])
        keys = [Keys(seed, epoch, key) for key in tf.split(rng.view_keys(example[None], views), views)]
        named = zip(sides.items(), pixels, strict=True)
        return epoch, example, {name: _preprocess_one(side, image, keys) for (name, side), image in named}

    one_by_one = rows.flat_map(_no_autograph(split))
    return one_by_one.map(_no_autograph(read), num_parallel_calls=_threads(), deterministic=True)


def _preprocess_one(side: Images, pixels: tf.Tensor, keys: Sequence[Keys]) -> tf.Tensor:
    """Return one decoded image in the size of the batch: uint8, or float32 after steps.

    Args:
        keys: of each view.

    Returns:
        [views, height, width, channels], or [1, ...] without steps for single images, which could make views differ.
    """
    preprocessing = side.preprocessing
    pixels = tf.ensure_shape(pixels, [*(preprocessing.decoding.size or (None, None)), preprocessing.decoding.channels])
    steps = preprocessing.per_image
    return tf.concat([_apply(side, pixels[None], steps, each) for each in keys[: len(keys) if steps else 1]], axis=0)


def _apply(side: Images, pixels: tf.Tensor, steps: NumberedSteps, keys: Keys) -> tf.Tensor:
    """Apply steps to uint8 or float32 pixels; without any, uint8 ones stay so, since they are smaller."""
    if not steps:
        return pixels
    return side.preprocessing.apply(
        to_float(pixels, is_label_map=side.preprocessing.decoding.is_label_map), steps, keys
    )
