"""Weights saved by plain Keras for the layers of a model: by name, or in the order of a known architecture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np

from tfinpaint.checkpoint import keras2, keras3
from tfinpaint.checkpoint.keras3 import ARCHIVE_ERRORS, StoredLayer
from tfinpaint.checkpoint.transfer import LayerWeights
from tfinpaint.errors import UserError, first_line
from tfinpaint.models.layer_names import file_name

DAMAGED = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, *ARCHIVE_ERRORS)
_BLOCK = re.compile(r"(res|bn)([2-5])([a-f])_branch(?:2([abc])|1)")  # of ResNet50 in Keras before 2.3
_FIRST_AND_LAST = {"conv1": "conv1_conv", "bn_conv1": "conv1_bn", "fc1000": "predictions"}


@dataclass(frozen=True)
class KerasWeights:
    """Weights of a Keras file under the layer names of a model.

    Attributes:
        layers: weights by layer name.
        notes: lines for the log; how layers got their names if the file has other names, or none.
    """

    layers: LayerWeights
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class KerasFile:
    """A file of weights that Keras itself has saved, open for reading.

    Attributes:
        path: `.h5`, `.weights.h5` or `.keras`, of any Keras from 2.0 on.
        file: its HDF5 file.
        names: layer names by place, from the description in a `.keras` archive.
    """

    path: Path
    file: h5py.File
    names: Mapping[str, str]

    def read_weights(self, model: keras.Model, encoder: keras.Model | None) -> KerasWeights:
        """Read the weights by the layer names of a model.

        Args:
            model: the model that the weights are for.
            encoder: the part of it that has the layers of `keras.applications.ResNet50`, or of this project's encoder.

        Raises:
            UserError: The file is damaged. Or its layers cannot be told apart: a name stands for several layers, or
                there are no names and the order of the layers is not that of `model` or `encoder`.
        """
        wanted = {file_name(layer.name) for layer in model.layers if layer.weights}
        with explaining_damage(self.path):
            if keras2.has_layer_names(self.file):
                stored = keras2.read_layers(self.file, wanted)
                return with_current_names(self.path, _by_name(self.path, stored, wanted), wanted)
            stored = keras3.read_layers(self.file, self.names)
        if any(layer.name for layer in stored):
            return KerasWeights(_by_name(self.path, stored, wanted))
        return _by_order(self.path, stored, [part for part in (model, encoder) if part is not None])


def is_keras_file(file: h5py.File) -> bool:
    """Return whether an open HDF5 file has weights where any version of Keras puts them."""
    return keras2.has_layer_names(file) or keras3.has_layers(file)


@contextmanager
def explaining_damage(path: Path) -> Iterator[None]:
    """Turn the errors that damaged files cause into a UserError that names the file."""
    try:
        yield
    except DAMAGED as error:
        raise UserError(
            f"{path}: damaged, or not a weight file of Keras ({first_line(error)}); copy it or save it again"
        ) from None


def with_current_names(path: Path, layers: LayerWeights, wanted: set[str]) -> KerasWeights:
    """Rename the layers of a ResNet50 of Keras before 2.3 if the model has their later names."""
    renamed = {_current_name(name): weights for name, weights in layers.items()}
    if wanted.isdisjoint(renamed) or not wanted.isdisjoint(layers):
        return KerasWeights(layers)
    old = next(name for name in layers if name not in renamed)
    note = f"{path.name} names the layers of ResNet50 as Keras before 2.3 did: {old} is {_current_name(old)}"
    return KerasWeights(renamed, (note,))


def _current_name(name: str) -> str:
    if match := _BLOCK.fullmatch(name):
        kind, stage, block, part = match.groups()
        number = "0abc".index(part or "0")
        return f"conv{stage}_block{'abcdef'.index(block) + 1}_{number}_{'conv' if kind == 'res' else 'bn'}"
    return _FIRST_AND_LAST.get(name, name)


def _by_name(path: Path, stored: Sequence[StoredLayer], wanted: set[str]) -> LayerWeights:
    found: dict[str, list[np.ndarray]] = {}
    for layer in stored:
        name = layer.name or layer.place
        if name in found and name in wanted:
            raise UserError(
                f"{path}: holds several layers named {name}, so the right one is unknown; save the model that contains "
                "it as a file of its own"
            )
        found[name] = layer.weights
    return found


def _by_order(path: Path, stored: Sequence[StoredLayer], references: Sequence[keras.Model]) -> KerasWeights:
    """Name the layers of one model in the file as those of the reference with the same classes, order and shapes."""
    models: dict[str, list[StoredLayer]] = {}
    for layer in stored:
        models.setdefault(layer.model, []).append(layer)
    for reference in references:
        fitting = [named for layers in models.values() if (named := _named_like(layers, reference))]
        if len(fitting) > 1:
            raise UserError(f"{path}: holds {len(fitting)} models that fit; save the right one as a file of its own")
        if fitting:
            note = (
                f"{path.name} holds no layer names (Keras before 3.6): its layers are assigned in their order, which "
                f"agrees in number and shapes with this run's {reference.name}"
            )
            taken = {id(weights) for weights in fitting[0].values()}
            others = {layer.place: layer.weights for layer in stored if id(layer.weights) not in taken}
            return KerasWeights({**fitting[0], **others}, (note,))
    raise UserError(
        f"{path}: holds no layer names (Keras before 3.6), and its layers differ in number, order or shapes from those "
        f"of this run's {' and '.join(reference.name for reference in references)}; save it as .keras, or with a newer "
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
