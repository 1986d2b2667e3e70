"""The images of one rank, and how their files become pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from tfinpaint.config.transforms import shape_after
from tfinpaint.data.images.decode import DecodeOptions, read_image
from tfinpaint.data.images.unreadable import UnreadableImageError
from tfinpaint.data.listing.listing import Listing
from tfinpaint.data.transforms import Keys, NumberedSteps, apply_transforms
from tfinpaint.errors import UserError
from tfinpaint.system.parallel import parallel_map
from tfinpaint.system.progress import log_progress

_ALIGNMENT = 64  # bytes


@dataclass(frozen=True)
class RankShare:
    """A rank's share of the examples: those whose index is `index` modulo `count`."""

    index: int = 0
    count: int = 1

    def indices(self, total: int) -> range:
        """Return the indices of this rank's examples, of `total` examples."""
        return range(self.index, total, self.count)


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of inputs or of targets, divided by where its steps run.

    Attributes:
        decoding: how files are decoded, with the first `resize` and `center_crop` steps, which Pillow does.
        per_image: the steps that run on one image at a time, after which all images have one size.
        per_batch: the steps after those, which run on batches.
    """

    decoding: DecodeOptions
    per_image: NumberedSteps = ()
    per_batch: NumberedSteps = ()

    def for_pictures(self) -> Preprocessing:
        """Return the preprocessing without the steps that change values, such as `normalize`."""
        kept = (
            tuple(each for each in steps if not each[1].changes_values) for steps in (self.per_image, self.per_batch)
        )
        return Preprocessing(self.decoding, *kept)

    def apply(self, images: tf.Tensor, steps: NumberedSteps, keys: Keys) -> tf.Tensor:
        """Return float32 images after some of the steps; label maps are not interpolated."""
        return apply_transforms(images, steps, keys, nearest=self.decoding.is_label_map)


def split_steps(steps: NumberedSteps, options: DecodeOptions) -> Preprocessing:
    """Divide steps, none of which is a mask, between the decoder, single images and batches."""
    fixed = (place for place, (_, step) in enumerate(steps) if step.kind not in ("resize", "center_crop"))
    decoded = next(fixed, len(steps))
    options = replace(options, steps=tuple(step for _, step in steps[:decoded]))
    # the places of the steps before which images may differ in size
    unequal = [n for n in range(decoded, len(steps)) if shape_after([step for _, step in steps[:n]], 3)[0] is None]
    first_of_batch = unequal[-1] + 1 if unequal else decoded
    return Preprocessing(options, steps[decoded:first_of_batch], steps[first_of_batch:])


@dataclass(frozen=True)
class Images:
    """A rank's share of a listing, ready to be read by example index.

    Attributes:
        listing: the whole data set.
        share: this rank's share of it.
        preprocessing: the steps for each image.
        pixels: if preloaded, uint8 tensor [share, height, width, channels], or a list of arrays if the images keep
            their own sizes; None: files are read when they are needed.
    """

    listing: Listing
    share: RankShare
    preprocessing: Preprocessing
    pixels: tf.Tensor | list[np.ndarray] | None

    @classmethod
    def open(cls, listing: Listing, share: RankShare, preprocessing: Preprocessing, preload: bool) -> Images:
        """Return a rank's share of a listing, decoded into memory if `preload`. Raises what `load_images` raises."""
        pixels = None
        if preload:
            pixels = load_images(listing, share.indices(len(listing)), preprocessing.decoding)
            if isinstance(pixels, np.ndarray):  # the tensor takes over its memory; tf.constant would make two copies
                pixels = tf.experimental.dlpack.from_dlpack(pixels.__dlpack__())
        return cls(listing, share, preprocessing, pixels)

    def select(self, indices: Sequence[int]) -> Images:
        """Return these images only, preloaded, as the share of a single rank."""
        return Images.open(self.listing.select(indices), RankShare(), self.preprocessing, preload=True)

    def decode(self, index: int) -> np.ndarray:
        """Return uint8 [height, width, channels] of one image of this rank's share.

        Raises:
            UnreadableImageError: it can no longer be read.
        """
        if self.pixels is None:
            return read_image(self.listing.open(index), self.preprocessing.decoding)
        return self.pixels[index // self.share.count]


def load_images(listing: Listing, indices: Sequence[int], options: DecodeOptions) -> np.ndarray | list[np.ndarray]:
    """Decode these images into memory.

    Returns:
        uint8 array [len(indices), height, width, channels], aligned so that TensorFlow can share its memory; a list of
        arrays if images keep their own sizes.

    Raises:
        UserError: an image cannot be read, although it could when it was checked.
    """

    def load(index: int) -> np.ndarray:
        try:
            return read_image(listing.open(index), options)
        except UnreadableImageError as error:
            raise UserError(f"{listing.place(index)}: became unreadable after the initial check: {error}") from None

    decoded = log_progress(parallel_map(load, indices), len(indices), f"Loading the images of {listing.root}")
    if options.size is None:
        return list(decoded)
    images = allocate_pixels(len(indices), options)
    for slot, pixels in enumerate(decoded):
        images[slot] = pixels
    return images


def allocate_pixels(images: int, options: DecodeOptions) -> np.ndarray:
    """Return memory for images that are decoded to one size, aligned so that TensorFlow can share it.

    Returns:
        uint8 array [images, height, width, channels], with any values.
    """
    assert options.size
    shape = (images, *options.size, options.channels)
    memory = np.empty(math.prod(shape) + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin : begin + math.prod(shape)].reshape(shape)
