"""Transforms that change the values of images at random and move no pixels: colours and blur."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfinpaint.config.transforms import ColorJitter, GaussianBlur

Draw = Callable[[int], tf.Tensor]  # number of a draw -> float32 [batch], uniform in [0, 1)

BLUR_SHARE = 0.1  # of the kernel's width in the image's shorter side (Chen et al., arXiv 2002.05709, appendix A)


def color_jitter(images: tf.Tensor, section: ColorJitter, uniform: Draw) -> tf.Tensor:
    """Change brightness, contrast, saturation and hue, in this order, as torchvision's ColorJitter changes each.

    torchvision draws the order, too. After each change, values are clipped to 0 and 1. Images of one channel have
    neither saturation nor hue.

    Args:
        images: float32 [batch, height, width, 1 or 3], 0 to 1.
    """
    changed = images
    if section.brightness:
        changed = _clip(changed * _factor(section.brightness, uniform(1)))
    if section.contrast:
        changed = _blend(changed, _mean_grey(changed), _factor(section.contrast, uniform(2)))
    if images.shape[-1] == 3:
        if section.saturation:
            changed = _blend(changed, tf.image.rgb_to_grayscale(changed), _factor(section.saturation, uniform(3)))
        if section.hue:
            changed = _turn_hue(changed, section.hue * (2 * uniform(4) - 1))
    return tf.where(per_image(uniform(0) < section.probability), changed, images)


def _factor(strength: float, uniform: tf.Tensor) -> tf.Tensor:
    """Return float32 [batch, 1, 1, 1], uniform in [max(0, 1 - strength), 1 + strength]."""
    low = max(0.0, 1.0 - strength)
    return per_image(low + (1.0 + strength - low) * uniform)


def _blend(images: tf.Tensor, others: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return _clip(share * images + (1.0 - share) * others)


def _clip(images: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(images, 0.0, 1.0)


def _mean_grey(images: tf.Tensor) -> tf.Tensor:
    """Return float32 [batch, 1, 1, 1], the mean luma of each image."""
    grey = images if images.shape[-1] == 1 else tf.image.rgb_to_grayscale(images)
    # In float64, because the order of a sum may depend on the batch size; rounding to float32 hides the difference.
    return tf.cast(tf.reduce_mean(tf.cast(grey, tf.float64), axis=[1, 2], keepdims=True), tf.float32)


def _turn_hue(images: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    hue, saturation, value = tf.split(tf.image.rgb_to_hsv(images), 3, axis=-1)
    hue = tf.math.floormod(hue + per_image(turns), 1.0)
    return tf.image.hsv_to_rgb(tf.concat([hue, saturation, value], axis=-1))


def random_grayscale(images: tf.Tensor, probability: float, uniform: Draw) -> tf.Tensor:
    """Replace the channels of some images by their luma."""
    if images.shape[-1] == 1:
        return images
    grey = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(images))
    return tf.where(per_image(uniform(0) < probability), grey, images)


def gaussian_blur(images: tf.Tensor, section: GaussianBlur, uniform: Draw) -> tf.Tensor:
    """Blur some images by a Gaussian of random width, as torchvision's GaussianBlur does.

    The kernel's side is that of SimCLR, a tenth of the image's shorter side, made odd, and 3 at least. Images are
    mirrored at their edges.

    Args:
        images: float32 [batch, height, width, channels], of at least 2 x 2 pixels and a known size.
    """
    radius = max(1, int(BLUR_SHARE * min(images.shape[1:3])) // 2)
    low, high = section.sigma
    sigma = low + (high - low) * uniform(1)
    distances = tf.range(-radius, radius + 1, dtype=tf.float32)
    weights = tf.exp(-0.5 * tf.square(distances / sigma[:, None]))
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    blurred = images
    for axis in (1, 2):  # a Gaussian is separable: columns first, then rows
        size = images.shape[axis]
        padded = tf.pad(blurred, [[radius, radius] if each == axis else [0, 0] for each in range(4)], "REFLECT")
        parts = [tf.gather(padded, tf.range(first, first + size), axis=axis) for first in range(2 * radius + 1)]
        blurred = tf.add_n([per_image(weights[:, place]) * part for place, part in enumerate(parts)])
    return tf.where(per_image(uniform(0) < section.probability), blurred, images)


def per_image(values: tf.Tensor) -> tf.Tensor:
    """Return [batch, 1, 1, 1] of a tensor [batch], to be broadcast over pixels."""
    return values[:, None, None, None]
