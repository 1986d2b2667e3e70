"""The steps of `data.transforms`, as functions of a batch of images.

Images are float32 [batch, height, width, channels], 0 to 1; label maps are the same with one channel of integers.
Random numbers depend only on (seed, epoch, example, number of the step): a step does the same to an input and to its
target, for any number of ranks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.config.transforms import Normalize, Transform
from tfinpaint.data import rng
from tfinpaint.data.photometric import color_jitter, gaussian_blur, per_image, random_grayscale
from tfinpaint.data.resized_crop import ATTEMPTS, draw_parts, enlarge

NumberedSteps = tuple[tuple[int, Transform], ...]  # the number of a step is unique in a configuration


@dataclass(frozen=True)
class Keys:
    """The keys that the random numbers of a batch depend on.

    Attributes:
        seed: of the run.
        epoch: int64 [], the pass over the data.
        examples: int64 [batch], indices of the images in the whole data set.
    """

    seed: int
    epoch: tf.Tensor
    examples: tf.Tensor

    def uniform(self, number: int, draw: int = 0) -> tf.Tensor:
        """Return float32 [batch], uniform in [0, 1), for the `draw`-th quantity of step `number`."""
        bits = rng.random_bits(self.seed, rng.TRANSFORM, self.epoch, self.examples, number, draw)
        return rng.random_uniform(bits)

    def uniforms(self, number: int, draws: int) -> tf.Tensor:
        """Return float32 [batch, draws]: `uniform` for each of the first `draws` quantities of a step."""
        every = tf.range(draws, dtype=tf.int64)
        bits = rng.random_bits(self.seed, rng.TRANSFORM, self.epoch, self.examples[:, None], number, every)
        return rng.random_uniform(tf.ensure_shape(bits, [None, draws]))


# 1 / 255 in two parts: the first has so few bits that its product with an integer up to 255 is exact.
_HIGH = np.float32(math.floor(2**20 / 255) / 2**20)
_LOW = np.float32(1 / 255 - float(_HIGH))


def to_float(pixels: tf.Tensor, *, is_label_map: bool = False) -> tf.Tensor:
    """Return float32 images, 0 to 1, of uint8 ones; the integers of a label map keep their values.

    What is no longer uint8, such as images after other steps, is returned as it is.
    """
    if pixels.dtype != tf.uint8:
        return pixels
    pixels = tf.cast(pixels, tf.float32)
    # The correctly rounded pixels / 255. XLA and Grappler replace a division by a product that is not.
    return pixels if is_label_map else pixels * _HIGH + pixels * _LOW


def apply_transforms(images: tf.Tensor, steps: NumberedSteps, keys: Keys, *, nearest: bool = False) -> tf.Tensor:
    """Apply steps to images, in order.

    Args:
        nearest: for label maps: take the nearest pixel instead of interpolating.
    """
    for number, step in steps:
        images = apply_transform(images, step, number, keys, nearest=nearest)
    return images


def apply_transform(images: tf.Tensor, step: Transform, number: int, keys: Keys, *, nearest: bool) -> tf.Tensor:
    """Apply one step to images. Raises ValueError for a mask (see `masks`)."""
    uniform = functools.partial(keys.uniform, number)
    match step.kind, getattr(step, step.kind):
        case "resize", (width, height):
            return resize(images, height, width, nearest=nearest)
        case "center_crop", (width, height):
            return center_crop(images, height, width)
        case "jitter_crop", most:
            return jitter_crop(images, [most * keys.uniform(number, side)[0] for side in range(4)])
        case "random_horizontal_flip", probability:
            return tf.where(per_image(keys.uniform(number) < probability), images[:, :, ::-1], images)
        case "random_vertical_flip", probability:
            return tf.where(per_image(keys.uniform(number) < probability), images[:, ::-1], images)
        case "random_resized_crop", section:
            height, width = tf.unstack(tf.shape(images)[1:3])
            parts = draw_parts(section, keys.uniforms(number, 2 * ATTEMPTS + 2), height, width)
            return enlarge(images, parts, nearest=nearest)
        case "color_jitter", section:
            return color_jitter(images, section, uniform)
        case "random_grayscale", probability:
            return random_grayscale(images, probability, uniform)
        case "gaussian_blur", section:
            return gaussian_blur(images, section, uniform)
        case "random_zoom", most:
            return zoom(images, most * keys.uniform(number), nearest=nearest)
        case "rotate", degrees:
            return rotate(images, tf.fill(tf.shape(images)[:1], float(degrees)), nearest=nearest)
        case "random_rotate", most:
            return rotate(images, most * (2 * keys.uniform(number) - 1), nearest=nearest)
        case "convert_color", code:
            return convert_color(images, code)
        case "grayscale", _:
            return images if images.shape[-1] == 1 else tf.image.rgb_to_grayscale(images)
        case "normalize", section:
            return normalize(images, section)
        case kind, _:
            raise ValueError(f"{kind} is not a step of one image")


def resize(images: tf.Tensor, height: int, width: int, *, nearest: bool) -> tf.Tensor:
    """Resize with bilinear interpolation and anti-aliasing, or to the nearest pixel."""
    if nearest:
        return tf.image.resize(images, [height, width], "nearest")
    return tf.image.resize(images, [height, width], "bilinear", antialias=True)


def center_crop(images: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Crop images to the middle; an odd pixel is cut off at the bottom and at the right."""
    shape = tf.shape(images)
    top, left = (shape[1] - height) // 2, (shape[2] - width) // 2
    cropped = images[:, top : top + height, left : left + width]
    return tf.ensure_shape(cropped, [images.shape[0], height, width, images.shape[-1]])


def jitter_crop(images: tf.Tensor, shares: Sequence[tf.Tensor]) -> tf.Tensor:
    """Cut floor(share * extent / 2) pixels off each side; at least one pixel remains.

    Args:
        images: a batch of one image, because the new size differs between images.
        shares: float scalars in [0, 1): left, right, top, bottom.
    """
    height, width = tf.shape(images)[1], tf.shape(images)[2]

    def cut(share: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.floor(share * tf.cast(extent, tf.float32) / 2), tf.int32)

    left, right, top, bottom = (cut(s, e) for s, e in zip(shares, (width, width, height, height), strict=True))
    return images[:, top : height - bottom, left : width - right]


def zoom(images: tf.Tensor, shares: tf.Tensor, *, nearest: bool) -> tf.Tensor:
    """Enlarge images around the centre so that share * extent / 2 pixels are lost on every side; keep their size.

    Args:
        shares: float32 [batch], in [0, 1).
    """
    scale, none = 1 - shares, tf.zeros_like(shares)
    return _transform_around_centre(images, scale, none, none, scale, nearest)


def rotate(images: tf.Tensor, degrees: tf.Tensor, *, nearest: bool) -> tf.Tensor:
    """Rotate images clockwise around the centre and keep their size; pixels from outside the image are 0.

    Args:
        degrees: float32 [batch].
    """
    angle = degrees * (math.pi / 180)
    return _transform_around_centre(images, tf.cos(angle), tf.sin(angle), -tf.sin(angle), tf.cos(angle), nearest)


def _transform_around_centre(
    images: tf.Tensor, xx: tf.Tensor, xy: tf.Tensor, yx: tf.Tensor, yy: tf.Tensor, nearest: bool
) -> tf.Tensor:
    """Take each output pixel (x, y) from (xx x + xy y, yx x + yy y), relative to the centre."""
    shape = tf.cast(tf.shape(images), tf.float32)
    x, y = (shape[2] - 1) / 2, (shape[1] - 1) / 2
    none = tf.zeros_like(xx)
    matrix = tf.stack([xx, xy, x - xx * x - xy * y, yx, yy, y - yx * x - yy * y, none, none], axis=1)
    moved = keras.ops.image.affine_transform(
        images, matrix, "nearest" if nearest else "bilinear", fill_mode="constant", data_format="channels_last"
    )
    return tf.ensure_shape(moved, images.shape)


def convert_color(images: tf.Tensor, code: str) -> tf.Tensor:
    """Convert colours as OpenCV does with floating-point images, by OpenCV's codes; but hue is 0 to 1, not degrees."""
    before, after = code.split("2")
    return _FROM_RGB[after](_TO_RGB[before](images))


_YUV_OFFSET = (0.0, 0.5, 0.5)  # OpenCV shifts colour differences by 0.5
_TO_RGB: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "RGB": lambda images: images,
    "BGR": lambda images: images[..., ::-1],
    "GRAY": tf.image.grayscale_to_rgb,
    "HSV": tf.image.hsv_to_rgb,
    "YUV": lambda images: tf.image.yuv_to_rgb(images - _YUV_OFFSET),
}
_FROM_RGB: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "RGB": lambda images: images,
    "BGR": lambda images: images[..., ::-1],
    "GRAY": tf.image.rgb_to_grayscale,
    "HSV": tf.image.rgb_to_hsv,
    "YUV": lambda images: tf.image.rgb_to_yuv(images) + _YUV_OFFSET,
}


def normalize(images: tf.Tensor, section: Normalize) -> tf.Tensor:
    """Return (x - mean) / std, per channel."""
    return (images - tf.constant(section.mean, tf.float32)) / tf.constant(section.std, tf.float32)
