"""Select the layers that are trained, and name the variables of a model."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import keras
from keras import layers

from tfinpaint.errors import UserError
from tfinpaint.models.classifier import HEAD
from tfinpaint.models.layer_names import file_name


def set_trainable(model: keras.Model, trainable: str | Sequence[str] | None) -> None:
    """Freeze all layers that are not selected. A frozen batch norm also keeps its stored statistics, as in Keras.

    Args:
        model: is changed.
        trainable: "all"; "head_only" (the dense head only); "batchnorm_frozen" (all layers except batch norms); shell
            patterns of the names of the layers to train; or None (as the model was built).

    Raises:
        UserError: a pattern matches no layer, or no weights are left to train.
    """
    if trainable is not None:
        for layer in model.layers:
            layer.trainable = _is_trained(layer, trainable)
    if not isinstance(trainable, str | None):
        names = [file_name(layer.name) for layer in model.layers]
        for pattern in trainable:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UserError(f"model.trainable: no layer matches {pattern!r}; layers are {names[1]} to {names[-1]}")
    if not model.trainable_weights:
        what = "the network file" if trainable is None else trainable
        raise UserError(f"model.trainable: {what} leaves no weights to train")


def freeze_behind(model: keras.Model, encoder: keras.Model) -> None:
    """Freeze the layers of a model that are not in its encoder."""
    kept = {id(layer) for layer in encoder.layers}
    for layer in model.layers:
        if id(layer) not in kept:
            layer.trainable = False


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Return the variables of a model by layer and name, such as "conv1_conv/kernel".

    The names are the same in every process, unlike Keras's paths, which number layers without names.
    """
    found: dict[str, keras.Variable] = {}
    for layer in model.layers:
        for place, variable in enumerate(layer.variables):
            name = f"{layer.name}/{variable.name}"
            found[f"{name}_{place}" if name in found else name] = variable
    return found


def names_in(model: keras.Model, variables: Sequence[keras.Variable]) -> tuple[str, ...]:
    """Return the names of some variables of a model, in their order."""
    names = {id(variable): name for name, variable in named_variables(model).items()}
    return tuple(names[id(variable)] for variable in variables)


def _is_trained(layer: keras.Layer, trainable: str | Sequence[str]) -> bool:
    if trainable == "all":
        return True
    if trainable == "head_only":
        return layer.name == HEAD
    if trainable == "batchnorm_frozen":
        return not isinstance(layer, layers.BatchNormalization)
    return any(fnmatchcase(file_name(layer.name), pattern) for pattern in trainable)
