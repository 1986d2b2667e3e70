"""The context encoder: the shared encoder and a decoder of transposed convolutions."""

from __future__ import annotations

import keras
from keras import layers

DECODER_FILTERS = (512, 256, 128, 64)  # of the hidden layers; the last has the image's channels


def build_inpainter(encoder: keras.Model, channels: int = 3) -> keras.Model:
    """Put the decoder on an encoder: 5 times Conv2DTranspose 4x4 / 2, ReLU, the last one sigmoid.

    The scheme is that of Context Encoders (Pathak et al., arXiv 1604.07379, section 3.1) with the fully-connected
    bottleneck left out, as the seed tool has it.

    Returns:
        Model from the encoder's input to [batch, height, width, channels], 0 to 1, in float32 whatever the precision
        policy.
    """
    x = encoder.output
    for number, filters in enumerate(DECODER_FILTERS, start=1):
        x = layers.Conv2DTranspose(
            filters, 4, strides=2, padding="same", activation="relu", name=f"decoder_layer_{number}"
        )(x)
    number = len(DECODER_FILTERS) + 1
    x = layers.Conv2DTranspose(channels, 4, strides=2, padding="same", name=f"decoder_layer_{number}")(x)
    x = layers.Activation("sigmoid", dtype="float32", name="decoder_output")(x)
    return keras.Model(encoder.input, x, name="inpainter")


def encoder_part(inpainter: keras.Model, output_layer: str) -> keras.Model:
    """The encoder inside a context encoder: a model over the same variables."""
    return keras.Model(inpainter.input, inpainter.get_layer(output_layer).output, name="encoder")
