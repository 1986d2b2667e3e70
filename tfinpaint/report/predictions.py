"""Predictions on disk: an HDF5 data set per sample, and a PNG file per predicted image."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from tfinpaint.files import write_text

HDF5, TABLE = "predictions.h5", "predictions.csv"


class PredictionsPart:
    """The predictions of one rank's share: PNG files, and a part of the HDF5 file that `merge` puts together."""

    def __init__(self, folder: Path, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = h5py.File(_part(folder, rank), "w")

    def add(self, path: str, output: np.ndarray) -> None:
        """Write one sample's output.

        Args:
            path: of the sample, relative to its data set's root; it names the data set in the file.
            output: float [height, width, channels], 0 to 1, or, of more than three channels, scores of a class per
                channel; or float [classes].
        """
        self._file[path] = output
        if output.ndim == 3:
            target = self._folder / (path if path.lower().endswith(".png") else f"{path}.png")
            target.parent.mkdir(parents=True, exist_ok=True)
            as_image(output).save(target)

    def close(self) -> None:
        self._file.close()


def as_image(output: np.ndarray) -> Image.Image:
    """The picture of an output: grey or RGB of 0 to 1, clipped; or the index of the highest score."""
    if output.shape[2] not in (1, 3):
        return Image.fromarray(output.argmax(axis=2).astype(np.uint8))
    pixels = np.rint(np.clip(output, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if output.shape[2] == 1 else pixels)


def merge(folder: Path, ranks: int) -> Path:
    """Put the parts of all ranks into one HDF5 file, and remove them."""
    path = folder / HDF5
    with h5py.File(path, "w") as whole:
        for rank in range(ranks):
            with h5py.File(_part(folder, rank), "r") as part:
                part.visititems(lambda name, item: _copy(item, whole, name))
    for rank in range(ranks):
        _part(folder, rank).unlink()
    return path


def _copy(item: h5py.Dataset | h5py.Group, whole: h5py.File, name: str) -> None:
    if isinstance(item, h5py.Dataset):
        whole[name] = item[()]


def _part(folder: Path, rank: int) -> Path:
    return folder / f".{HDF5}.{rank}"


def write_table(folder: Path, paths: Sequence[str], classes: Sequence[str]) -> None:
    """predictions.csv from the merged file: image, most probable class, its probability."""
    lines = [("image", "class", "probability")]
    with h5py.File(folder / HDF5, "r") as file:
        for path in paths:
            probabilities = file[path][()]
            best = int(probabilities.argmax())
            lines.append((path, classes[best], f"{probabilities[best]:.6f}"))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(folder / TABLE, text.getvalue())
