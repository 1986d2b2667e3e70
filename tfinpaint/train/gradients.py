"""Gradients of operations that TensorFlow computes inexactly or slowly on CPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

Gradient = Callable[[Any, tf.Tensor], Sequence[tf.Tensor]]  # (operation, gradient of its output) -> those of its inputs

_bias_gradient: Gradient = ops._gradient_registry.lookup("BiasAdd")
_convolution_gradient: Gradient = ops._gradient_registry.lookup("Conv2D")

# The gradient of a kernel is computed by matrix products for maps of at most this many positions, with at least so many
# channels for each of them. With AVX2 and 3 x 3 kernels that takes 1/13 of the time at 1 x 1, 1/7 at 2 x 2 and 1/2 at
# 4 x 4 with 512 channels, 2/3 at 4 x 4 with 256, and as long as TensorFlow at 8 x 8 with 128.
MOST_POSITIONS = 16
CHANNELS_PER_POSITION = 16


def replace_gradients() -> None:
    """Replace TensorFlow's gradients of biases and of convolutions, in the whole process.

    So they hold for every layer, those of keras.applications and of network files included.
    """
    # tf.RegisterGradient refuses to replace a gradient.
    ops._gradient_registry._registry["BiasAdd"]["type"] = _gradient_of_bias_add
    ops._gradient_registry._registry["Conv2D"]["type"] = _gradient_of_convolution


def _gradient_of_bias_add(operation: Any, received: tf.Tensor) -> Sequence[tf.Tensor]:
    """Return the gradients of inputs and bias, summed in float32 where activations are bfloat16 or float16.

    TensorFlow's own kernel for CPUs sums in the type of the activations: in bfloat16, no sum of ones exceeds 256.
    """
    if received.dtype not in (tf.bfloat16, tf.float16):
        return _bias_gradient(operation, received)
    channels = 1 if operation.get_attr("data_format") == b"NCHW" else received.shape.rank - 1
    axes = [axis for axis in range(received.shape.rank) if axis != channels]
    if received.dtype == tf.float16:
        return received, tf.cast(tf.reduce_sum(tf.cast(received, tf.float32), axes), tf.float16)
    return received, tf.reduce_sum(received, axes)  # reductions of bfloat16 accumulate in float32


def _gradient_of_convolution(operation: Any, received: tf.Tensor) -> Sequence[tf.Tensor]:
    """Return the gradients of inputs and kernel, that of the kernel by matrix products where these are faster."""
    of_inputs, of_kernel = _convolution_gradient(operation, received)
    inputs, kernel = operation.inputs
    if _is_faster_by_products(operation, inputs, kernel):
        of_kernel = kernel_gradient(inputs, received, kernel.shape[:2])
    return of_inputs, of_kernel


def _is_faster_by_products(operation: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> bool:
    """Return whether this is a convolution of a small map with many channels, and no GPU is visible.

    Products of float16 may be summed in float16; those of bfloat16 are summed in float32.
    """
    if None in inputs.shape[1:] or inputs.dtype == tf.float16 or tf.config.list_logical_devices("GPU"):
        return False
    form = [operation.get_attr(name) for name in ("strides", "dilations", "padding", "data_format")]
    if [list(form[0]), list(form[1]), *form[2:]] != [[1] * 4, [1] * 4, b"SAME", b"NHWC"]:
        return False
    height, width, channels, filters = kernel.shape
    positions = inputs.shape[1] * inputs.shape[2]
    return (
        height == width == 3
        and inputs.shape[3] == channels  # one group
        and positions <= MOST_POSITIONS
        and min(channels, filters) >= CHANNELS_PER_POSITION * positions
    )


def kernel_gradient(inputs: tf.Tensor, received: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Return the gradient of a convolution's kernel, for stride 1 and `same` padding: a matrix product for each tap.

    A tap of the kernel meets a part of the inputs, and adds to a part of the outputs; taps that meet only padding have
    the gradient 0.

    Args:
        inputs: [batch, height, width, channels]; all but the batch are known.
        received: [batch, height, width, filters], gradient of the outputs.
        size: rows and columns of the kernel, both odd.

    Returns:
        [rows, columns, channels, filters], of the inputs' dtype.
    """
    _, height, width, channels = inputs.shape
    filters = received.shape[-1]

    def of_tap(down: int, right: int) -> tf.Tensor:
        if abs(down) >= height or abs(right) >= width:
            return tf.zeros([channels, filters], inputs.dtype)
        seen = inputs[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        made = received[:, max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
        return tf.matmul(tf.reshape(seen, [-1, channels]), tf.reshape(made, [-1, filters]), transpose_a=True)

    middle = [extent // 2 for extent in size]
    taps = [of_tap(row - middle[0], column - middle[1]) for row in range(size[0]) for column in range(size[1])]
    return tf.reshape(tf.stack(taps), [*size, channels, filters])
