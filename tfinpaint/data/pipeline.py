"""The tf.data chains: one for training, one for evaluation, each an operation a line.

The order of a pass is dealt in lanes, so that the global batch at every step is the same for any number of ranks
although each rank holds only its own share of the images: with global batch B, lane l holds the examples l, l+B,
l+2B, ...; each pass shuffles every lane by itself and step s takes the s-th example of each lane. Rank r of R reads
the lanes r, r+R, ..., which are exactly the examples r, r+R, ... of the listing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from tfinpaint.config_transforms import Transform, shape_after
from tfinpaint.data import stateless, transforms
from tfinpaint.data.decode import Reading, UnreadableImageError, read_image
from tfinpaint.data.sources import Listing, load_images
from tfinpaint.data.transforms import Keys, Numbered

Batch = Mapping[str, tf.Tensor]

# Steps of a chain are traced as they are: there is no control flow for AutoGraph to convert, and it is slow.
_as_it_is = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class Shard:
    """Which examples a rank sees: those whose index is `index` modulo `count`."""

    index: int = 0
    count: int = 1

    def indices(self, total: int) -> range:
        return range(self.index, total, self.count)


@dataclass(frozen=True)
class Chain:
    """The steps of one side, input or target, divided by where they run.

    Attributes:
        reading: how files are decoded, with the leading `resize` and `center_crop` steps (Pillow, once, as uint8).
        single: the steps up to the one from which on all images have one size; they run an image at a time.
        batched: the others, which run on whole batches.
    """

    reading: Reading
    single: Numbered = ()
    batched: Numbered = ()

    def apply(self, images: tf.Tensor, steps: Numbered, keys: Keys) -> tf.Tensor:
        return transforms.apply(images, steps, keys, nearest=self.reading.is_mask)


def divide(steps: Numbered, reading: Reading) -> Chain:
    """Divide steps, none of which erases, between the decoder, single images and batches."""
    fixed = (place for place, (_, step) in enumerate(steps) if step.kind not in ("resize", "center_crop"))
    decoded = next(fixed, len(steps))
    reading = replace(reading, steps=tuple(step for _, step in steps[:decoded]))
    unequal = [place for place in range(decoded, len(steps)) if _differ([s for _, s in steps[:place]])]
    batched_from = unequal[-1] + 1 if unequal else decoded
    return Chain(reading, steps[decoded:batched_from], steps[batched_from:])


def _differ(steps: Sequence[Transform]) -> bool:
    """True where images still differ in size after these steps."""
    return shape_after(steps, 3)[0] is None


@dataclass(frozen=True)
class Images:
    """A rank's share of a listing, ready to be read by example index.

    Attributes:
        listing: the whole data set.
        shard: this rank's share of it.
        chain: what is done to each image.
        pixels: when preloaded, uint8 tensor [share, height, width, channels], or a list of arrays where the images
            keep their own sizes; else None (files are read as they are needed).
        failed: what could not be read, with the reason: an exception loses its type on its way through TensorFlow.
    """

    listing: Listing
    shard: Shard
    chain: Chain
    pixels: tf.Tensor | list[np.ndarray] | None
    failed: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, listing: Listing, shard: Shard, chain: Chain, preload: bool) -> Images:
        pixels = None
        if preload:
            pixels = load_images(listing, shard.indices(len(listing)), chain.reading)
            if isinstance(pixels, np.ndarray):
                with tf.device("CPU:0"):
                    pixels = tf.constant(pixels)
        return cls(listing, shard, chain, pixels)

    def select(self, indices: Sequence[int]) -> Images:
        """These images alone, on one rank."""
        return Images.open(self.listing.select(indices), Shard(), self.chain, preload=True)

    def decode(self, index: int) -> np.ndarray:
        """uint8 [height, width, channels] of one image of this rank's share."""
        if self.pixels is None:
            try:
                return read_image(self.listing.open(index), self.chain.reading)
            except UnreadableImageError as error:
                self.failed.append(f"{self.listing.place(index)}: {error}")
                raise
        return self.pixels[index // self.shard.count]


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

    def shuffle(lane: tf.Tensor) -> tf.Tensor:
        ids = lane + rounds * batch_size
        keys = stateless.random_bits(seed, stateless.ORDER, epoch, ids)
        keys = tf.cast(tf.bitwise.right_shift(keys, tf.constant(1, tf.uint64)), tf.int64)
        keys = tf.where(ids < examples, keys, tf.int64.max)  # places beyond the last example sort to the end
        return tf.argsort(keys)

    # A lane at a time, and int32 until the end: with millions of examples the many steps of `shuffle` would take more
    # memory than everything else.
    order = tf.map_fn(_as_it_is(shuffle), lanes, parallel_iterations=1, fn_output_signature=tf.int32)
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
    prepare: Callable[[Batch], Batch],
) -> tf.data.Dataset:
    """Endless training batches from global step `first_step` on.

    Args:
        images: this rank's images.
        targets: the images to compare outputs with, in the same order; None: labels, or cut from the images.
        batch_size: over all ranks; a multiple of their number, at most the number of examples.
        seed: of the run.
        first_step: number of steps that a resumed run has already made.
        prepare: from {"images", "labels", "examples", "epoch"}, and "targets" where given, to what the model is
            trained on.
    """
    steps = steps_per_pass(len(images.listing), batch_size)
    share = batch_size // images.shard.count

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        rows = pass_order(len(images.listing), batch_size, images.shard, seed, epoch)
        return tf.data.Dataset.from_tensor_slices((tf.fill([steps], epoch), rows))

    return (
        tf.data.Dataset.range(first_step // steps, np.iinfo(np.int64).max)
        .flat_map(_as_it_is(order))
        .skip(first_step % steps)  # only integers have been made so far: skipping costs nothing
        .apply(lambda rows: _with_pixels(rows, images, targets, seed, share))
        .map(_as_it_is(prepare), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(
    images: Images, targets: Images | None = None, *, batch_size: int, seed: int, prepare: Callable[[Batch], Batch]
) -> tf.data.Dataset:
    """Every example of this rank's share exactly once, in order; the last batch may be smaller.

    The epoch that `prepare` sees is always 0, so what it draws at random is the same at every evaluation.
    """
    share = batch_size // images.shard.count
    ids = images.shard.indices(len(images.listing))
    return (
        tf.data.Dataset.range(ids.start, ids.stop, ids.step)
        .batch(share)
        .map(_as_it_is(lambda row: (tf.constant(0, tf.int64), row)))
        .apply(lambda rows: _with_pixels(rows, images, targets, seed, share))
        .map(_as_it_is(prepare), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _with_pixels(
    rows: tf.data.Dataset, images: Images, targets: Images | None, seed: int, share: int
) -> tf.data.Dataset:
    """(epoch, example indices) -> {"images", perhaps "targets", "labels", "examples", "epoch"}, after the chains."""
    labels = tf.constant(images.listing.labels, tf.int32)
    sides = {"images": images} | ({"targets": targets} if targets else {})

    def finish(epoch: tf.Tensor, ids: tf.Tensor, pixels: Mapping[str, tf.Tensor]) -> Batch:
        keys = Keys(seed, epoch, ids)
        done = {name: side.chain.apply(pixels[name], side.chain.batched, keys) for name, side in sides.items()}
        return {**done, "labels": tf.gather(labels, ids), "examples": ids, "epoch": epoch}

    if all(isinstance(side.pixels, tf.Tensor) and not side.chain.single for side in sides.values()):

        def gather(epoch: tf.Tensor, ids: tf.Tensor) -> Batch:
            places = ids // images.shard.count
            return finish(epoch, ids, {name: _scaled(tf.gather(s.pixels, places), s) for name, s in sides.items()})

        return rows.map(_as_it_is(gather), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def one_by_one(epoch: tf.Tensor, ids: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((tf.fill(tf.shape(ids), epoch), ids))

    def read(epoch: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Batch]:
        return epoch, index, {name: _one_image(side, seed, epoch, index) for name, side in sides.items()}

    return (
        rows.flat_map(_as_it_is(one_by_one))
        .map(_as_it_is(read), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)  # Pillow decodes without the GIL
        .batch(share)
        .map(_as_it_is(lambda epochs, ids, pixels: finish(epochs[0], ids, pixels)), num_parallel_calls=tf.data.AUTOTUNE)
    )


def _one_image(side: Images, seed: int, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """float32 [height, width, channels] of one example, all of one size from here on."""
    reading = side.chain.reading
    pixels = tf.numpy_function(lambda i: side.decode(int(i)), [index], tf.uint8, stateful=False)
    pixels = tf.ensure_shape(pixels, [*(reading.size or (None, None)), reading.channels])
    keys = Keys(seed, epoch, index[None])
    return side.chain.apply(_scaled(pixels[None], side), side.chain.single, keys)[0]


def _scaled(pixels: tf.Tensor, side: Images) -> tf.Tensor:
    """uint8 -> float32: 0 to 1, or the integers of a mask."""
    pixels = tf.cast(pixels, tf.float32)
    return pixels if side.chain.reading.is_mask else pixels / 255
