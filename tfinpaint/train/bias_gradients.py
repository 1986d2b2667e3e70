"""Gradients of biases in mixed precision, summed in float32."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

_OPERATION = "BiasAdd"
_gradient_of_tensorflow = ops._gradient_registry.lookup(_OPERATION)


def sum_bias_gradients_in_float32() -> None:
    """Have TensorFlow sum the gradients of biases in float32 where activations are bfloat16 or float16.

    On CPUs its own kernel sums them in the type of the activations: in bfloat16, no sum of ones exceeds 256. The
    gradient of the operation BiasAdd is replaced in the whole process, so that this holds for every layer with a bias,
    those of keras.applications and of network files included. With float32 activations nothing changes.
    """
    # tf.RegisterGradient refuses to replace a gradient.
    ops._gradient_registry._registry[_OPERATION]["type"] = _gradient


def _gradient(operation: Any, received: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the gradients of the inputs and of the bias, given that of the output."""
    if received.dtype not in (tf.bfloat16, tf.float16):
        return _gradient_of_tensorflow(operation, received)
    channels = 1 if operation.get_attr("data_format") == b"NCHW" else received.shape.rank - 1
    axes = [axis for axis in range(received.shape.rank) if axis != channels]
    if received.dtype == tf.float16:
        return received, tf.cast(tf.reduce_sum(tf.cast(received, tf.float32), axes), tf.float16)
    return received, tf.reduce_sum(received, axes)  # reductions of bfloat16 accumulate in float32
