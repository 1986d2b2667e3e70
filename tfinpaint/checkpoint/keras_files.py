"""Weights that plain Keras has saved, for the layers of a model: by name, or in the order of a known architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from tfinpaint.checkpoint import keras2, keras3
from tfinpaint.checkpoint.header import ATTRIBUTE
from tfinpaint.checkpoint.keras3 import StoredLayer
from tfinpaint.checkpoint.transfer import LayerWeights
from tfinpaint.errors import UserError
from tfinpaint.models.layer_names import file_name
from tfinpaint.storage.safe_hdf5 import open_hdf5

_BLOCK = re.compile(r"(res|bn)([2-5])([a-f])_branch(?:2([abc])|1)")  # of ResNet50 in Keras before 2.3
_FIRST_AND_LAST = {"conv1": "conv1_conv", "bn_conv1": "conv1_bn", "fc1000": "predictions"}


@dataclass(frozen=True)
class KerasFile:
    """What a file of Keras gives to a model.

    Attributes:
        layers: weights by the layer names of the model.
        notes: how layers got their names where the file has others, or none; lines of a log.
    """

    layers: LayerWeights
    notes: tuple[str, ...] = ()


def is_keras_file(path: Path) -> bool:
    """Return whether a file holds weights that Keras has saved, and not a checkpoint of this project."""
    if keras3.is_archive(path):
        return True
    try:
        with open_hdf5(path) as file:
            if ATTRIBUTE in file.attrs:
                return False
            return keras2.has_layer_names(file) or keras3.holds_layers(file)
    except (UserError, OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError):
        return False


def read_keras_file(path: Path, model: keras.Model, encoder: keras.Model | None) -> KerasFile:
    """Read the weights of a file by the layer names of a model.

    Args:
        path: `.h5`, `.weights.h5` or `.keras`, of any Keras from 2.0 on.
        model: what the weights are for.
        encoder: the part of it that has the layers of `keras.applications.ResNet50`, or of this project's own encoder.

    Raises:
        UserError: the file is damaged or holds more than weights; or which of its layers is meant cannot be told: a
            name stands for several, or there are no names and the order of its layers is not that of `model` or
            `encoder`.
    """
    wanted = {file_name(layer.name) for layer in model.layers if layer.weights}
    if not keras3.is_archive(path) and keras2.is_legacy(path):
        return _with_names_of_today(path, keras2.read_layers(path, wanted), wanted)
    stored = keras3.read_layers(path)
    if any(layer.name for layer in stored):
        return KerasFile(_by_name(path, stored, wanted))
    return KerasFile(*_by_order(path, stored, [part for part in (model, encoder) if part is not None]))


def _with_names_of_today(path: Path, layers: LayerWeights, wanted: set[str]) -> KerasFile:
    """Rename the layers of a ResNet50 of Keras before 2.3, where the model has their later names."""
    renamed = {_name_of_today(name): weights for name, weights in layers.items()}
    if wanted.isdisjoint(renamed) or not wanted.isdisjoint(layers):
        return KerasFile(layers)
    old = next(name for name in layers if name not in renamed)
    note = f"{path.name} names the layers of ResNet50 as Keras before 2.3 did: {old} is {_name_of_today(old)}"
    return KerasFile(renamed, (note,))


def _name_of_today(name: str) -> str:
    if match := _BLOCK.fullmatch(name):
        kind, stage, block, part = match.groups()
        number = "0abc".index(part or "0")
        return f"conv{stage}_block{'abcdef'.index(block) + 1}_{number}_{'conv' if kind == 'res' else 'bn'}"
    return _FIRST_AND_LAST.get(name, name)


def _by_name(path: Path, stored: Sequence[StoredLayer], wanted: set[str]) -> LayerWeights:
    found: dict[str, list[np.ndarray]] = {}
    for layer in stored:
        name = file_name(layer.name) if layer.name else layer.place
        if name in found and name in wanted:
            raise UserError(
                f"{path}: holds several layers named {name}, and cannot tell which is meant; save the model that holds "
                "the one alone"
            )
        found[name] = layer.weights
    return found


def _by_order(
    path: Path, stored: Sequence[StoredLayer], references: Sequence[keras.Model]
) -> tuple[LayerWeights, tuple[str, ...]]:
    """Name the layers of one class in one model of the file as those of the reference, if all shapes are the same."""
    models: dict[str, list[StoredLayer]] = {}
    for layer in stored:
        models.setdefault(layer.model, []).append(layer)
    for reference in references:
        fitting = [named for layers in models.values() if (named := _named_like(layers, reference))]
        if len(fitting) > 1:
            raise UserError(f"{path}: holds {len(fitting)} models that fit; save the one that is meant alone")
        if fitting:
            note = (
                f"{path.name} holds no layer names (Keras before 3.6): its layers are taken in their order, which in "
                f"number and shapes is that of this run's {reference.name}"
            )
            taken = {id(weights) for weights in fitting[0].values()}
            others = {layer.place: layer.weights for layer in stored if id(layer.weights) not in taken}
            return {**fitting[0], **others}, (note,)
    raise UserError(
        f"{path}: holds no layer names (Keras before 3.6), and its layers are not, in number, order and shapes, those "
        f"of this run's {' or '.join(reference.name for reference in references)}; save it as .keras, or with a newer "
        "Keras"
    )


def _named_like(stored: Sequence[StoredLayer], reference: keras.Model) -> dict[str, list[np.ndarray]] | None:
    """Return the weights by the reference's names; None unless each class has as many layers, of the same shapes."""
    named: dict[str, list[np.ndarray]] = {}
    for kind, layers in _by_class(reference).items():
        same = [layer.weights for layer in stored if layer.class_and_number[0] == kind]
        if len(same) != len(layers):
            return None
        for weights, layer in zip(same, layers, strict=True):
            if [w.shape for w in weights] != [tuple(w.shape) for w in layer.weights]:
                return None
            named[file_name(layer.name)] = weights
    return named


def _by_class(model: keras.Model) -> Mapping[str, list[keras.Layer]]:
    found: dict[str, list[keras.Layer]] = {}
    for layer in model.layers:
        if layer.weights:
            found.setdefault(keras3.snake_case(type(layer).__name__), []).append(layer)
    return found
