"""The encoder that both tasks share. Its layers are named here only, so that names match by construction."""

from __future__ import annotations

import re

import keras
from keras import layers

from tfinpaint.models.fused_batchnorm import fuse_batchnorm

# Where each encoder can end: before its last addition (as in rmldnn) or after its last ReLU.
OUTPUT_LAYERS = {
    "resnet50": {"before_add": "conv5_block3_3_bn", "after_relu": "conv5_block3_out"},
    "tiny": {"before_add": "conv5_block1_3_bn", "after_relu": "conv5_block1_out"},
}
# The last layer of each stage, by the number of the stage as in the names of its layers.
STAGES = {
    "resnet50": {2: "conv2_block3_out", 3: "conv3_block4_out", 4: "conv4_block6_out", 5: "conv5_block3_out"},
    "tiny": {stage: f"conv{stage}_block1_out" for stage in (2, 3, 4, 5)},
}
STRIDE = 32  # pixels of the image from one position of the output to the next
MAPS = {"resnet50": 2048, "tiny": 128}  # channels of the output


GROUPS = (
    5  # of the encoder's layers, whose names begin with their number: the stem (conv1_), stages 2 to 5 (conv2_ ...)
)


def distance_from_head(layer: str) -> int:
    """Return how many groups of layers a layer of this name is before the head or decoder: 0 of that, 5 of the stem."""
    group = re.match(rf"conv([1-{GROUPS}])_", layer)
    return GROUPS + 1 - int(group[1]) if group else 0


def build_encoder(encoder: str, output: str, height: int, width: int, channels: int = 3) -> keras.Model:
    """Return a convolutional encoder with random weights.

    Args:
        encoder: "resnet50" (He et al., arXiv 1512.03385, as in keras.applications) or "tiny" (one bottleneck block
            per stage and 1/16 of the filters, for tests).
        output: "before_add" or "after_relu".
        height, width: of the images, in pixels; multiples of 32.
        channels: of the images.

    Returns:
        Model from [batch, height, width, channels], values in [0, 1], to [batch, height / 32, width / 32, channels].
    """
    if encoder == "resnet50":
        whole = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(height, width, channels))
    else:
        whole = _tiny(height, width, channels)
    last = whole.get_layer(OUTPUT_LAYERS[encoder][output])
    model = keras.Model(whole.input, last.output, name="encoder")
    fuse_batchnorm(model)
    return model


def _tiny(height: int, width: int, channels: int) -> keras.Model:
    image = layers.Input((height, width, channels))
    x = layers.Conv2D(4, 7, strides=2, padding="same", name="conv1_conv")(image)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool1_pool")(x)
    for stage, filters in enumerate((4, 8, 16, 32), start=2):
        x = _bottleneck(x, filters, strides=1 if stage == 2 else 2, name=f"conv{stage}_block1")
    return keras.Model(image, x)


def _bottleneck(x: keras.KerasTensor, filters: int, strides: int, name: str) -> keras.KerasTensor:
    shortcut = layers.Conv2D(4 * filters, 1, strides=strides, name=f"{name}_0_conv")(x)
    shortcut = layers.BatchNormalization(name=f"{name}_0_bn")(shortcut)
    for part, (width, kernel, step) in enumerate(((filters, 1, strides), (filters, 3, 1), (4 * filters, 1, 1)), 1):
        x = layers.Conv2D(width, kernel, strides=step, padding="same", name=f"{name}_{part}_conv")(x)
        x = layers.BatchNormalization(name=f"{name}_{part}_bn")(x)
        if part < 3:
            x = layers.Activation("relu", name=f"{name}_{part}_relu")(x)
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)
