"""Read the files of Keras 3 (`.weights.h5`, `.keras`) as plain arrays by layer.

Both hold the same HDF5 file, alone or in a zip archive with a description of the model. In it a layer lies at a path of
class names, each with its number among the layers of the same class: `layers/functional/layers/conv2d_3/vars/0`. Keras
writes a layer's name beside its weights from version 3.6 on. For older archives the description has the names.

The description is read as data: no layer is built from it, and nothing that it names is run.
"""

from __future__ import annotations

import json
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from tfinpaint.errors import UserError
from tfinpaint.models.layer_names import file_name

WEIGHTS, DESCRIPTION = "model.weights.h5", "config.json"  # members of an archive
MOST_MEMBERS = 1000  # of an archive
MOST_DESCRIPTION_BYTES = 16 * 2**20  # ResNet50's takes 100 kB
MOST_EXPANSION = 4  # of a member that another program has compressed; weights become smaller by a tenth
ARCHIVE_ERRORS = (NotImplementedError, EOFError, zipfile.BadZipFile, zlib.error)  # of zipfile, beside OSError and so on
_NO_LAYERS = ("optimizer", "metrics")  # groups of a compiled model
_LAYERS_BEFORE = "_layer_checkpoint_dependencies"  # what Keras 2.12 and 2.13 wrote for "layers"


@dataclass(frozen=True)
class StoredLayer:
    """A layer of a file, with its weights.

    Attributes:
        place: the path of its group in the file, such as `layers/functional/layers/conv2d_3`.
        name: its name in the network file; None if the file holds no names.
        weights: trainable ones first, as in Keras 3: kernel, bias; gamma, beta, moving mean, moving variance.
    """

    place: str
    name: str | None
    weights: list[np.ndarray]

    @property
    def model(self) -> str:
        """Return the place of the model that the layer belongs to."""
        return self.place.rpartition("/")[0]

    @property
    def class_and_number(self) -> tuple[str, int]:
        """Return the name of the layer's class and its number among the layers of this class in its model."""
        return _class_and_number(self.place.rpartition("/")[2])


def is_archive(path: Path) -> bool:
    """Return whether a file is expected to be an archive, by its name, as Keras itself decides it."""
    return path.suffix == ".keras" and path.is_file()


def has_layers(file: h5py.File) -> bool:
    """Return whether an open HDF5 file has weights where Keras 3 puts them."""
    return any(True for _ in _groups_with_weights(file, ""))


def read_layers(file: h5py.File, names: Mapping[str, str]) -> list[StoredLayer]:
    """Return the layers of an open HDF5 file that have weights, without optimizer and metrics.

    Args:
        names: layer names by place, from the description in an archive; used if the file itself holds none.

    Raises:
        LookupError, ValueError, TypeError: The file is damaged.
    """
    return [_layer(file[place], place, names) for place in _groups_with_weights(file, "")]


def _layer(group: h5py.Group, place: str, names: Mapping[str, str]) -> StoredLayer:
    stored = group["vars"]
    weights = [np.asarray(stored[number][()]) for number in sorted(stored, key=lambda key: (len(key), key))]
    name = str(stored.attrs["name"]) if "name" in stored.attrs else names.get(place.replace(_LAYERS_BEFORE, "layers"))
    return StoredLayer(place, file_name(name) if name else None, weights)


def _groups_with_weights(group: h5py.Group, place: str) -> Iterator[str]:
    """Yield the places of all layers with weights; layers of one class come in the order of their numbers."""
    if place and isinstance(stored := group.get("vars"), h5py.Group) and len(stored):
        yield place
    for name in sorted(group, key=_class_and_number):
        child = group[name]
        if name != "vars" and isinstance(child, h5py.Group) and (place or name not in _NO_LAYERS):
            yield from _groups_with_weights(child, f"{place}/{name}".lstrip("/"))


def _class_and_number(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+?)_(\d{1,6})", name)
    return (match[1], int(match[2])) if match else (name, 0)


def read_archive(path: Path) -> tuple[bytes, Mapping[str, str]]:
    """Return the HDF5 file in a `.keras` archive, and the layer names by place.

    Raises:
        UserError: The archive holds something that Keras does not write.
        OSError, LookupError, ValueError, TypeError, AttributeError, *ARCHIVE_ERRORS: The archive is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MOST_MEMBERS:
            raise UserError(f"{path}: holds {len(members)} files; expected a model saved by Keras")
        for info in members:
            _check_member(path, info)
        names = [info.filename for info in members]
        if names.count(WEIGHTS) != 1 or names.count(DESCRIPTION) != 1:
            raise UserError(f"{path}: holds no {WEIGHTS} and {DESCRIPTION}; expected a model saved by Keras 3")
        if archive.getinfo(DESCRIPTION).file_size > MOST_DESCRIPTION_BYTES:
            raise UserError(f"{path}: its {DESCRIPTION} is larger than {MOST_DESCRIPTION_BYTES >> 20} MiB")
        description = json.loads(archive.read(DESCRIPTION))
        return archive.read(WEIGHTS), dict(_names_by_place(description, ""))


def _check_member(path: Path, info: zipfile.ZipInfo) -> None:
    """Raise UserError for a member that Keras does not write."""
    name = info.filename
    shown = ascii(name)[:100]
    leads_elsewhere = name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts
    if stat.S_ISLNK(info.external_attr >> 16) or leads_elsewhere:
        raise UserError(f"{path}: {shown} is a link or lies outside of the archive; expected a model saved by Keras")
    if info.file_size > MOST_EXPANSION * info.compress_size + 2**20:
        raise UserError(
            f"{path}: {shown} claims {info.file_size} bytes in {info.compress_size}; expected a model saved by Keras"
        )


def _names_by_place(model: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield the place and the name of each layer in a model's description, numbered as Keras numbers them."""
    counts: Counter[str] = Counter()
    for layer in model["config"].get("layers", ()):
        kind = snake_case(str(layer["class_name"]))
        numbered = f"{kind}_{counts[kind]}" if counts[kind] else kind
        counts[kind] += 1
        if isinstance(name := layer["config"].get("name"), str):
            yield f"{place}layers/{numbered}", name
        yield from _names_by_place(layer, f"{place}layers/{numbered}/")


def snake_case(name: str) -> str:
    """Return the name of a class as Keras writes it in places: `batch_normalization` for BatchNormalization."""
    spaced = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()
