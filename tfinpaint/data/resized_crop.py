"""Random parts of images, enlarged to the size that the images have (random resized crop).

The parts are those of Szegedy et al., "Going Deeper with Convolutions", arXiv 1409.4842, section 6, drawn as
torchvision draws them. A part is never larger than its image, so that enlarging it needs no anti-aliasing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from tfinpaint.config.transforms import RandomResizedCrop

ATTEMPTS = 10  # at a part that fits, as in torchvision; then the central, largest one of a permitted shape is taken


class Parts(NamedTuple):
    """The part of each image, int32 [batch]: the first row and column, and the numbers of rows and columns."""

    top: tf.Tensor
    left: tf.Tensor
    rows: tf.Tensor
    columns: tf.Tensor


def draw_parts(section: RandomResizedCrop, uniform: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> Parts:
    """Return random parts of images.

    Args:
        uniform: float32 [batch, 2 * ATTEMPTS + 2], uniform in [0, 1): area and shape of each attempt, then the place.
        height, width: of the images; integer scalars.
    """
    uniform = tf.cast(uniform, tf.float64)  # so that rounding to pixels does not depend on the batch
    full_height, full_width = tf.cast(height, tf.float64), tf.cast(width, tf.float64)
    areas, shapes = uniform[:, :ATTEMPTS], uniform[:, ATTEMPTS : 2 * ATTEMPTS]
    low, high = (math.log(ratio) for ratio in section.ratio)
    area = full_height * full_width * (section.scale[0] + (section.scale[1] - section.scale[0]) * areas)
    shape = tf.exp(low + (high - low) * shapes)
    rows, columns = tf.round(tf.sqrt(area / shape)), tf.round(tf.sqrt(area * shape))
    fits = (rows >= 1) & (rows <= full_height) & (columns >= 1) & (columns <= full_width)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    found = tf.reduce_any(fits, axis=1)
    rows, columns = (
        tf.where(found, tf.gather(sides, first, batch_dims=1), largest)
        for sides, largest in zip((rows, columns), _largest(section, full_height, full_width), strict=True)
    )
    top, left = (
        tf.floor(tf.where(found, uniform[:, place] * (free + 1), free / 2))
        for place, free in ((-2, full_height - rows), (-1, full_width - columns))
    )
    return Parts(*(tf.cast(values, tf.int32) for values in (top, left, rows, columns)))


def _largest(section: RandomResizedCrop, height: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return rows and columns of the largest part whose shape is permitted."""
    low, high = section.ratio
    rows = tf.maximum(tf.minimum(height, tf.round(width / low)), 1)
    columns = tf.maximum(tf.minimum(width, tf.round(height * high)), 1)
    return rows, columns


def enlarge(images: tf.Tensor, parts: Parts, *, nearest: bool) -> tf.Tensor:
    """Return the parts in the size of the images, bilinear, or of the nearest pixels for label maps.

    It is `tf.image.resize` of each part, with pixels that have their values at their centres.

    Args:
        images: float32 [batch, height, width, channels].
    """
    shape = tf.shape(images)
    rows = _enlarge_rows(images, parts.top, parts.rows, shape[1], nearest)
    turned = tf.transpose(rows, [0, 2, 1, 3])
    columns = _enlarge_rows(turned, parts.left, parts.columns, shape[2], nearest)
    return tf.ensure_shape(tf.transpose(columns, [0, 2, 1, 3]), images.shape)


def _enlarge_rows(images: tf.Tensor, first: tf.Tensor, count: tf.Tensor, total: tf.Tensor, nearest: bool) -> tf.Tensor:
    """Return `total` rows made of `count` rows of each image, beginning at `first`."""
    scale = tf.cast(count, tf.float32)[:, None] / tf.cast(total, tf.float32)
    centres = (tf.cast(tf.range(total), tf.float32) + 0.5) * scale
    last = count[:, None] - 1
    if nearest:
        return tf.gather(images, first[:, None] + tf.minimum(tf.cast(centres, tf.int32), last), batch_dims=1)
    places = tf.maximum(centres - 0.5, 0.0)
    before = tf.minimum(tf.cast(places, tf.int32), last)
    after = tf.minimum(before + 1, last)
    share = (places - tf.cast(before, tf.float32))[:, :, None, None]
    above, below = (tf.gather(images, first[:, None] + each, batch_dims=1) for each in (before, after))
    return above + share * (below - above)
