"""The context encoder: the shared encoder, a bottleneck if wanted, and a decoder of transposed convolutions."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers

DECODER_FILTERS = (512, 256, 128, 64)  # of the hidden layers; the last has the image's channels


def build_inpainter(
    encoder: keras.Model, channels: int = 3, *, bottleneck: str | None = None, activation: str = "sigmoid"
) -> keras.Model:
    """Put the decoder on an encoder: 5 times Conv2DTranspose 4x4 / 2, each with a ReLU but the last.

    The scheme is that of Context Encoders (Pathak et al., arXiv 1604.07379, section 3.1).

    Args:
        channels: of the images made.
        bottleneck: what lies between encoder and decoder. None: nothing, as in the seed tool. "channelwise": the
            paper's channel-wise fully-connected layer, so that every part of the image can tell every other, and a
            1x1 convolution that mixes the maps. The paper names no activation for these two; here each has a ReLU, as
            the decoder's layers have.
        activation: of the output: "sigmoid" for targets from 0 to 1, "linear" for any others.

    Returns:
        Model from the encoder's input to [batch, height, width, channels], 0 to 1 or, where linear, any value, in
        float32 whatever the precision policy.
    """
    assert bottleneck in (None, "channelwise")
    x = encoder.output
    if bottleneck:
        maps = x.shape[-1]
        x = ChannelwiseDense(name="bottleneck_channelwise")(x)
        x = layers.Conv2D(maps, 1, activation="relu", name="bottleneck_conv")(x)
    for number, filters in enumerate(DECODER_FILTERS, start=1):
        x = layers.Conv2DTranspose(
            filters, 4, strides=2, padding="same", activation="relu", name=f"decoder_layer_{number}"
        )(x)
    number = len(DECODER_FILTERS) + 1
    x = layers.Conv2DTranspose(channels, 4, strides=2, padding="same", name=f"decoder_layer_{number}")(x)
    x = layers.Activation(activation, dtype="float32", name="decoder_output")(x)
    return keras.Model(encoder.input, x, name="inpainter")


class ChannelwiseDense(layers.Layer):
    """Each feature map fully connected to itself, none to another; then a ReLU.

    The layer of Context Encoders (arXiv 1604.07379, section 3.1): m maps of n = height * width positions take m n^2
    weights, where a dense layer would take m^2 n^2; and a bias for each output, m n. Takes and gives
    [batch, height, width, maps], height and width being those of the first call.

    Attributes:
        kernel: float32 [maps, n, n], from position to position, counted row by row.
        bias: float32 [n, maps].
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        _, height, width, maps = input_shape
        assert height
        assert width
        positions = height * width
        # Glorot's uniform distribution for what each output sums, the positions of one map. Keras' own initializer
        # would take the maps, the first axis, for more inputs and outputs.
        limit = (6 / (positions + positions)) ** 0.5
        self.kernel = self.add_weight(
            shape=(maps, positions, positions),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            name="kernel",
        )
        self.bias = self.add_weight(shape=(positions, maps), initializer="zeros", name="bias")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        _, height, width, maps = inputs.shape
        flat = keras.ops.reshape(inputs, (-1, height * width, maps))
        outputs = keras.ops.einsum("bim,mij->bjm", flat, self.kernel) + self.bias
        return keras.ops.reshape(keras.ops.relu(outputs), (-1, height, width, maps))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


def encoder_part(inpainter: keras.Model, output_layer: str) -> keras.Model:
    """The encoder inside a context encoder: a model over the same variables."""
    return keras.Model(inpainter.input, inpainter.get_layer(output_layer).output, name="encoder")
