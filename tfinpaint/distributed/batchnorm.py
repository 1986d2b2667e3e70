"""Batch norms that normalise by the batches of all ranks together."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from tfinpaint.distributed.world import World

Moments = Callable[[tf.Tensor, None], tuple[tf.Tensor, tf.Tensor]]


def synchronise_batchnorm(model: keras.Model, world: World) -> None:
    """Have the batch norms of a model normalise by the batches of all ranks, which must be equally large.

    XLA cannot compile such a model. Keras's own `synchronized` only works with a tf.distribute strategy. The layers
    keep their class, because Keras names the groups of a weight file after it. Call it before the model is trained.
    """
    for layer in all_batchnorms(model):
        if not is_synchronised(layer):
            layer._moments = functools.partial(_moments_over_ranks, layer, layer._moments, world)


def all_batchnorms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return the batch norms of a model, trained or frozen, and of the models in it."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def is_synchronised(layer: keras.layers.BatchNormalization) -> bool:
    """Return whether `synchronise_batchnorm` has changed a layer."""
    return isinstance(vars(layer).get("_moments"), functools.partial)


def _moments_over_ranks(
    layer: keras.layers.BatchNormalization, own_moments: Moments, world: World, inputs: tf.Tensor, mask: None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return mean and biased variance over the batches of all ranks."""
    assert mask is None, "masked examples would count differently on every rank"
    mean, variance = own_moments(inputs, mask)
    # Squares are taken around a point near the mean that is equal on all ranks: around 0 they would cancel in float32.
    origin = tf.cast(layer.moving_mean.value, mean.dtype)
    offset = mean - origin
    moments = tf.stack([offset, variance + tf.square(offset)])
    offset, square = tf.unstack(world.all_reduce_mean(moments, f"batchnorm_{layer.name}"))
    return origin + offset, tf.maximum(square - tf.square(offset), 0.0)
