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
# channels for each of them; in bfloat16, that of a kernel of 1 x 1 for maps of any size. Measured with AVX-512 and
# batches of 32, as parts of the time of TensorFlow's operation:
# - float32, 3 x 3: 1/11 at 1 x 1, 1/4 at 2 x 2 and 3/5 at 4 x 4 with 512 channels; 1.1 at 8 x 8 with 256
# - float32, 1 x 1: 1/4 at 2 x 2 and 4/5 at 4 x 4 with 512 channels
# - bfloat16, 3 x 3: 1/14 to 4/5 where the processor has AMX, 1/12 to 9/10 where it has AVX512_BF16 alone
# - bfloat16, 1 x 1: 1/16 to 3/4 with AMX, 1/7 to 1.05 with AVX512_BF16 alone
_PRODUCTS = {tf.float32: (16, 16), tf.bfloat16: (64, 2)}  # type -> (most positions, channels for each)


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
    rank = received.shape.rank
    if rank is None:
        return _bias_gradient(operation, received)
    channels = 1 if operation.get_attr("data_format") == b"NCHW" else rank - 1
    if _sums_to_zero(received) and channels == rank - 1:
        return received, tf.zeros(received.shape[channels], received.dtype)
    if received.dtype not in (tf.bfloat16, tf.float16):
        return _bias_gradient(operation, received)
    axes = [axis for axis in range(rank) if axis != channels]
    if received.dtype == tf.float16:
        return received, tf.cast(tf.reduce_sum(tf.cast(received, tf.float32), axes), tf.float16)
    return received, tf.reduce_sum(received, axes)  # reductions of bfloat16 accumulate in float32


def _sums_to_zero(received: tf.Tensor) -> bool:
    """Return whether this is what a batch norm in training gives its inputs, and nothing was added to it.

    A batch norm subtracts the mean of each channel, so a bias in front of it changes nothing and has the gradient 0.
    What the sum of all positions returns is rounding errors, which optimizers such as Adam enlarge.
    """
    if tf.executing_eagerly() or received.op.type != "FusedBatchNormGradV3" or received.value_index:
        return False
    return received.op.get_attr("is_training") and received.op.get_attr("data_format") == b"NHWC"


def _gradient_of_convolution(operation: Any, received: tf.Tensor) -> Sequence[tf.Tensor]:
    """Return the gradients of inputs and kernel, that of the kernel by matrix products where these are faster."""
    of_inputs, of_kernel = _convolution_gradient(operation, received)
    inputs, kernel = operation.inputs
    if _is_faster_by_products(operation, inputs, kernel, received):
        if operation.get_attr("strides")[1] == 2:
            inputs = _every_second_position(inputs)
        of_kernel = kernel_gradient(inputs, received, kernel.shape[:2])
    return of_inputs, of_kernel


def _is_faster_by_products(operation: Any, inputs: tf.Tensor, kernel: tf.Tensor, received: tf.Tensor) -> bool:
    """Return whether the rule at `_PRODUCTS` holds for this convolution, and no GPU is visible.

    Products of float16 may be summed in float16; those of bfloat16 are summed in float32.
    """
    if inputs.dtype not in _PRODUCTS or tf.config.list_logical_devices("GPU"):
        return False
    if not inputs.shape[1:].is_fully_defined() or not received.shape[1:].is_fully_defined():
        return False
    height, width, channels, filters = kernel.shape
    if inputs.shape[3] != channels or not _has_products(operation, (height, width), inputs.shape[1:3]):
        return False
    if (height, width) == (1, 1) and inputs.dtype == tf.bfloat16:
        return True
    most_positions, channels_per_position = _PRODUCTS[inputs.dtype]
    positions = received.shape[1] * received.shape[2]
    return positions <= most_positions and min(channels, filters) >= channels_per_position * positions


def _has_products(operation: Any, kernel: tuple[int, int], sides: Sequence[int]) -> bool:
    """Return whether a convolution has the form whose gradient `kernel_gradient` computes.

    That is a kernel of 3 x 3 with stride 1 and `same` padding, or of 1 x 1 with stride 1, or 2 for even sides.
    """
    strides, dilations, padding, data_format = (
        operation.get_attr(name) for name in ("strides", "dilations", "padding", "data_format")
    )
    if data_format != b"NHWC" or list(dilations) != [1] * 4:
        return False
    if kernel == (3, 3):
        return padding == b"SAME" and list(strides) == [1] * 4
    is_halved = list(strides) == [1, 2, 2, 1] and all(side % 2 == 0 for side in sides)
    return kernel == (1, 1) and padding in (b"SAME", b"VALID") and (is_halved or list(strides) == [1] * 4)


def _every_second_position(images: tf.Tensor) -> tf.Tensor:
    """Return [batch, height / 2, width / 2, channels], for even sides; faster than a slice with strides."""
    _, height, width, channels = images.shape
    rows = tf.reshape(images, [-1, 2 * width * channels])[:, : width * channels]
    return tf.reshape(tf.reshape(rows, [-1, 2 * channels])[:, :channels], [-1, height // 2, width // 2, channels])


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
