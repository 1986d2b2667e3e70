"""Write predictions: an HDF5 data set for each sample, and a PNG file for each predicted image."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import h5py
import numpy as np
from PIL import Image

from tfinpaint.layout import PREDICTIONS, PREDICTIONS_TABLE, RMLDNN_PREDICTIONS
from tfinpaint.storage.atomic import atomic_file, write_csv
from tfinpaint.storage.hdf5_output import HDF5Output, new_hdf5
from tfinpaint.storage.write_errors import naming_file
from tfinpaint.system.activity import reporting_activity


def picture_names(paths: Sequence[str]) -> dict[str, str]:
    """Return the PNG file of each sample: its path with another suffix, or with one more if two could be equal."""
    short = {path: PurePosixPath(path).with_suffix(".png").as_posix() for path in paths}
    users = Counter([*short.values(), *(f"{path}.png" for path in paths)])
    return {path: name if users[name] == 1 else f"{path}.png" for path, name in short.items()}


class PredictionsPart:
    """A writer of one rank's predictions: PNG files, and a part of the HDF5 file of `merge_predictions`."""

    def __init__(
        self, folder: Path, rank: int, names: Mapping[str, str], *, classes: bool, channels_first: bool = False
    ) -> None:
        """Create the part.

        Args:
            folder: the folder of predictions.
            rank: the number of this rank.
            names: sample -> PNG file, from `picture_names`.
            classes: whether the channels of an output are scores of classes, so that the picture shows the best class.
            channels_first: whether data sets are [channels, height, width].
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._names, self._classes, self._channels_first = folder, names, classes, channels_first
        self._output = HDF5Output(_part(folder, rank))
        self._file = h5py.File(self._output, "w")

    def add(self, path: str, output: np.ndarray) -> None:
        """Write one sample's output.

        Args:
            path: the sample's path, relative to the root of its data set; it names the HDF5 data set.
            output: float [height, width, channels]; or [classes], without a picture.

        Raises:
            OSError: The output cannot be written.
        """
        values = output.transpose(2, 0, 1) if self._channels_first and output.ndim == 3 else output
        self._file[os.fsencode(path)] = values  # file names need not be text
        self._output.check()
        picture = prediction_image(output, self._classes)
        if picture:
            target, contents = self._folder / self._names[path], io.BytesIO()
            picture.save(contents, "PNG")  # to a file, Pillow would not report why it cannot write
            with naming_file(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(contents.getvalue())

    def close(self) -> None:
        """Close the part.

        Raises:
            OSError: Not all of it could be written.
        """
        self._file.close()
        self._output.close()
        self._output.check()


def prediction_image(output: np.ndarray, classes: bool) -> Image.Image | None:
    """Return the picture of an output: values clipped to 0 and 1, as grey or RGB; or the best class of each pixel.

    Returns:
        None if the output is not an image, or has a number of channels that cannot be shown.
    """
    if output.ndim == 3 and classes and output.shape[2] > 1:
        return Image.fromarray(output.argmax(axis=2).astype(np.uint8))
    if output.ndim != 3 or output.shape[2] not in (1, 3):
        return None
    pixels = np.rint(np.clip(output, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if output.shape[2] == 1 else pixels)


def merge_predictions(folder: Path, ranks: int, name: str = PREDICTIONS, *, classes: Sequence[str] = ()) -> Path:
    """Merge the parts of all ranks into one HDF5 file, which appears whole or not at all, and delete the parts.

    Args:
        name: the name of the file.
        classes: a classifier's class names, in the order of its outputs, for the file's attribute "classes".

    Returns:
        The path of the file.

    Raises:
        OSError: The file cannot be written.
    """
    path = folder / name
    versions = ("v108", "v110")  # older versions hold at most 64 KiB of class names
    with (
        atomic_file(path) as partial,
        new_hdf5(partial) as output,
        h5py.File(output, "w", libver=versions) as whole,
    ):
        if classes:
            whole.attrs.create("classes", list(classes), dtype=h5py.string_dtype())
        for rank in range(ranks):
            with h5py.File(_part(folder, rank), "r") as part:
                part.visititems(lambda name, item: _copy(item, whole, name, output))
    remove_prediction_parts(folder)
    return path


def remove_prediction_parts(folder: Path) -> None:
    """Delete the parts of all ranks, including those that a run with more ranks may have left."""
    for part in (*folder.glob(f".{PREDICTIONS}.*"), folder / f".{RMLDNN_PREDICTIONS}.partial"):
        part.unlink(missing_ok=True)


def _copy(item: h5py.Dataset | h5py.Group, whole: h5py.File, name: str, output: HDF5Output) -> None:
    if isinstance(item, h5py.Dataset):
        whole[name] = item[()]
        output.check()


def _part(folder: Path, rank: int) -> Path:
    return folder / f".{PREDICTIONS}.{rank}"


def write_prediction_table(merged: Path, paths: Sequence[str], classes: Sequence[str]) -> None:
    """Write a CSV file beside the merged file, with the most probable class of each image and its probability."""
    lines = [("image", "class", "probability")]
    with h5py.File(merged, "r") as file:
        for path in reporting_activity(paths):
            probabilities = file[os.fsencode(path)][()]
            best = int(probabilities.argmax())
            lines.append((path, classes[best], f"{probabilities[best]:.6f}"))
    write_csv(merged.with_name(PREDICTIONS_TABLE), lines)
