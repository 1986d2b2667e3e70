"""Losses that make two views of an image agree, and the projector whose outputs they compare.

All of them are computed in float32 from the outputs of all ranks, so that several ranks train as one. Rows are ordered
as in a batch of two views (`batch`): each rank's n first views, then its n second views of the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from keras import layers

from tfinpaint.config.loss import Agreement

# (rows of this rank, rows of all ranks in the order of ranks, number of this rank) -> float32 [rows of this rank]; the
# loss is their mean, averaged over the ranks
AgreementLoss = Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]

_VICREG_EPSILON = 1e-4  # added to variances, as in the authors' code
_BARLOW_EPSILON = 1e-5  # that of the batch norm without parameters in the authors' code


def build_projector(features: int, widths: Sequence[int]) -> keras.Model:
    """Return dense layers with batch norm and ReLU between them, with random weights, float32 under any policy.

    It is the projection head of SimCLR (Chen et al., arXiv 2002.05709, section 2.1) with batch norms, as VICReg has
    them (Bardes et al., arXiv 2105.04906, section 4.2). No layer has a bias: batch norms would remove it, and the last
    layer has none in the code of VICReg and of Barlow Twins.

    Args:
        features: width of the input.
        widths: of the layers; the last is the width of the output.

    Returns:
        Model from [batch, features] to [batch, widths[-1]].
    """
    pooled = x = layers.Input((features,), name="projector_input")
    for number, width in enumerate(widths, start=1):
        x = layers.Dense(width, use_bias=False, dtype="float32", name=f"projector_dense_{number}")(x)
        if number < len(widths):
            x = layers.BatchNormalization(dtype="float32", name=f"projector_norm_{number}")(x)
            x = layers.ReLU(dtype="float32", name=f"projector_relu_{number}")(x)
    return keras.Model(pooled, x, name="projector")


def pool(features: tf.Tensor) -> tf.Tensor:
    """Return the mean over the positions: [batch, height, width, maps] -> float32 [batch, maps]."""
    return tf.reduce_mean(tf.cast(features, tf.float32), axis=[1, 2])


def build_agreement(section: Agreement) -> AgreementLoss:
    """Return the loss of a configuration."""
    match section.type:
        case "nt_xent":
            return lambda own, rows, rank: nt_xent(own, rows, rank, temperature=section.temperature)
        case "vicreg":
            return lambda own, rows, rank: _repeat(vicreg(*split_views(own, rows), section.factors), own)
        case "barlow_twins":
            (factor,) = section.factors
            return lambda own, rows, rank: _repeat(barlow_twins(*split_views(own, rows), factor), own)


def _repeat(loss: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    return tf.fill(tf.shape(own)[:1], loss)


def split_views(own: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the first and the second views of all ranks, in the same order of images.

    Args:
        own: [2 n, width], the rows of this rank.
        rows: [ranks * 2 n, width], those of all ranks.
    """
    by_view = tf.reshape(rows, [-1, 2, tf.shape(own)[0] // 2, rows.shape[-1]])
    return tuple(tf.reshape(by_view[:, view], [-1, rows.shape[-1]]) for view in range(2))


def nt_xent(own: tf.Tensor, rows: tf.Tensor, rank: int, *, temperature: float) -> tf.Tensor:
    """Return the normalised temperature-scaled cross entropy of SimCLR (arXiv 2002.05709, equation 1).

    With cosine similarities s, that of row i is -s(i, j) / t + log sum_k exp(s(i, k) / t): j is the other view of its
    image, and k goes over all rows but i.

    Args:
        own: [2 n, width], the rows of this rank.
        rows: [ranks * 2 n, width], those of all ranks.
        rank: number of this rank.

    Returns:
        float32 [2 n], in nats, non-negative.
    """
    own, rows = (tf.math.l2_normalize(tf.cast(values, tf.float32), axis=1) for values in (own, rows))
    count, total = tf.shape(own)[0], tf.shape(rows)[0]
    others = tf.concat([own[count // 2 :], own[: count // 2]], axis=0)  # the other view of each row
    attracted = tf.reduce_sum(own * others, axis=1) / temperature
    similarities = tf.matmul(own, rows, transpose_b=True) / temperature
    itself = rank * count + tf.range(count)[:, None] == tf.range(total)
    similarities = tf.where(itself, similarities.dtype.min, similarities)
    return tf.reduce_logsumexp(similarities, axis=1) - attracted


def vicreg(first: tf.Tensor, second: tf.Tensor, factors: Sequence[float]) -> tf.Tensor:
    """Return the loss of VICReg (Bardes, Ponce, LeCun, arXiv 2105.04906, equations 1 to 6) as in the authors' code.

    Invariance is the squared difference of the views, averaged over images and dimensions. The variance term is the
    mean over the dimensions of max(0, 1 - sqrt(variance + 1e-4)), averaged over both views (the paper adds them). The
    covariance term is the sum of the squared covariances of different dimensions, divided by the number of dimensions
    and added over both views. Variances and covariances are unbiased.

    Args:
        first, second: [images, width], views of the same images, two at least.
        factors: of invariance, variance and covariance.

    Returns:
        float32 scalar, non-negative.
    """
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    invariance = tf.reduce_mean(tf.square(first - second))
    variance = covariance = tf.constant(0.0)
    for view in (first, second):
        centred = view - tf.reduce_mean(view, axis=0)
        products = tf.matmul(centred, centred, transpose_a=True) / (tf.cast(tf.shape(view)[0], tf.float32) - 1.0)
        deviations = tf.sqrt(tf.linalg.diag_part(products) + _VICREG_EPSILON)
        variance += tf.reduce_mean(tf.nn.relu(1.0 - deviations)) / 2.0
        covariance += _squares_off_diagonal(products) / view.shape[-1]
    return factors[0] * invariance + factors[1] * variance + factors[2] * covariance


def barlow_twins(first: tf.Tensor, second: tf.Tensor, factor: float) -> tf.Tensor:
    """Return the loss of Barlow Twins (Zbontar et al., arXiv 2103.03230, equations 1 and 2).

    With the correlation matrix C between the dimensions of both views, each normalised over the images, it is
    sum_i (1 - C_ii)^2 + factor * sum_{i != j} C_ij^2.

    Args:
        first, second: [images, width], views of the same images.
        factor: of the correlations between dimensions.

    Returns:
        float32 scalar, non-negative.
    """
    normalised = []
    for view in (first, second):
        view = tf.cast(view, tf.float32)
        mean, variance = tf.nn.moments(view, axes=[0])
        normalised.append((view - mean) / tf.sqrt(variance + _BARLOW_EPSILON))
    images = tf.cast(tf.shape(first)[0], tf.float32)
    correlations = tf.matmul(*normalised, transpose_a=True) / images
    diagonal = tf.linalg.diag_part(correlations)
    return tf.reduce_sum(tf.square(1.0 - diagonal)) + factor * _squares_off_diagonal(correlations)


def _squares_off_diagonal(matrix: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(matrix - tf.linalg.diag(tf.linalg.diag_part(matrix))))
