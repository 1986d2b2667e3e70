"""Weights out of the whole-file `.h5` format of Keras 2, as plain arrays by layer name.

Keras 3 loads such files by name too, but does not tell which layers it skipped, and loads a layer by halves where one
of its weights fits and another does not. With the arrays at hand, the caller can plan, report and copy.

A model within a model is one entry of such a file, with the weights of all its layers; it is taken apart again.

Only numbers that lie in the file itself are read (`hdf5`): no pickle and no model description is opened.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tfinpaint.errors import UserError
from tfinpaint.storage import safe_hdf5
from tfinpaint.storage.safe_hdf5 import open_hdf5


def is_legacy(path: Path) -> bool:
    """Whether the file is HDF5 with a list of layer names, which `.weights.h5` files of Keras 3 have not."""
    try:
        with open_hdf5(path) as file:
            return has_layer_names(file)
    except (UserError, OSError, RuntimeError, LookupError, ValueError, TypeError):
        return False


def has_layer_names(file: h5py.File) -> bool:
    """Return whether an open HDF5 file has a list of layer names."""
    return _weights_group(file) is not None


def read_layers(path: Path, wanted: Collection[str] = ()) -> dict[str, list[np.ndarray]]:
    """Return the weights of each layer that has any, in the file's order.

    Args:
        path: a whole model (`model.save` to `.h5`) or weights alone (`save_weights` of Keras 2).
        wanted: names of layers. An entry of the file that has none of these names may be a model of several layers:
            they are returned, as its weights name them.

    Returns:
        Layer name -> arrays, trainable weights first, as in Keras 3: kernel, bias; gamma, beta,
        moving mean, moving variance.

    Raises:
        UserError: no such file, another format, a damaged file, one that holds more than plain arrays of numbers, or
            several layers of the same wanted name.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        with open_hdf5(path) as file:
            group = _weights_group(file)
            if group is None:
                raise UserError(f"{path}: is no Keras 2 weight file: it has no layer_names; save the model to .h5 anew")
            found: dict[str, list[np.ndarray]] = {}
            for name in _names(group, "layer_names"):
                for layer, arrays in _layers_of(group, name, wanted).items():
                    if layer in found and layer in wanted:
                        raise UserError(
                            f"{path}: holds several layers named {layer}, and cannot tell which is meant; save the "
                            "model that holds the one alone"
                        )
                    found[layer] = arrays
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path}: is damaged or no Keras 2 weight file ({reason}); copy or save it anew") from error
    return found


def _layers_of(group: h5py.Group, name: str, wanted: Collection[str]) -> dict[str, list[np.ndarray]]:
    """Return the layers of one entry of the file: itself, or those of a model within the model."""
    entry = _child(group, name, h5py.Group)
    weights = _names(entry, "weight_names")
    layers = [_layer_of(weight, wanted) or name for weight in weights]
    if name in wanted or (len(set(layers)) == 1 and layers[0] not in wanted):
        layers = [name] * len(weights)
    found: dict[str, list[np.ndarray]] = {}
    for layer, weight in zip(layers, weights, strict=True):
        found.setdefault(layer, []).append(_array(entry, weight))
    return found


def _layer_of(weight: str, wanted: Collection[str]) -> str:
    """Return the layer in the name of a weight, like resnet50/conv1/kernel:0; "" without one. It may have slashes."""
    parts = weight.split("/")[:-1]
    names = ["/".join(parts[start:]) for start in range(len(parts))]
    return next((name for name in names if name in wanted), "".join(parts[-1:]))


def _weights_group(file: h5py.File) -> h5py.Group | None:
    """Where the layers lie: at the top, or in `model_weights` of a whole model."""
    for name in ("", "model_weights"):
        if not name or name in file:
            group = _child(file, name, h5py.Group) if name else file
            if "layer_names" in group.attrs or "layer_names0" in group.attrs:
                return group
    return None


def _names(group: h5py.Group, key: str) -> list[str]:
    """A list of names, which Keras cuts into key0, key1 ... where it is too long for one attribute."""
    keys = [key]
    if key not in group.attrs:
        keys = list(takewhile(group.attrs.__contains__, (f"{key}{number}" for number in count())))
    names: list[str] = []
    left = safe_hdf5.MOST_ATTRIBUTE_BYTES  # of all together: each key could be another name of the same long text
    for each in keys:
        listed = np.ravel(group.attrs[each])
        if len(names) + len(listed) > safe_hdf5.MOST_OBJECTS:
            raise ValueError(f"{key} of {group.name} has more names than a file has groups")
        for name in listed:
            text = name.decode("utf-8") if isinstance(name, bytes) else name
            if not isinstance(text, str):
                raise ValueError(f"{key} of {group.name} is not a list of names")
            if (left := left - len(text)) < 0:
                raise ValueError(f"{key} of {group.name} is longer than names are")
            names.append(text)
    if len(set(names)) < len(names):  # the same large array could be read again and again
        raise ValueError(f"{key} of {group.name} has a name twice")
    return names


def _child(group: h5py.Group, name: str, kind: type) -> Any:
    """What lies under a name like `conv1/kernel:0`."""
    child = group
    for part in name.split("/"):  # h5py would take a name that begins with a slash from the top
        if not part or not isinstance(child, h5py.Group) or part not in child:
            raise KeyError(f"{name} in {group.name} is missing")
        child = child[part]
    if not isinstance(child, kind):
        raise ValueError(f"{name} in {group.name} is not a {kind.__name__.lower()}")
    return child


def _array(group: h5py.Group, name: str) -> np.ndarray:
    return np.asarray(_child(group, name, h5py.Dataset)[()])
