"""Batch norms in one operation, where Keras 3 takes about ten.

Keras computes mean, variance and output of a batch norm by separate operations, each of which reads or writes all
activations. TensorFlow's `FusedBatchNormV3` computes the same, and its gradient, in a few passes, and takes activations
of 16 bits without converting them first.
"""

from __future__ import annotations

import functools

import keras
import tensorflow as tf


def fuse_batchnorm(model: keras.Model) -> None:
    """Have the batch norms of a model compute by `FusedBatchNormV3`, as far as it can.

    The layers keep their class, because Keras names the groups of a weight file after it, and their weights.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and _can_be_fused(layer):
            layer.call = functools.partial(_call_fused, layer)


def _can_be_fused(layer: keras.layers.BatchNormalization) -> bool:
    """Return whether the layer normalises the last axis of images, by a float32 mean and variance."""
    is_last = len(layer.input.shape) == 4 and layer.axis in (-1, 3)
    return is_last and not layer.renorm and layer.variable_dtype == "float32"


def _call_fused(
    layer: keras.layers.BatchNormalization,
    inputs: tf.Tensor,
    training: bool | None = None,
    mask: tf.Tensor | None = None,
) -> tf.Tensor:
    """Return what `BatchNormalization.call` returns, up to rounding, and update the moving statistics as it does.

    Args:
        inputs: [batch, height, width, channels], float32, bfloat16 or float16.
        training, mask: as Keras's method takes them. With a mask, or with other moments than those of this batch
            (`distributed.batchnorm.synchronise_batchnorm`), Keras's method is called.
    """
    updates = bool(training) and layer.trainable
    has_own_moments = "_moments" not in vars(layer)
    if mask is not None or (updates and not has_own_moments):
        return type(layer).call(layer, inputs, training=training, mask=mask)
    inputs = tf.cast(inputs, layer.compute_dtype)
    channels = inputs.shape[-1]
    mean, variance = layer.moving_mean.value, layer.moving_variance.value
    outputs, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.ones(channels) if layer.gamma is None else layer.gamma.value,
        offset=tf.zeros(channels) if layer.beta is None else layer.beta.value,
        mean=tf.zeros(0) if updates else mean,
        variance=tf.zeros(0) if updates else variance,
        epsilon=layer.epsilon,
        is_training=updates,
    )
    if updates:
        # The operation returns the unbiased variance n / (n - 1) v; Keras's moving variance averages the biased one, v.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        batch_variance *= tf.maximum(count - 1, 1) / count
        for moving, new in ((layer.moving_mean, batch_mean), (layer.moving_variance, batch_variance)):
            moving.assign(moving.value * layer.momentum + new * (1 - layer.momentum))
    return outputs
