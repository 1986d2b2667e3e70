"""Build a network from its JSON description: a model of Keras 2 or 3, functional or sequential, or a list of layers.

The description is data only. It can build the layers, activations, initializers, regularizers and constraints in the
tables below and nothing else; it cannot import a module or run code. Therefore this module builds the layers itself and
does not use Keras's own loader, which follows `module` and `registered_name`.
"""

from __future__ import annotations

import json
import math
from typing import Any

import keras
from keras import constraints, initializers, layers, regularizers

from tfinpaint.errors import UserError
from tfinpaint.models.fused_batchnorm import fuse_batchnorm
from tfinpaint.models.keras_json.parse import (
    KERAS2_HARD_SIGMOID,
    SHAPE_KEYS,
    Call,
    Layer,
    blamed_on,
    call_order,
    canonical,
)
from tfinpaint.models.layer_names import keras_name
from tfinpaint.models.transposed import Conv2DTranspose

MERGES = ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
LAYERS = {
    name: getattr(layers, name)
    for name in (
        *("InputLayer", "Dense", "Flatten", "Permute", "Reshape", "Rescaling", *MERGES),
        *("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout2D"),
        *("Conv2D", "SeparableConv2D", "DepthwiseConv2D"),
        *("BatchNormalization", "LayerNormalization"),
        *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"),
        *("ZeroPadding2D", "Cropping2D", "UpSampling2D", "MaxPooling2D", "AveragePooling2D"),
        *("GlobalAveragePooling2D", "GlobalMaxPooling2D"),
    )
} | {"Conv2DTranspose": Conv2DTranspose}
ACTIVATIONS = (
    *("elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "log_softmax", "mish", "relu", "relu6"),
    *("selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "swish", "tanh"),
)
_INITIALIZERS = (
    *("Zeros", "Ones", "Constant", "Identity", "Orthogonal", "RandomNormal", "RandomUniform", "TruncatedNormal"),
    *("VarianceScaling", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform"),
)
# Parts of a layer, by the ending of their key. Names are compared in lower case and without underscores, because
# GlorotUniform and glorot_uniform are the same.
PARTS: dict[str, dict[str, Any]] = {
    "_initializer": {
        **{name.lower(): getattr(initializers, name) for name in _INITIALIZERS},
        "normal": initializers.RandomNormal,
        "uniform": initializers.RandomUniform,
    },
    "_regularizer": {name.lower(): getattr(regularizers, name) for name in ("L1", "L2", "L1L2")},
    "_constraint": {
        name.lower(): getattr(constraints, name) for name in ("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm")
    },
}

MAX_WEIGHTS = 2**28  # 1 GiB as float32; VGG19 has half of that
MAX_OUTPUTS = 2**28  # numbers in the output of a layer for one image

ANY = object()
# Keys that Keras 2 writes and Keras 3 refuses -> the values with which they have no effect.
_UNUSED_KERNEL = {"kernel_initializer": ANY, "kernel_regularizer": (None,), "kernel_constraint": (None,)}
DROPPED: dict[str, dict[str, Any]] = {
    "BatchNormalization": {"fused": ANY, "virtual_batch_size": (None,), "adjustment": (None,)},
    "Conv2DTranspose": {"groups": (1,)},
    "DepthwiseConv2D": {"groups": (1,), "filters": (None,), **_UNUSED_KERNEL},
    "InputLayer": {"sparse": (False, None), "ragged": (False, None), "optional": (False, None)},
    "SeparableConv2D": {"groups": (1,), **_UNUSED_KERNEL},
    "SpatialDropout2D": {"noise_shape": (None,)},
}


def build_network(network: dict[str, Any], origin: str = "layers", max_weights: int = MAX_WEIGHTS) -> keras.Model:
    """Return a model with new weights for a description from `read_network`.

    The layers follow the global dtype policy, whatever the description says, so that `precision` decides; the output
    layer computes in float32 under any policy. Layers with `trainable: false` are frozen.

    Args:
        network: the description.
        origin: name of its file, for messages.
        max_weights: a network with more weights is refused before memory is allocated for them.

    Returns:
        Model of one input [batch, ...] and one float32 output [batch, ...].

    Raises:
        UserError: a class or value is not allowed, Keras refuses an argument, or there are too many weights; the
            message names the layer.
    """
    network = canonical(network, origin)
    (input_name, *_), (output_name, output_call, _) = network["input_layers"][0], network["output_layers"][0]
    made, budget = {}, _WeightBudget(min(max_weights, MAX_WEIGHTS))
    for layer in network["layers"]:  # in the file's order, in which the seeds of new weights are drawn
        with blamed_on(layer, origin):
            made[layer["name"]] = _make_layer(layer, {"dtype": "float32"} if layer["name"] == output_name else {})
            budget.watch(made[layer["name"]])
    tensors = _connect(network["layers"], made, origin)
    budget.release()
    try:
        model = keras.Model(made[input_name].output, tensors[output_name, output_call], name="network")
    except ValueError as error:
        raise UserError(f"{origin}: {output_name} cannot be computed from the input {input_name} alone") from error
    fuse_batchnorm(model)
    return model


def _connect(listed: list[Layer], made: dict[str, keras.Layer], origin: str) -> dict[Call, keras.KerasTensor]:
    """Return the output of each call of each layer."""
    by_name = {layer["name"]: layer for layer in listed}
    tensors: dict[Call, keras.KerasTensor] = {}
    for name, call in call_order(listed, origin):
        layer = by_name[name]
        with blamed_on(layer, origin):
            if layer["class_name"] == "InputLayer":
                tensors[name, call] = made[name].output
                continue
            inputs = [tensors[before, index] for before, index, _ in layer["inbound_nodes"][call]]
            is_merge = layer["class_name"] in MERGES
            if not is_merge and len(inputs) != 1:
                raise ValueError(f"takes one input, not {len(inputs)}")
            tensors[name, call] = made[name](inputs if is_merge else inputs[0])
            if (outputs := math.prod(side or 1 for side in tensors[name, call].shape)) > MAX_OUTPUTS:
                raise ValueError(f"its output has {outputs} numbers per image, at most {MAX_OUTPUTS} are allowed")
    return tensors


class _WeightBudget:
    """A limit on the number of weights, checked before they are allocated: a small file can ask for terabytes."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._watched: list[keras.Layer] = []

    def watch(self, layer: keras.Layer) -> None:
        """Count the weights that a layer adds from now on."""
        add_weight = layer.add_weight

        def counted(shape: Any = None, *arguments: Any, **options: Any) -> Any:
            self._left -= math.prod(shape or ())
            if self._left < 0:
                raise ValueError(f"with this layer the network has more than {self._limit} weights")
            return add_weight(shape, *arguments, **options)

        layer.add_weight = counted
        self._watched.append(layer)

    def release(self) -> None:
        """Restore the method of the layers' class."""
        for layer in self._watched:
            del layer.add_weight


def output_activation(network: dict[str, Any]) -> str:
    """Return the activation of the output of a description from `read_network`, in lower case; else "linear"."""
    name = network["output_layers"][0][0]
    layer = next(layer for layer in network["layers"] if layer["name"] == name)
    if layer["class_name"] == "Softmax":
        return "softmax" if layer["config"].get("axis", -1) == -1 else f"softmax over axis {layer['config']['axis']}"
    name = _plain_name(layer["config"].get("activation") or "linear")
    return "hard_sigmoid" if name == KERAS2_HARD_SIGMOID else name


def _plain_name(activation: Any) -> str:
    """Return an activation's name as it is listed: TensorFlow writes log_softmax_v2 for Keras's log_softmax."""
    return str(activation).lower().removesuffix("_v2")


@keras.saving.register_keras_serializable("tfinpaint")  # models are cloned: checkpoints are written from a copy
def _keras2_hard_sigmoid(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


# One layer of the description -> one Keras layer. `blamed_on` adds the layer's name to a ValueError.


def _make_layer(layer: Layer, dtype: dict[str, str]) -> keras.Layer:
    class_name = layer["class_name"]
    if class_name not in LAYERS:
        is_flat = not class_name.endswith(("1D", "3D"))
        why = f"; supported are {', '.join(sorted(LAYERS))}" if is_flat else ", because images have two dimensions"
        raise ValueError(f"this class is not supported{why}")
    config = {key: value for key, value in layer["config"].items() if key not in ("name", "dtype", "trainable")}
    trainable = layer["config"].get("trainable", True)
    if not isinstance(trainable, bool):
        raise ValueError(f"trainable must be true or false, not {json.dumps(trainable):.40}")
    for key, harmless in DROPPED.get(class_name, {}).items():
        if key in config and harmless is not ANY and config[key] not in harmless:
            raise ValueError(f"{key}={json.dumps(config[key]):.40} is not supported by Keras 3; remove it")
        config.pop(key, None)
    if class_name == "LeakyReLU" and "alpha" in config:  # its name in Keras 2
        config["negative_slope"] = config.pop("alpha")
    if class_name == "InputLayer":
        return layers.InputLayer(batch_shape=_batch_shape(config), name=keras_name(layer["name"]))
    if class_name == "Activation" and config.pop("axis", -1) not in (1, 3, -1):
        raise ValueError("axis must be that of the channels, which is 1 in rmldnn and -1 in Keras")
    arguments = {key: _argument(key, value) for key, value in config.items() if key not in SHAPE_KEYS}
    if class_name == "BatchNormalization" and isinstance(arguments.get("axis"), list):
        if len(arguments["axis"]) != 1:
            raise ValueError(f"axis must be one number, not {arguments['axis']}")
        arguments["axis"] = arguments["axis"][0]  # a list in Keras 2.4 and later
    made = LAYERS[class_name](name=keras_name(layer["name"]), **arguments, **dtype)
    made.trainable = trainable  # not an argument of every layer
    return made


def _batch_shape(config: dict[str, Any]) -> tuple[int | None, ...]:
    """Return the shape of an input. Its batch size is None, because the last batch of an epoch is smaller."""
    if len(config) != 1 or next(iter(config)) not in SHAPE_KEYS:
        found = ", ".join(config) or "nothing"
        raise ValueError(f"must have batch_shape (Keras 2: batch_input_shape) and nothing else; it has {found}")
    ((key, shape),) = config.items()
    if not isinstance(shape, list) or not all(side is None or (type(side) is int and side > 0) for side in shape):
        raise ValueError(f"{key} must be a list of positive integers or null, not {json.dumps(shape):.80}")
    return (None, *(shape[1:] if key.startswith("batch") else shape))


def _argument(key: str, value: Any) -> Any:
    """Return a value of a layer's config in the form that the layer's constructor takes."""
    for ending, table in PARTS.items():
        if key.endswith(ending):
            return None if value is None else _part(key, value, table)
    if key == "activation" and value is not None:
        if value == KERAS2_HARD_SIGMOID:
            return _keras2_hard_sigmoid
        if not isinstance(value, str) or _plain_name(value) not in ACTIVATIONS:
            raise ValueError(f"activation {json.dumps(value):.80} is unknown; supported are {', '.join(ACTIVATIONS)}")
        return _plain_name(value)
    if isinstance(value, dict) and value.keys() == {"type", "value"} and value["type"] == "ndarray":
        return _plain(key, value["value"])  # Keras 2.2 wrote some numbers so
    return _plain(key, value)


def _part(key: str, value: Any, table: dict[str, Any]) -> Any:
    """Return an initializer, regularizer or constraint from its name, or from its class_name and config."""
    name, config = (value.get("class_name"), value.get("config", {})) if isinstance(value, dict) else (value, {})
    made = table.get(name.lower().replace("_", "")) if isinstance(name, str) else None
    if made is None:
        raise ValueError(f"{key} {json.dumps(name):.80} is unknown; supported are {', '.join(sorted(table))}")
    if not isinstance(config, dict):
        raise ValueError(f"{key}: config must be an object")
    # Some Keras 2 versions write the dtype of the weight here; the weight has its own.
    return made(**{each: _plain(f"{key}.{each}", part) for each, part in config.items() if each != "dtype"})


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        raise ValueError(f"{key} must be a plain value or a list, not an object")
    return [_plain(key, each) for each in value] if isinstance(value, list) else value
