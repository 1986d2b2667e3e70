"""Copy a network into one of Keras' own layers, which loads where this program is not installed."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from tfinpaint.errors import UserError
from tfinpaint.models.networks import LayerScale
from tfinpaint.models.transposed import Conv2DTranspose


def plain_copy(model: keras.Model, *, any_size: bool = False) -> keras.Model:
    """Return a model with the names and weights of this one that computes the same, up to rounding, in float32.

    Args:
        any_size: the copy takes images of any height and width; the model has no weights that depend on these.

    Raises:
        UserError: A layer computes something that Keras does not have.
    """
    images = layers.Input((None, None, model.input_shape[-1])) if any_size else None
    copy = keras.models.clone_model(model, images, _plain)
    for layer in model.layers:
        if layer.weights:
            other = copy.get_layer(layer.name)
            shapes = [tuple(weight.shape) for weight in other.weights]
            values = zip(layer.get_weights(), shapes, strict=True)
            other.set_weights([value.reshape(shape) for value, shape in values])
    return copy


def _plain(operation: keras.Operation) -> keras.Operation:
    if not isinstance(operation, keras.Layer):
        return operation
    if isinstance(operation, LayerScale):  # a factor for each channel
        return layers.DepthwiseConv2D(1, use_bias=False, name=operation.name)
    kind = layers.Conv2DTranspose if isinstance(operation, Conv2DTranspose) else type(operation)
    config = operation.get_config() | {"dtype": "float32"}
    if not kind.__module__.startswith("keras.") or any(map(_is_own, config.values())):
        raise UserError(
            f"layer {operation.name}: computes what no layer or activation of Keras 3 does; the network cannot be "
            "loaded without tfinpaint"
        )
    return kind.from_config(config)


def _is_own(value: Any) -> bool:
    """Return whether a value of a layer's config names a function that this program has registered."""
    return "tfinpaint>" in str(value)
