"""The tf.data chains: one for training, one for evaluation, each an operation a line.

The order of a pass is dealt in lanes, so that the global batch at every step is the same for any number of ranks
although each rank holds only its own share of the images: with global batch B, lane l holds the examples l, l+B,
l+2B, ...; each pass shuffles every lane by itself and step s takes the s-th example of each lane. Rank r of R reads
the lanes r, r+R, ..., which are exactly the examples r, r+R, ... of the listing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import tensorflow as tf

from tfinpaint.activity import sign
from tfinpaint.config_transforms import Transform, shape_after
from tfinpaint.data import stateless, transforms
from tfinpaint.data.decode import Reading, UnreadableImageError, read_image
from tfinpaint.data.sources import Listing, load_images
from tfinpaint.data.transforms import Keys, Numbered

log = logging.getLogger(__name__)

Batch = Mapping[str, tf.Tensor]

MOST_NAMED = 20  # bad images on the terminal, of a rank

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
    """

    listing: Listing
    shard: Shard
    chain: Chain
    pixels: tf.Tensor | list[np.ndarray] | None

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
        """uint8 [height, width, channels] of one image of this rank's share.

        Raises:
            UnreadableImageError: it can no longer be read.
        """
        if self.pixels is None:
            return read_image(self.listing.open(index), self.chain.reading)
        return self.pixels[index // self.shard.count]


@dataclass
class Failures:
    """The examples of a rank's share that can no longer be read, although they could when they were checked.

    In training each has the next readable one of the share in its place, until there are too many. Which one that is
    depends on the example alone, and not on when a thread comes to it.

    Attributes:
        limit: `data.max_bad_images`; None: none may fail, as in evaluation, whose figures would be of other images.
        before: bad images that count as well: found by the check, or by other ranks.
        found: example -> (its file, the reason).
        are_all: no image of the share can be read.
    """

    limit: int | None = None
    before: int = 0
    found: dict[int, tuple[str, str]] = field(default_factory=dict)
    are_all: bool = False

    @property
    def are_too_many(self) -> bool:
        return bool(self.found) and self.before + len(self.found) > (self.limit or 0)

    def read(self, sides: Sequence[Images], index: int) -> tuple[int, list[np.ndarray]]:
        """(example, its image on each side) of this example, or of the one in its place. Threads may call it.

        Raises:
            UnreadableImageError: too many are bad, or all.
        """
        shard, total = sides[0].shard, len(sides[0].listing)
        for candidate in chain(range(index, total, shard.count), range(shard.index, index, shard.count)):
            if self.are_too_many:
                break
            if candidate in self.found:
                continue
            pixels = []
            for side in sides:
                sign()
                try:
                    pixels.append(side.decode(candidate))
                except UnreadableImageError as error:
                    self._add(candidate, side.listing.place(candidate), str(error))
                    break
            else:
                return candidate, pixels
        else:
            self.are_all = True
        raise UnreadableImageError("no other image may take its place")

    def _add(self, index: int, place: str, reason: str) -> None:
        entry = place, reason
        is_new = self.found.setdefault(index, entry) is entry  # of two threads that come to it, one names it
        if is_new and not self.are_too_many and len(self.found) <= MOST_NAMED:
            log.warning(f"Unusable since it was checked, another image is in its place: {place}: {reason}")

    def explained(self) -> str:
        """The error, in one line, where there are too many."""
        place, reason = list(self.found.values())[-1]
        line = f"unusable since it was checked: {place}: {reason}"
        if self.limit is None:
            return line
        line += f" (bad images: {self.before} before, {len(self.found)} since; data.max_bad_images {self.limit})"
        return f"{line}; no other can be read" if self.are_all else line


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
    failures: Failures | None = None,
) -> tf.data.Dataset:
    """Endless training batches from global step `first_step` on.

    Args:
        images: this rank's images.
        targets: the images to compare outputs with, in the same order; None: labels, or cut from the images.
        batch_size: over all ranks; a multiple of their number, at most the number of examples.
        seed: of the run.
        first_step: number of steps that a resumed run has already made.
        prepare: from {"images", "labels", "examples", "epoch"}, and "targets" where given, to what the model is
            trained on. The batches have its values and "examples", int64, which examples they are.
        failures: takes up the examples that can no longer be read; None: they are errors.
    """
    steps = steps_per_pass(len(images.listing), batch_size)
    share = batch_size // images.shard.count

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        rows = pass_order(len(images.listing), batch_size, images.shard, seed, epoch)
        return tf.data.Dataset.from_tensor_slices((tf.fill([steps], epoch), rows))

    def numbered(batch: Batch) -> Batch:
        return {**prepare(batch), "examples": batch["examples"]}

    return (
        tf.data.Dataset.range(first_step // steps, np.iinfo(np.int64).max)
        .flat_map(_as_it_is(order))
        .skip(first_step % steps)  # only integers have been made so far: skipping costs nothing
        .apply(lambda rows: _with_pixels(rows, images, targets, seed, share, failures or Failures()))
        .map(_as_it_is(numbered), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(
    images: Images,
    targets: Images | None = None,
    *,
    batch_size: int,
    seed: int,
    prepare: Callable[[Batch], Batch],
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
        .map(_as_it_is(lambda row: (tf.constant(0, tf.int64), row)))
        .apply(lambda rows: _with_pixels(rows, images, targets, seed, share, failures or Failures()))
        .map(_as_it_is(prepare), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _with_pixels(
    rows: tf.data.Dataset, images: Images, targets: Images | None, seed: int, share: int, failures: Failures
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

    def decode(index: np.ndarray) -> tuple[np.ndarray, ...]:
        example, pixels = failures.read(list(sides.values()), int(index))
        return np.asarray(example, np.int64), *pixels

    def read(epoch: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Batch]:
        # From here on the example is the one that was read: its number, and so its label and its random numbers.
        types = [tf.int64, *(tf.uint8 for _ in sides)]
        example, *pixels = tf.numpy_function(decode, [index], types, stateful=False)
        example = tf.ensure_shape(example, [])
        keys = Keys(seed, epoch, example[None])
        named = zip(sides.items(), pixels, strict=True)
        return epoch, example, {name: _of_one_size(side, image, keys) for (name, side), image in named}

    return (
        rows.flat_map(_as_it_is(one_by_one))
        .map(_as_it_is(read), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)  # Pillow decodes without the GIL
        .batch(share)
        .map(_as_it_is(lambda epochs, ids, pixels: finish(epochs[0], ids, pixels)), num_parallel_calls=tf.data.AUTOTUNE)
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
