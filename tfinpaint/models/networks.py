"""The networks of the encoders, whole and with random weights. Their layers are named as in keras.applications."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from tfinpaint.config.encoders import EncoderName

Shape = tuple[int, int, int]  # height, width and channels of the images
EPSILON = 1.001e-5  # of the batch norms of the ResNets of keras.applications


def with_small_stem(network: keras.Model, shape: Shape) -> keras.Model:
    """Return a ResNet for small images, with random weights of its own.

    Its first convolution is 3 x 3 with stride 1, and there is no pooling (Chen et al., "A Simple Framework for
    Contrastive Learning of Visual Representations", arXiv 2002.05709, appendix B.9). Names are those of the network.
    """
    changes = {"conv1_pad": {"padding": 1}, "conv1_conv": {"kernel_size": 3, "strides": 1}}

    def copy(layer: keras.Layer) -> keras.Layer:
        if layer.name.startswith("pool1_"):
            return layers.Identity(name=layer.name)
        return type(layer).from_config(layer.get_config() | changes.get(layer.name, {}))

    return keras.models.clone_model(network, layers.Input(shape), copy)


def _tiny(input_shape: Shape) -> keras.Model:
    image = layers.Input(input_shape)
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


def _resnet18(input_shape: Shape) -> keras.Model:
    """Return the network of 18 layers in He et al., arXiv 1512.03385, table 1, which keras.applications lacks.

    Paddings are symmetric and convolutions have no biases, as in torchvision.
    """
    image = layers.Input(input_shape)
    x = _convolution(image, 64, 7, 2, "conv1")
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for stage, filters in enumerate((64, 128, 256, 512), start=2):
        for block in (1, 2):
            strides = 2 if block == 1 and stage > 2 else 1
            x = _basic_block(x, filters, strides, f"conv{stage}_block{block}")
    return keras.Model(image, x)


def _basic_block(x: keras.KerasTensor, filters: int, strides: int, name: str) -> keras.KerasTensor:
    """Return the output of a block of two 3 x 3 convolutions, whose shortcut has one of 1 x 1 where shapes change."""
    shortcut = x if strides == 1 else _convolution(x, filters, 1, strides, f"{name}_0")
    x = _convolution(x, filters, 3, strides, f"{name}_1")
    x = layers.Activation("relu", name=f"{name}_1_relu")(x)
    x = _convolution(x, filters, 3, 1, f"{name}_2")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _convolution(x: keras.KerasTensor, filters: int, kernel: int, strides: int, name: str) -> keras.KerasTensor:
    """Return the output of a convolution with a batch norm; padding keeps the sides, divided by the stride.

    Without a stride the convolution pads by itself, so that on small maps it need not multiply by the zeros. With one,
    Keras would pad at one side only.
    """
    if explicit := kernel > 1 and strides > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    padding = "valid" if explicit else "same"
    x = layers.Conv2D(filters, kernel, strides=strides, padding=padding, use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)


def _convnext_tiny(input_shape: Shape) -> keras.Model:
    """Return ConvNeXt-T (Liu et al., arXiv 2201.03545) as a single model in which every layer has a name of its own.

    In keras.applications, the stem and the downsampling layers are models within the model, additions are no layers,
    and the last layer norm is named by a counter unless the classifier is included.
    """
    whole = keras.applications.ConvNeXtTiny(**_BARE, include_preprocessing=False, input_shape=input_shape)
    additions = (layer.name.replace("_identity", "_add") for layer in whole.layers if "_identity" in layer.name)

    def copy(operation: keras.Operation) -> keras.Operation:
        if isinstance(operation, keras.Sequential) or not isinstance(operation, keras.Layer):
            return operation
        if operation.name.endswith("_layer_scale"):
            return LayerScale(name=operation.name)
        name = "convnext_tiny_head_layernorm" if operation is whole.layers[-1] else operation.name
        return type(operation).from_config(operation.get_config() | {"name": name})

    def call(operation: keras.Operation, *inputs: keras.KerasTensor, **options: Any) -> keras.KerasTensor:
        if not isinstance(operation, keras.Layer):
            return layers.Add(name=next(additions))(inputs)
        if isinstance(operation, keras.Sequential):
            (x,) = inputs
            for layer in operation.layers:
                x = type(layer).from_config(layer.get_config())(x)
            return x
        return operation(*inputs, **options)

    return keras.models.clone_model(whole, clone_function=copy, call_function=call)


class LayerScale(layers.Layer):
    """A factor for each channel (Touvron et al., arXiv 2103.17239), that of keras.applications with a name.

    Attributes:
        gamma: float32 [channels], the factors.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        start = keras.initializers.Constant(1e-6)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=start, name="gamma")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.gamma


def _efficientnet_v2_b0(input_shape: Shape) -> keras.Model:
    """Return EfficientNetV2-B0 (Tan and Le, arXiv 2104.00298) without stochastic depth.

    Blocks that are left out at random would make the result depend on the number of ranks, differ where blocks are
    recomputed, and change what frozen layers make of an image.
    """
    whole = keras.applications.EfficientNetV2B0(**_BARE, include_preprocessing=False, input_shape=input_shape)

    def copy(layer: keras.Layer) -> keras.Layer:
        changes = {"rate": 0.0} if isinstance(layer, layers.Dropout) else {}
        return type(layer).from_config(layer.get_config() | changes)

    return keras.models.clone_model(whole, clone_function=copy)


def _mobilenet_v3_large(input_shape: Shape) -> keras.Model:
    """Return MobileNetV3-Large (Howard et al., arXiv 1905.02244); in keras.applications its last layer has no name."""
    whole = keras.applications.MobileNetV3Large(**_BARE, include_preprocessing=False, input_shape=input_shape)
    last = layers.Activation("hard_swish", name="conv_1_activation")
    return keras.Model(whole.input, last(whole.get_layer("conv_1_bn").output))


_BARE: dict[str, Any] = {"include_top": False, "weights": None}
NETWORKS: Mapping[EncoderName, Callable[..., keras.Model]] = {
    "resnet50": partial(keras.applications.ResNet50, **_BARE),
    "resnet18": _resnet18,
    "resnet101": partial(keras.applications.ResNet101, **_BARE),
    "convnext_tiny": _convnext_tiny,
    "efficientnet_v2_b0": _efficientnet_v2_b0,
    "mobilenet_v3_large": _mobilenet_v3_large,
    "densenet121": partial(keras.applications.DenseNet121, **_BARE),
    "tiny": _tiny,
}
