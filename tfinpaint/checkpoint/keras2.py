"""Read the whole-file `.h5` format of Keras 2 as plain arrays by layer name.

Keras 3 loads such files by name too, but does not report which layers it skipped, and loads half of a layer if one of
its weights fits and another does not. With the arrays at hand, the caller can plan, report and copy.

A model within a model is one entry of such a file, with the weights of all its layers. It is split into its layers.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import count, takewhile
from typing import Any

import h5py
import numpy as np

from tfinpaint.checkpoint.keras3 import StoredLayer
from tfinpaint.storage import safe_hdf5


def has_layer_names(file: h5py.File) -> bool:
    """Return whether an open HDF5 file has a list of layer names; the `.weights.h5` files of Keras 3 have none."""
    return _weights_group(file) is not None


def read_layers(file: h5py.File, wanted: Collection[str] = ()) -> list[StoredLayer]:
    """Return the weights of each layer that has any, in the file's order.

    Args:
        file: a whole model (`model.save` to `.h5`) or weights alone (`save_weights` of Keras 2).
        wanted: names of layers. An entry of the file that has none of these names may be a model of several layers;
            its layers are returned under the names that its weights carry.

    Raises:
        LookupError, ValueError, TypeError: The file is damaged or was not written by Keras 2.
    """
    group = _weights_group(file)
    if group is None:
        raise ValueError("it has no layer_names")
    entries = [(name, _layers_of(group, name, wanted)) for name in _names(group, "layer_names")]
    return [StoredLayer(entry, name, arrays) for entry, layers in entries for name, arrays in layers.items()]


def _layers_of(group: h5py.Group, name: str, wanted: Collection[str]) -> dict[str, list[np.ndarray]]:
    """Return the layers of one entry of the file: the entry itself, or the layers of a model within the model."""
    entry = _child(group, name, h5py.Group)
    weights = _names(entry, "weight_names")
    layers = [_layer_of(weight, wanted) or name for weight in weights]
    if name in wanted or (len(set(layers)) == 1 and layers[0] not in wanted):
        layers = [name] * len(weights)
    found: dict[str, list[np.ndarray]] = {}
    for layer, weight in zip(layers, weights, strict=True):
        found.setdefault(layer, []).append(np.asarray(_child(entry, weight, h5py.Dataset)[()]))
    return found


def _layer_of(weight: str, wanted: Collection[str]) -> str:
    """Return the layer's name from that of a weight, such as resnet50/conv1/kernel:0; "" if it has none."""
    parts = weight.split("/")[:-1]
    names = ["/".join(parts[start:]) for start in range(len(parts))]  # a layer's name may contain slashes
    return next((name for name in names if name in wanted), "".join(parts[-1:]))


def _weights_group(file: h5py.File) -> h5py.Group | None:
    """Return the group of the layers: the file itself, or `model_weights` of a whole model; None without either."""
    for name in ("", "model_weights"):
        if not name or name in file:
            group = _child(file, name, h5py.Group) if name else file
            if "layer_names" in group.attrs or "layer_names0" in group.attrs:
                return group
    return None


def _names(group: h5py.Group, key: str) -> list[str]:
    """Return a list of names, which Keras splits into key0, key1 ... if it is too long for one attribute."""
    keys = [key]
    if key not in group.attrs:
        keys = list(takewhile(group.attrs.__contains__, (f"{key}{number}" for number in count())))
    names: list[str] = []
    left = safe_hdf5.MOST_ATTRIBUTE_BYTES  # for all attributes together: each could be the same long text
    for each in keys:
        listed = np.ravel(group.attrs[each])
        if len(names) + len(listed) > safe_hdf5.MOST_OBJECTS:
            raise ValueError(f"{key} of {group.name} has more than {safe_hdf5.MOST_OBJECTS} names")
        for name in listed:
            text = name.decode("utf-8") if isinstance(name, bytes) else name
            if not isinstance(text, str):
                raise ValueError(f"{key} of {group.name} is not a list of names")
            if (left := left - len(text)) < 0:
                raise ValueError(f"{key} of {group.name} is longer than {safe_hdf5.MOST_ATTRIBUTE_BYTES} bytes")
            names.append(text)
    if len(set(names)) < len(names):  # the same large array could be read again and again
        raise ValueError(f"{key} of {group.name} has a name twice")
    return names


def _child(group: h5py.Group, name: str, kind: type) -> Any:
    """Return what lies under a name such as `conv1/kernel:0`."""
    child = group
    for part in name.split("/"):  # h5py would look up a name that begins with a slash from the root
        if not part or not isinstance(child, h5py.Group) or part not in child:
            raise KeyError(f"{name} in {group.name} is missing")
        child = child[part]
    if not isinstance(child, kind):
        raise ValueError(f"{name} in {group.name} is not a {kind.__name__.lower()}")
    return child
