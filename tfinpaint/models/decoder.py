"""The context encoder: the shared encoder, an optional bottleneck, and a decoder of transposed convolutions."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers

from tfinpaint.models.fused_batchnorm import fuse_batchnorm
from tfinpaint.models.transposed import Conv2DTranspose

# Filters of the hidden layers that double maps of 1/32, 1/16, 1/8 and 1/4 of the image's sides, or the latter of these.
# The last layer has the channels of the image.
DECODER_FILTERS = (512, 256, 128, 64)
_LAYER = "decoder_layer_"  # how the names of its layers begin


def build_inpainter(
    encoder: keras.Model,
    channels: int = 3,
    *,
    bottleneck: str | None = None,
    decoder: str = "plain",
    activation: str = "sigmoid",
) -> keras.Model:
    """Return an encoder followed by a decoder of transposed convolutions, 4x4 with stride 2: five for a stride of 32.

    All of them except the last have a ReLU, as in Context Encoders (Pathak et al., arXiv 1604.07379, section 3.1).
    Their layers have the same names in every decoder, and the same weights for each stride of the encoder.

    Args:
        encoder: model from [batch, height, width, channels] to [batch, height / stride, width / stride, maps]; its
            stride is a power of 2, at most 32.
        channels: number of channels of the output images.
        bottleneck: None, as in rmldnn, or "channelwise": the paper's channel-wise fully-connected layer, which
            propagates information across the image, and a 1x1 convolution that mixes the feature maps. The paper
            names no activation for these two; here each has a ReLU, as the layers of the decoder have.
        decoder: "plain", as in rmldnn, or "batchnorm": each ReLU follows a batch norm, as in the generator of DCGAN
            (Radford et al., arXiv 1511.06434, section 3).
        activation: of the output: "sigmoid" for targets in [0, 1], "linear" for any others.

    Returns:
        Model from the encoder's input to [batch, height, width, channels], float32 under any precision policy.
    """
    assert bottleneck in (None, "channelwise")
    assert decoder in ("plain", "batchnorm")
    x = encoder.output
    if bottleneck:
        maps = x.shape[-1]
        x = ChannelwiseDense(name="bottleneck_channelwise")(x)
        x = layers.Conv2D(maps, 1, activation="relu", name="bottleneck_conv")(x)
    doublings = (encoder.input.shape[1] // x.shape[1]).bit_length() - 1
    for number, filters in enumerate(DECODER_FILTERS[len(DECODER_FILTERS) + 1 - doublings :], start=1):
        name, activated = f"{_LAYER}{number}", None if decoder == "batchnorm" else "relu"
        x = Conv2DTranspose(filters, 4, strides=2, padding="same", activation=activated, name=name)(x)
        if decoder == "batchnorm":
            x = layers.BatchNormalization(name=f"{name}_bn")(x)
            x = layers.Activation("relu", name=f"{name}_relu")(x)
    x = Conv2DTranspose(channels, 4, strides=2, padding="same", name=f"{_LAYER}{doublings}")(x)
    x = layers.Activation(activation, dtype="float32", name="decoder_output")(x)
    model = keras.Model(encoder.input, x, name="inpainter")
    fuse_batchnorm(model)
    return model


def is_of_decoder(layer: str) -> bool:
    """Return whether a layer of a context encoder, by its name, is a transposed convolution or what follows it."""
    return layer.startswith(_LAYER)


class ChannelwiseDense(layers.Layer):
    """A layer that fully connects each feature map with itself and not with others, followed by a ReLU.

    It is the channel-wise layer of Context Encoders (arXiv 1604.07379, section 3.1): m maps of n = height * width
    positions have m n^2 weights instead of the m^2 n^2 of a dense layer, and a bias for each output. Input and output
    are [batch, height, width, maps]; height and width are fixed by the first call.

    Attributes:
        kernel: float32 [maps, n, n], from input to output position, in row-major order.
        bias: float32 [n, maps].
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        _, height, width, maps = input_shape
        assert height
        assert width
        positions = height * width
        # Glorot's uniform distribution: each output sums the positions of one map. Keras's own initializer would count
        # the maps, the first axis, as further inputs and outputs.
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
    """Return the encoder inside a context encoder: a model that shares its variables."""
    return keras.Model(inpainter.input, inpainter.get_layer(output_layer).output, name="encoder")
