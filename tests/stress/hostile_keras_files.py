"""Files of Keras 2 and Keras 3 that strangers could send to `classify`."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from good_inputs import Arguments, Good, Make, classify_from
from hostile_code import code
from hostile_weights import KERNEL, keras_archive


def legacy(change: Callable[[Good, h5py.File], None]) -> Make:
    """A Keras 2 file of one layer."""

    def make(good: Good, folder: Path, out: Path) -> Arguments:
        with h5py.File(folder / "x.h5", "w") as file:
            file.attrs["layer_names"] = ["conv1_conv"]
            file.attrs["model_config"] = json.dumps({"class_name": "Lambda", "config": {"function": code(good)}})
            file["conv1_conv/w"] = np.ones(3, np.float32)
            file["conv1_conv"].attrs["weight_names"] = ["w"]
            change(good, file)
        return classify_from(folder / "x.h5", good, out)

    return make


def relinked(good: Good, file: h5py.File) -> None:
    del file["conv1_conv/w"]
    file["conv1_conv/w"] = h5py.ExternalLink(good.weights, KERNEL)


def hollow(good: Good, file: h5py.File) -> None:
    del file["conv1_conv/w"]
    file.create_dataset("conv1_conv/w", (2**40,), "f4", chunks=(2**10,))


def many_times(good: Good, file: h5py.File) -> None:
    """An array of 1 MB, to be read 10,000 times."""
    del file["conv1_conv/w"]
    file["conv1_conv/w"] = np.ones(2**18, np.float32)
    file["conv1_conv"].attrs["weight_names"] = np.full(10_000, b"w")


def one_text(good: Good, folder: Path, out: Path) -> Arguments:
    """3000 names, each a reference to the same text of 60 kB."""
    names = ["x" * 60_000, *["y"] * 2999]
    arguments = legacy(lambda good, file: file.attrs.__setitem__("layer_names", names))(good, folder, out)
    contents = (folder / "x.h5").read_bytes()
    at = contents.index(struct.pack("<I", 60_000))
    references = contents[at : at + 16] * len(names)
    (folder / "x.h5").write_bytes(contents[:at] + references + contents[at + len(references) :])
    return arguments


LEGACY = {
    "external link": legacy(relinked),
    "array that claims terabytes": legacy(hollow),
    "names beyond number": legacy(lambda good, file: file.attrs.__setitem__("layer_names", ["x" * 60] * 1000)),
    "3000 names that are one text": one_text,
    "an array that is named again and again": legacy(many_times),
}


def keras_file(change: Callable[[Good, zipfile.ZipFile], None]) -> Make:
    """A `.keras` file of the good weights, with more members or others."""

    def make(good: Good, folder: Path, out: Path) -> Arguments:
        path = folder / "x.keras"
        path.write_bytes(keras_archive(good))
        with zipfile.ZipFile(path, "a") as archive:
            change(good, archive)
        return classify_from(path, good, out)

    return make


def add_link(good: Good, archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("assets/x")
    info.external_attr = 0o120777 << 16
    archive.writestr(info, str(good.weights))


def claim_exabytes(good: Good, archive: zipfile.ZipFile) -> None:
    archive.getinfo("model.weights.h5").file_size = 2**60
    archive.comment = b"so that the directory is written"


def compress(good: Good, archive: zipfile.ZipFile) -> None:
    archive.writestr("assets/x", bytes(2**28), zipfile.ZIP_DEFLATED)


KERAS_FILES = {  # with the exit code: what is only described is no reason to refuse
    "code in its description": (keras_file(lambda good, archive: None), 0),
    "link": (keras_file(add_link), 2),
    "path that climbs": (keras_file(lambda good, archive: archive.writestr("../../canaries/x", b"x")), 2),
    "weights of exabytes": (keras_file(claim_exabytes), 2),
    "bomb": (keras_file(compress), 2),
}
