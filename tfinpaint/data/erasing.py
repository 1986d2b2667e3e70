"""Erase regions of a batch of images: masks, inputs and what was erased, by functions that XLA compiles.

Operation by operation, each of these steps would write and read every pixel again, and erasing would take several times
as long. XLA is used where it computes the same bits as TensorFlow's own kernels: for integers, and for copying and
scaling pixels, and for sums of integers. The field of `random_region`, and the sums of `fill: mean` where images are no
longer integers, are floating-point numbers that it may round otherwise; they stay outside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import tensorflow as tf

from tfinpaint.config.transforms import Transform
from tfinpaint.data import pixel_sets
from tfinpaint.data.masks import RECTANGLES, draw_filling, draw_mask, draw_noise, draw_rectangles
from tfinpaint.data.transforms import Keys, to_float

_compile = partial(tf.function, autograph=False, jit_compile=True)


class Erased(NamedTuple):
    """A batch of images with holes.

    Attributes:
        inputs: float32 [batch, height, width, channels]: the images, filled where they were erased.
        targets: float32, shaped as `inputs`: the whole images, or what was erased of them, on a black canvas.
        mask: float32 [batch, height, width, 1]: 1 where pixels were erased, 0 elsewhere.
    """

    inputs: tf.Tensor
    targets: tf.Tensor
    mask: tf.Tensor


def make_eraser(
    step: Transform, seed: int, *, height: int, width: int, cut: bool
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Erased]:
    """Return a function that erases images: uint8, or float32 from 0 to 1, [batch, height, width, channels].

    Its other arguments are the epoch and the examples, as in `Keys`.

    Args:
        step: the step of a configuration that is a mask.
        seed: of the run.
        cut: targets are what was erased; otherwise the whole images.
    """
    size, fill = {"height": height, "width": width}, step.section.fill
    draw_fast = _compile(lambda epoch, examples: draw_rectangles(step, Keys(seed, epoch, examples), **size))
    noise = _compile(lambda images, epoch, examples: draw_noise(images, Keys(seed, epoch, examples)))

    def draw(keys: Keys) -> tf.Tensor:
        if step.kind in RECTANGLES:
            return draw_fast(keys.epoch, keys.examples)
        return _pack(draw_mask(step, keys, **size))

    def fill_with(images: tf.Tensor, words: tf.Tensor, keys: Keys) -> tf.Tensor | None:
        if fill == "black":
            return None
        if fill == "mean" and images.dtype == tf.uint8:
            return _mean_of_bytes(images, words)
        if fill == "noise":
            return noise(images, keys.epoch, keys.examples)
        return draw_filling(images, _to_mask(words, width), fill, keys)

    def erase(images: tf.Tensor, epoch: tf.Tensor, examples: tf.Tensor) -> Erased:
        keys = Keys(seed, epoch, examples)
        words = draw(keys)
        erased = _erase(images, words, _fit(fill_with(images, words, keys), images), cut)
        # XLA would merge these reshapes, and the tiles of `_fit`, with its loops, which it could then not vectorise.
        inputs, targets = (tf.reshape(part, [-1, *images.shape[1:]]) for part in erased[:2])
        return Erased(inputs, targets, erased.mask)

    return erase


_pack = _compile(pixel_sets.pack)


@_compile
def _to_mask(words: tf.Tensor, width: int) -> tf.Tensor:
    return pixel_sets.to_mask(words, width=width)


@_compile
def _mean_of_bytes(images: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """Return float32 [batch, 1, 1, channels]: the mean over the visible pixels, 0 to 1; 0 where there are none.

    Only whole numbers are added up, exactly, so that it does not depend on the order of the sum.

    Args:
        images: uint8 [batch, height, width, channels].
        words: the erased pixels, as in `_erase`.
    """
    _, height, width, channels = images.shape
    is_hole = pixel_sets.unpack(words, width=width, repeats=channels)
    visible = tf.cast(tf.reshape(images, _by_word(images)), tf.uint32) * (1 - is_hole)
    of_columns = tf.reshape(tf.reduce_sum(visible, axis=1), [-1, width, channels])
    total = tf.reduce_sum(tf.cast(of_columns, tf.float64), axis=1)
    erased = tf.reduce_sum(tf.cast(tf.raw_ops.PopulationCount(x=words), tf.float64), axis=[1, 2])
    mean = tf.math.divide_no_nan(total, 255 * (height * width - erased)[:, None])
    return tf.cast(mean, tf.float32)[:, None, None]


def _by_word(images: tf.Tensor) -> list[int]:
    """Return the shape [batch, height, words, pixels of a word * channels] of these images.

    The pixels of a word are side by side: the loops that XLA makes are then long and simple enough to be vectorised.
    """
    _, height, width, channels = images.shape
    bits = pixel_sets.word_width(width)
    return [-1, height, width // bits, bits * channels]


def _fit(filling: tf.Tensor | None, images: tf.Tensor) -> tf.Tensor | None:
    """Return a filling that is shaped as the images, or as one pixel of each, for `_erase`."""
    if filling is None:
        return None
    if filling.shape[1] == 1:
        return tf.tile(filling, [1, 1, 1, pixel_sets.word_width(images.shape[2])])
    return tf.reshape(filling, _by_word(images))


@_compile
def _erase(images: tf.Tensor, words: tf.Tensor, filling: tf.Tensor | None, cut: bool) -> Erased:
    """Erase a set of pixels (see `pixel_sets`) from images.

    Args:
        images: uint8 or float32 [batch, height, width, channels].
        words: uint32 [batch, height, words].
        filling: float32, which broadcasts with the shape of `_by_word`; None: black.
        cut: as in `make_eraser`.

    Returns:
        Inputs and targets in the shape of `_by_word`.
    """
    pixels = tf.reshape(to_float(images), _by_word(images))
    _, _, width, channels = images.shape
    is_hole = pixel_sets.unpack(words, width=width, repeats=channels) > 0
    black = tf.zeros_like(pixels)
    return Erased(
        tf.where(is_hole, black if filling is None else filling, pixels),
        tf.where(is_hole, pixels, black) if cut else pixels,
        pixel_sets.to_mask(words, width=width),
    )
