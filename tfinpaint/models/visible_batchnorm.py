"""Batch norms that leave erased positions out of their statistics, as in SparK (Tian et al., arXiv 2301.03580)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import tensorflow as tf

from tfinpaint.models.decoder import is_of_decoder


def encoder_batchnorms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return the batch norms of the encoder within a context encoder."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return [norm for norm in norms if not is_of_decoder(norm.name)]


@contextmanager
def over_visible(norms: Sequence[keras.layers.BatchNormalization], erased: tf.Tensor) -> Iterator[None]:
    """Within a `with` statement, have batch norms in training compute mean and variance over visible positions alone.

    A position of a map is visible if any of the pixels below it is. All positions are normalised by these statistics.

    Args:
        norms: layers whose inputs are maps [batch, height / n, width / n, channels], n being the same for both sides.
        erased: float32 [batch, height, width, 1], 1 where a pixel was erased, else 0.
    """
    visible: dict[int, tf.Tensor] = {}  # by the pixels below a side of a position

    def moments(norm: keras.layers.BatchNormalization, inputs: tf.Tensor, mask: None) -> tuple[tf.Tensor, tf.Tensor]:
        assert mask is None
        side = erased.shape[1] // inputs.shape[1]
        if side not in visible:
            visible[side] = tf.nn.max_pool2d(1.0 - erased, side, side, "VALID")[..., 0]
        return type(norm)._moments(norm, inputs, visible[side])

    try:
        for norm in norms:
            norm._moments = functools.partial(moments, norm)
        yield
    finally:
        for norm in norms:
            del norm._moments  # so that its class's method is found again
