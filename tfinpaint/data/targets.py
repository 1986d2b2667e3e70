"""The targets of inpainting, and the weight of each pixel in the loss."""

from __future__ import annotations

import tensorflow as tf

from tfinpaint.config.loss import Loss

VARIANCE_FLOOR = 1e-6  # added to the variance of a cell, which may be 0; values are 0 to 1


def make_targets(images: tf.Tensor, mask: tf.Tensor, loss: Loss) -> tf.Tensor:
    """Return whole images, or, if `loss.target` is `patches`, the erased parts on a black canvas.

    Args:
        images: float32 [batch, height, width, channels].
        mask: float32 [batch, height, width, 1], 1 where pixels were erased, 0 elsewhere.
    """
    return images * mask if loss.target == "patches" else images


def pixel_weights(mask: tf.Tensor, loss: Loss) -> tf.Tensor:
    """Return pixel weights: 1 in the hole, `overlap_weight` around it, elsewhere 1 (for `image`) or 0 (for `masked`).

    The border around the hole is that of Context Encoders (Pathak et al., arXiv 1604.07379, section 5.1): the network
    also restores pixels that it sees, so that the restored part fits its surroundings.

    Args:
        mask: float32 [batch, height, width, 1], 1 in the hole, 0 outside.

    Returns:
        float32, shaped as the mask.
    """
    weights = tf.ones_like(mask) if loss.target == "image" else mask
    if not loss.overlap:
        return weights
    reach = 2 * loss.overlap + 1
    near = tf.nn.max_pool2d(mask, reach, strides=1, padding="SAME")  # the hole, enlarged by `overlap` on each side
    return tf.where((near > 0) & (mask == 0), loss.overlap_weight, weights)


def normalize_cells(images: tf.Tensor, size: int) -> tf.Tensor:
    """Normalise each cell of a grid to mean 0 and variance 1 over all its pixels and channels.

    See He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377, section 3.

    Args:
        images: float32 [batch, height, width, channels].
        size: side of a cell in pixels, which divides height and width.

    Returns:
        float32, shaped as the images; a cell of one colour becomes 0.
    """
    cells, mean, deviation = _cells(images, size)
    return tf.reshape((cells - mean) / deviation, tf.shape(images))


def denormalize_cells(outputs: tf.Tensor, images: tf.Tensor, size: int) -> tf.Tensor:
    """Undo `normalize_cells`: give each cell of the outputs the mean and the deviation of that cell of the images.

    Args:
        outputs: float, shaped as the images; of `normalize_cells(images, size)` the images come back.
        images: float32 [batch, height, width, channels].
        size: side of a cell in pixels, which divides height and width.
    """
    _, mean, deviation = _cells(images, size)
    cells = tf.reshape(tf.cast(outputs, tf.float32), _shape_of_cells(images, size))
    return tf.reshape(cells * deviation + mean, tf.shape(images))


def _cells(images: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the cells of images, [batch, rows, size, columns, size, channels], their means and their deviations."""
    cells = tf.reshape(images, _shape_of_cells(images, size))
    mean, variance = tf.nn.moments(cells, axes=[2, 4, 5], keepdims=True)
    return cells, mean, tf.sqrt(variance + VARIANCE_FLOOR)


def _shape_of_cells(images: tf.Tensor, size: int) -> list[int]:
    _, height, width, channels = images.shape
    assert height
    assert width
    return [-1, height // size, size, width // size, size, channels]
