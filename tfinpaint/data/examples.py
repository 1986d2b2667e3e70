"""The examples of training or evaluation: which a rank has, and how their files become pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from tfinpaint.config.transforms import Transform, shape_after
from tfinpaint.data import transforms
from tfinpaint.data.images.decode import Reading, read_image
from tfinpaint.data.listing.listing import Listing, load_images
from tfinpaint.data.transforms import Keys, Numbered


@dataclass(frozen=True)
class RankShare:
    """Which examples a rank sees: those whose index is `index` modulo `count`."""

    index: int = 0
    count: int = 1

    def indices(self, total: int) -> range:
        return range(self.index, total, self.count)


@dataclass(frozen=True)
class Preprocessing:
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


def split_steps(steps: Numbered, reading: Reading) -> Preprocessing:
    """Divide steps, none of which erases, between the decoder, single images and batches."""
    fixed = (place for place, (_, step) in enumerate(steps) if step.kind not in ("resize", "center_crop"))
    decoded = next(fixed, len(steps))
    reading = replace(reading, steps=tuple(step for _, step in steps[:decoded]))
    unequal = [place for place in range(decoded, len(steps)) if _differ([s for _, s in steps[:place]])]
    batched_from = unequal[-1] + 1 if unequal else decoded
    return Preprocessing(reading, steps[decoded:batched_from], steps[batched_from:])


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
    shard: RankShare
    chain: Preprocessing
    pixels: tf.Tensor | list[np.ndarray] | None

    @classmethod
    def open(cls, listing: Listing, shard: RankShare, chain: Preprocessing, preload: bool) -> Images:
        pixels = None
        if preload:
            pixels = load_images(listing, shard.indices(len(listing)), chain.reading)
            if isinstance(pixels, np.ndarray):
                with tf.device("CPU:0"):
                    pixels = tf.constant(pixels)
        return cls(listing, shard, chain, pixels)

    def select(self, indices: Sequence[int]) -> Images:
        """These images alone, on one rank."""
        return Images.open(self.listing.select(indices), RankShare(), self.chain, preload=True)

    def decode(self, index: int) -> np.ndarray:
        """uint8 [height, width, channels] of one image of this rank's share.

        Raises:
            UnreadableImageError: it can no longer be read.
        """
        if self.pixels is None:
            return read_image(self.listing.open(index), self.chain.reading)
        return self.pixels[index // self.shard.count]
