"""Fill the hole that a mask leaves in an image."""

from __future__ import annotations

import tensorflow as tf

from tfinpaint.config_transforms import Fill
from tfinpaint.data import stateless
from tfinpaint.data.transforms import Keys


def fill_hole(images: tf.Tensor, mask: tf.Tensor, fill: Fill, keys: Keys) -> tf.Tensor:
    """The images with something else in their hole; the visible pixels are left as they are.

    Args:
        images: float32 [batch, height, width, channels], 0 to 1.
        mask: float32 [batch, height, width, 1], 1 where to erase, 0 elsewhere.
        fill: black (0), mean (per image and channel, the mean over the visible pixels; 0 where there are none), or
            noise (per pixel and channel, uniform in [0, 1)).
        keys: what the noise is a function of.

    Returns:
        float32, shaped as `images`.
    """
    match fill:
        case "black":
            filling = tf.zeros_like(images)
        case "mean":
            filling = _visible_mean(images, mask)
        case "noise":
            filling = _noise(images, keys)
    return tf.where(mask > 0, filling, images)


def _visible_mean(images: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """float32 [batch, 1, 1, channels]."""
    # In float64, for the order of a sum may depend on how the batch is cut; after rounding to float32 it shows no more.
    visible = tf.where(mask > 0, tf.zeros_like(images), images)
    total = tf.reduce_sum(tf.cast(visible, tf.float64), axis=[1, 2], keepdims=True)
    pixels = tf.reduce_sum(tf.cast(1 - mask, tf.float64), axis=[1, 2], keepdims=True)
    return tf.cast(tf.math.divide_no_nan(total, pixels), tf.float32)


def _noise(images: tf.Tensor, keys: Keys) -> tf.Tensor:
    """float32, shaped as `images`: 16 random bits for each value, four values from each 64 bits."""
    shape, channels = tf.shape(images), images.shape[-1]
    pixels = tf.range(shape[1] * shape[2])
    fours = tf.range((channels + 3) // 4)[:, None]
    bits = stateless.random_bits(keys.seed, stateless.NOISE, keys.epoch, keys.examples[:, None, None], fours, pixels)
    values = [
        tf.bitwise.right_shift(bits[:, channel // 4], tf.constant(16 * (channel % 4), tf.uint64))
        for channel in range(channels)
    ]
    low = tf.bitwise.bitwise_and(tf.stack(values, axis=-1), tf.constant(0xFFFF, tf.uint64))
    return tf.reshape(tf.cast(low, tf.float32) / 2**16, shape)
