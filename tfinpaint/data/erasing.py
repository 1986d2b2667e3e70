"""Erase regions of a batch of images: masks, inputs and what was erased, compiled by XLA as one function.

Operation by operation, each of these steps would write and read every pixel again, and erasing would take several times
as long. XLA is used where it computes the same bits as TensorFlow's own kernels: for integers, and for copying and
scaling pixels. The field of `random_region` and the sums of `fill: mean` are floating-point numbers that it may round
otherwise; they stay outside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import tensorflow as tf

from tfinpaint.config.transforms import Transform
from tfinpaint.data import pixel_sets
from tfinpaint.data.masks import RECTANGLES, draw_filling, draw_mask, draw_rectangles
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
    size = {"height": height, "width": width}

    def draw(epoch: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
        return draw_mask(step, Keys(seed, epoch, examples), **size)

    def draw_and_blacken(images: tf.Tensor, epoch: tf.Tensor, examples: tf.Tensor) -> Erased:
        return _erase(images, draw_rectangles(step, Keys(seed, epoch, examples), **size), None, cut)

    if step.kind in RECTANGLES and step.section.fill == "black":
        compiled = _compile(draw_and_blacken)
        return lambda images, epoch, examples: _by_pixel(compiled(images, epoch, examples), images)
    draw_fast = _compile(draw) if step.kind in RECTANGLES else draw

    def draw_and_fill(images: tf.Tensor, epoch: tf.Tensor, examples: tf.Tensor) -> Erased:
        mask = draw_fast(epoch, examples)
        filling = draw_filling(images, mask, step.section.fill, Keys(seed, epoch, examples))
        return _by_pixel(_erase_mask(images, mask, filling, cut), images)

    return draw_and_fill


@_compile
def _erase_mask(images: tf.Tensor, mask: tf.Tensor, filling: tf.Tensor | None, cut: bool) -> Erased:
    return _erase(images, pixel_sets.pack(mask), filling, cut)


def _erase(images: tf.Tensor, words: tf.Tensor, filling: tf.Tensor | None, cut: bool) -> Erased:
    """Erase a set of pixels (see `pixel_sets`) from images, to be compiled by XLA.

    Args:
        images: uint8 or float32 [batch, height, width, channels].
        words: uint32 [batch, height, words].
        filling: float32, which broadcasts with the images; None: black.
        cut: as in `make_eraser`.

    Returns:
        Inputs and targets as [batch, height, words, pixels of a word * channels], which `_by_pixel` takes.
    """
    _, height, width, channels = images.shape
    # The pixels of a word side by side: the loops that XLA makes are then long and simple enough to be vectorised.
    bits = pixel_sets.word_width(width)
    by_word = [-1, height, width // bits, bits * channels]
    pixels = tf.reshape(to_float(images), by_word)
    black = tf.zeros_like(pixels)
    filling = black if filling is None else tf.reshape(tf.broadcast_to(filling, tf.shape(images)), by_word)
    is_hole = pixel_sets.unpack(words, width=width, repeats=channels) > 0
    return Erased(
        tf.where(is_hole, filling, pixels),
        tf.where(is_hole, pixels, black) if cut else pixels,
        pixel_sets.to_mask(words, width=width),
    )


def _by_pixel(erased: Erased, images: tf.Tensor) -> Erased:
    """Return inputs and targets in the shape of the images.

    XLA would merge this reshape with its loops, which it could then not vectorise: they would take three times as long.
    """
    shape = [-1, *images.shape[1:]]
    return Erased(tf.reshape(erased.inputs, shape), tf.reshape(erased.targets, shape), erased.mask)
