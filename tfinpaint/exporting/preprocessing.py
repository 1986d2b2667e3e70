"""Prepare images within a Keras model, by operations of Keras alone, as a run prepares those that it evaluates.

The decoder of a run resizes by Pillow, which computes with integers: weights have 22 bits behind the point, and each of
its two passes rounds to whole values. float64 holds these products and sums exactly, so that the pixels are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfinpaint.config.transforms import Normalize, Transform
from tfinpaint.data.examples import Preprocessing
from tfinpaint.data.transforms import convert_color
from tfinpaint.errors import UserError

_ONE = 2.0**22  # the weight 1 in Pillow's resizing of images of 8 bits
_LUMA = (19595, 38470, 7471)  # Pillow's weights of red, green and blue, of 65536
_SUMS = {1: "bhwc,oh->bowc", 2: "bhwc,ow->bhoc"}  # by the axis along which pixels are summed up
_LINEAR_COLOURS = ("RGB2BGR", "BGR2RGB", "RGB2GRAY", "GRAY2RGB", "RGB2YUV", "YUV2RGB")


def prepared(images: keras.KerasTensor, preprocessing: Preprocessing) -> keras.KerasTensor:
    """Return the inputs of a run's network, float32 [batch, height, width, channels].

    Args:
        images: uint8 [batch, any height, any width, 3]: RGB.
        preprocessing: of the run's evaluation, without random steps.

    Raises:
        UserError: A step cannot be expressed by operations of Keras.
    """
    decoding = preprocessing.decoding
    if preprocessing.per_image or decoding.size is None:
        raise UserError(
            "data.transforms: an export begins with a resize or a center_crop, and this run has other steps before; "
            "train with the resize first"
        )
    x = ops.cast(images, "float64")
    if decoding.channels == 1:
        x = _luma(x)
    for step in decoding.steps:
        size = getattr(step, step.kind)
        x = _resized_by_pillow(x, size) if step.resize else _cropped(x, size)
    x = ops.divide(ops.cast(x, "float32"), 255.0)
    for _, step in preprocessing.per_batch:
        x = _after_step(x, step)
    return x


def _luma(images: keras.KerasTensor) -> keras.KerasTensor:
    """Return what Pillow's conversion to grey does with whole values."""
    weighted = ops.sum(ops.multiply(images, np.array(_LUMA, np.float64)), axis=-1, keepdims=True)
    return ops.floor((weighted + 2.0**15) / 2.0**16)


def _resized_by_pillow(images: keras.KerasTensor, size: Sequence[int]) -> keras.KerasTensor:
    """Return whole values resized to (width, height), first along the rows, then along the columns."""
    for axis, extent in ((2, size[0]), (1, size[1])):
        weights = ops.floor(_triangles(images, axis, extent) * _ONE + 0.5)
        sums = ops.einsum(_SUMS[axis], images, weights)
        images = ops.clip(ops.floor((sums + _ONE / 2) / _ONE), 0.0, 255.0)
    return images


def _triangles(images: keras.KerasTensor, axis: int, extent: int) -> keras.KerasTensor:
    """Return float64 [extent, old extent]: the weights of bilinear interpolation with anti-aliasing."""
    positions, old = _positions(images, axis)
    scale = old / float(extent)
    centres = ops.multiply(scale, np.arange(extent, dtype=np.float64)[:, None] + 0.5)
    distances = ops.absolute((positions + 0.5 - centres) / ops.maximum(scale, 1.0))
    weights = ops.maximum(1.0 - distances, 0.0)
    return weights / ops.sum(weights, axis=1, keepdims=True)


def _positions(images: keras.KerasTensor, axis: int) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return float64 [1, extent] and [1, 1]: the numbers of the pixels along an axis from 0, and their count."""
    line = images[:1, :, :1, :1] if axis == 1 else images[:1, :1, :, :1]
    ones = ops.ones_like(ops.reshape(line, (1, -1)), dtype="float64")
    return ops.cumsum(ones, axis=1) - 1.0, ops.sum(ones, axis=1, keepdims=True)


def _cropped(images: keras.KerasTensor, size: Sequence[int]) -> keras.KerasTensor:
    """Return the middle of images, (width, height); an odd pixel is cut off at the bottom and at the right."""
    for axis, extent in ((2, size[0]), (1, size[1])):
        positions, old = _positions(images, axis)
        first = ops.floor((old - float(extent)) / 2.0)
        wanted = ops.add(first, np.arange(extent, dtype=np.float64)[:, None])
        images = ops.einsum(_SUMS[axis], images, ops.cast(ops.equal(positions, wanted), images.dtype))
    return images


def _after_step(images: keras.KerasTensor, step: Transform) -> keras.KerasTensor:
    """Return float32 images, 0 to 1, all of one size, after a step of `data.transforms`."""
    match step.kind, getattr(step, step.kind):
        case "resize", (width, height):
            x = ops.cast(images, "float64")
            for axis, extent in ((2, width), (1, height)):
                x = ops.einsum(_SUMS[axis], x, _triangles(x, axis, extent))
            return ops.cast(x, "float32")
        case "center_crop", size:
            return _cropped(images, size)
        case "normalize", section:
            return _normalized(images, section)
        case "grayscale", _:
            return images if images.shape[-1] == 1 else _recoloured(images, "RGB2GRAY")
        case "convert_color", code if code in _LINEAR_COLOURS:
            return _recoloured(images, code)
    raise UserError(
        f"data.transforms: {step.kind} {getattr(step, step.kind)} cannot be a part of an export; expected are resize, "
        f"center_crop, normalize, grayscale, and convert_color with {', '.join(_LINEAR_COLOURS)}"
    )


def _normalized(images: keras.KerasTensor, section: Normalize) -> keras.KerasTensor:
    mean, deviation = (np.asarray(values, np.float32) for values in (section.mean, section.std))
    return ops.divide(ops.subtract(images, mean), deviation)


def _recoloured(images: keras.KerasTensor, code: str) -> keras.KerasTensor:
    """Return images after a conversion of colours that is linear but for an offset, which `convert_color` tells."""
    channels = 1 if code.startswith("GRAY") else 3
    none, each = np.zeros((1, 1, 1, channels), np.float32), np.eye(channels, dtype=np.float32)[:, None, None]
    offset = convert_color(tf.constant(none), code).numpy()[0, 0]
    matrix = convert_color(tf.constant(each), code).numpy()[:, 0, 0] - offset
    return ops.add(ops.matmul(images, matrix), offset)
