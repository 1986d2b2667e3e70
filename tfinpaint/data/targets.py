"""What a network that restores erased images is compared with, and how much each pixel counts."""

from __future__ import annotations

import tensorflow as tf

from tfinpaint.config.loss import Loss

VARIANCE_FLOOR = 1e-6  # under the root, for cells of one colour; values are 0 to 1


def make_targets(images: tf.Tensor, mask: tf.Tensor, loss: Loss) -> tf.Tensor:
    """The images as `loss.target` wants them: cut out on a black canvas for `patches`, else whole.

    Args:
        images: float32 [batch, height, width, channels].
        mask: float32 [batch, height, width, 1], 1 where the network sees nothing, 0 elsewhere.
    """
    return images * mask if loss.target == "patches" else images


def pixel_weights(mask: tf.Tensor, loss: Loss) -> tf.Tensor:
    """How much each pixel counts: 1 in the hole, `overlap_weight` around it, elsewhere 1 for `image`, 0 for `masked`.

    The border is that of Context Encoders (Pathak et al., arXiv 1604.07379, section 5.1), where the network sees the
    pixels that it has to restore, so that the restored part fits what is around it.

    Args:
        mask: float32 [batch, height, width, 1], 1 in the hole, 0 outside.

    Returns:
        float32, shaped as the mask.
    """
    weights = tf.ones_like(mask) if loss.target == "image" else mask
    if not loss.overlap:
        return weights
    reach = 2 * loss.overlap + 1
    near = tf.nn.max_pool2d(mask, reach, strides=1, padding="SAME")  # the hole, grown by the overlap on every side
    return tf.where((near > 0) & (mask == 0), loss.overlap_weight, weights)


def normalize_cells(images: tf.Tensor, size: int) -> tf.Tensor:
    """Each cell of a grid with mean 0 and variance 1 over all its pixels and channels.

    He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377, section 3.

    Args:
        images: float32 [batch, height, width, channels].
        size: side of a cell, pixels; it divides height and width.

    Returns:
        float32, shaped as the images; a cell of one colour becomes 0.
    """
    _, height, width, channels = images.shape
    assert height
    assert width
    cells = tf.reshape(images, [-1, height // size, size, width // size, size, channels])
    mean, variance = tf.nn.moments(cells, axes=[2, 4, 5], keepdims=True)
    return tf.reshape((cells - mean) / tf.sqrt(variance + VARIANCE_FLOOR), tf.shape(images))
