"""The encoder that both tasks share. Its layers are named by its network alone, so that names match by construction."""

from __future__ import annotations

import keras

from tfinpaint.config.encoders import ARCHITECTURES, LEAST_SIDE, EncoderName, EncoderOutput, Stem
from tfinpaint.models.fused_batchnorm import fuse_batchnorm
from tfinpaint.models.networks import NETWORKS, with_small_stem


def build_encoder(
    encoder: EncoderName, output: EncoderOutput, height: int, width: int, channels: int = 3, stem: Stem = "standard"
) -> keras.Model:
    """Return a convolutional encoder with random weights.

    Args:
        encoder: a network of keras.applications; "resnet18"; or "tiny" (a ResNet with one bottleneck block per stage
            and 1/16 of the filters, for tests).
        output: "before_add" or "after_relu", where the network has an addition that late.
        height, width: of the images, in pixels; multiples of the stride.
        channels: of the images.
        stem: "standard"; or, of a ResNet, "small", for small images: see `networks.with_small_stem`.

    Returns:
        Model from [batch, height, width, channels], values in [0, 1], to [batch, height / stride, width / stride,
        maps]. The stride is 32, with the small stem 8.
    """
    if stem == "small":
        whole = NETWORKS[encoder](input_shape=(LEAST_SIDE, LEAST_SIDE, channels))
        whole = with_small_stem(whole, (height, width, channels))
    else:
        whole = NETWORKS[encoder](input_shape=(height, width, channels))
    last = whole.get_layer(ARCHITECTURES[encoder].output_layer(output))
    model = keras.Model(whole.input, last.output, name="encoder")
    fuse_batchnorm(model)
    return model


def distances_from_head(encoder: EncoderName, output: EncoderOutput, model: keras.Model) -> dict[str, int]:
    """Return how many groups of layers each layer of the encoder in a model is before the head or decoder.

    The groups are the stem and the stages 2 to 5: the layers of stage 5 have the distance 1, those of the stem 5.

    Args:
        encoder, output: as the encoder was built.
        model: the encoder, or a model that begins with it.
    """
    architecture = ARCHITECTURES[encoder]
    ends = [architecture.stem, *(architecture.stages[stage] for stage in (2, 3, 4)), architecture.output_layer(output)]
    found: dict[str, int] = {}
    for layer in model.layers:  # in topological order
        if not ends:
            break
        found[layer.name] = len(ends)
        if layer.name == ends[0]:
            ends.pop(0)
    return found


def block_ends(encoder: EncoderName, model: keras.Model) -> tuple[str, ...]:
    """Return the names of the layers of a model at which its encoder's stem and blocks end."""
    architecture = ARCHITECTURES[encoder]
    names = [layer.name for layer in model.layers]
    return tuple(name for name in names if name == architecture.stem or name.endswith(architecture.block))
