"""Transposed convolutions as matrix products, which CPUs compute faster where maps are small and channels are many."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers

# The least number of channels for each position of the input with which a matrix product is used. Measured in float32
# with AVX2: the first layer of the decoder (2048 channels, 1 x 1 to 4 x 4) is 2.6 to 9 times as fast; the second (512
# channels) 2.4 times at 2 x 2 and 1.2 times at 8 x 8; the third (256) 0.7 times at 4 x 4 and 0.6 times at 16 x 16.
CHANNELS_PER_POSITION = 32


@keras.saving.register_keras_serializable("tfinpaint")
class Conv2DTranspose(layers.Conv2DTranspose):
    """Keras's layer of the same name, with the same weights and results up to rounding.

    A convolution of 4 x 4 with stride 2 and `same` padding is computed as a matrix product if no GPU is visible, and if
    the input has a known height and width and at least CHANNELS_PER_POSITION times as many channels as positions. All
    others are left to Keras. The class has the name of Keras's class, because Keras names the groups of weight files
    after it.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return [batch, 2 height, 2 width, filters] for inputs [batch, height, width, channels]."""
        if not self._is_product(inputs):
            return super().call(inputs)
        outputs = transposed_convolution(inputs, tf.convert_to_tensor(self.kernel))
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return self.activation(outputs) if self.activation is not None else outputs

    def _is_product(self, inputs: tf.Tensor) -> bool:
        """Return whether the rule in the description of the class selects the matrix product."""
        if isinstance(inputs, keras.KerasTensor) or tf.config.list_logical_devices("GPU"):
            return False
        form = (self.kernel_size, self.strides, self.padding, self.dilation_rate, self.data_format)
        _, height, width, channels = inputs.shape
        return (
            form == ((4, 4), (2, 2), "same", (1, 1), "channels_last")
            and self.output_padding is None
            and None not in (height, width)
            and height * width * CHANNELS_PER_POSITION <= channels
        )


def transposed_convolution(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Return a transposed convolution of 4 x 4 with stride 2 and `same` padding, computed as one matrix product.

    The input at row i adds its product with row u of the kernel to row 2 i + u - 1 of the output. Let u = 2 p + a: the
    rows with equal p form an image of half the output's height whose rows are i + p, with a as the row within pairs.
    Columns are treated alike. The output is therefore the sum of four such images, each shifted by (p, q), with pairs
    of rows and columns taken apart into channels.

    Args:
        inputs: [batch, height, width, channels]; all but the batch are known.
        kernel: [4, 4, filters, channels], of the inputs' dtype.

    Returns:
        [batch, 2 height, 2 width, filters].
    """
    _, height, width, channels = inputs.shape
    filters = kernel.shape[2]
    product = tf.matmul(tf.reshape(inputs, [-1, channels]), tf.reshape(kernel, [-1, channels]), transpose_b=True)
    product = tf.reshape(product, [-1, height, width, 2, 2, 2, 2 * filters])  # ..., p, a, q, (b, filters)
    shifted = [
        tf.pad(tf.reshape(block, [-1, height, width, 4 * filters]), [[0, 0], [p, 1 - p], [q, 1 - q], [0, 0]])
        for p, rows in enumerate(tf.unstack(product, axis=3))
        for q, block in enumerate(tf.unstack(rows, axis=4))
    ]
    whole = tf.nn.depth_to_space(tf.add_n(shifted), 2)
    # tf.slice, because the gradient of an indexing with ranges takes several times as long.
    return tf.slice(whole, [0, 1, 1, 0], [-1, 2 * height, 2 * width, filters])
