"""Files of weights that strangers could send to `predict`."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from good_inputs import Arguments, Good, Make, predict
from hostile_code import code, payload
from hostile_configurations import layer, network


def weights(change: Callable[[h5py.File], None]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        path = Path(shutil.copy(good.weights, folder / "x.weights.h5"))
        with h5py.File(path, "a") as file:
            change(file)
        return predict(good, out, path)

    return make


KERNEL = "layers/conv2d_transpose/vars/0"


def replaced(**created: Any) -> Make:
    def change(file: h5py.File) -> None:
        shape = file[KERNEL].shape
        del file[KERNEL]
        file.create_dataset(KERNEL, **{"shape": shape, "dtype": "f4", **created})

    return weights(change)


def linked(link: Any) -> Make:
    def change(file: h5py.File) -> None:
        del file[KERNEL]
        file[KERNEL] = link

    return weights(change)


def virtual(file: h5py.File) -> None:
    shape = file[KERNEL].shape
    layout = h5py.VirtualLayout(shape, np.float32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "secret", shape)
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, layout)


def ring(file: h5py.File) -> None:
    file["layers/x"] = file["layers"]


def header(**changes: Any) -> Make:
    def change(file: h5py.File) -> None:
        file.attrs["tfinpaint"] = json.dumps(json.loads(file.attrs["tfinpaint"]) | changes)

    return weights(change)


def own_network(document: Callable[[], Any]) -> Make:
    def change(file: h5py.File) -> None:
        found = json.loads(file.attrs["tfinpaint"]) | {"encoder": None, "encoder_output": None, "network": "0" * 64}
        file.attrs["tfinpaint"] = json.dumps(found)
        text = document()
        file["tfinpaint_network"] = np.frombuffer(
            (text if isinstance(text, str) else json.dumps(text)).encode(), np.uint8
        )

    return weights(change)


def raw_weights(contents: Callable[[Good], bytes], name: str = "x.weights.h5") -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        (folder / name).write_bytes(contents(good))
        return predict(good, out, folder / name)

    return make


def flipped(seed: int) -> Callable[[Good], bytes]:
    def contents(good: Good) -> bytes:
        chosen, found = random.Random(seed), bytearray(good.weights.read_bytes())  # noqa: S311 (no secret)
        for _ in range(200):
            found[chosen.randrange(len(found) // 4)] ^= 1 << chosen.randrange(8)
        return bytes(found)

    return contents


def keras_archive(good: Good) -> bytes:
    written = io.BytesIO()
    model = {
        "class_name": "Sequential",
        "config": {"layers": [{"class_name": "Lambda", "config": {"function": code(good)}}]},
    }
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("model.weights.h5", good.weights.read_bytes())
    return written.getvalue()


CHECKPOINTS = {
    "external link": linked(h5py.ExternalLink("/etc/passwd", "/")),
    "soft link": linked(h5py.SoftLink("/nowhere")),
    "numbers in another file": replaced(external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]),
    "virtual array": weights(virtual),
    "array that claims terabytes": replaced(shape=(2**20, 2**20), chunks=(2**10, 2**10)),
    "compressed array": replaced(shape=(2**14, 2**12), chunks=(2**10, 2**10), compression="gzip", fillvalue=1),
    "group within itself": weights(ring),
    "objects for numbers": replaced(dtype=h5py.ref_dtype),
    "larger array than the model's": replaced(data=np.ones((2**11, 2**11), np.float32), shape=(2**11, 2**11)),
    "header of 10^6 pixels": header(height=10**6 // 32 * 32, width=10**6 // 32 * 32),
    "header of a bottleneck of terabytes": header(height=8192, width=8192, bottleneck="channelwise"),
    "header of no channels": header(channels=-1),
    "header that names no model": header(encoder=None),
    "header that is no header": weights(lambda file: file.attrs.__setitem__("tfinpaint", "{" * 10**5)),
    "steps that resize": header(restoration={"fill": "black", "input_transforms": [{"resize": [8, 8]}]}),
    "Lambda in its network": own_network(lambda: network(layer("Lambda", "inputlayer"))),
    "10^9 units in its network": own_network(lambda: network(layer("Dense", "inputlayer", units=10**8))),
    "network that is no JSON": own_network(lambda: "[" * 10**5),
    "cut in half": raw_weights(lambda good: good.weights.read_bytes()[: good.weights.stat().st_size // 2]),
    "pickle": raw_weights(lambda good: payload(good.canaries / "weights")),
    "pickle of torch": raw_weights(lambda good: payload(good.canaries / "torch"), "x.pt"),
    "Keras archive with code": raw_weights(keras_archive, "x.keras"),
    "another name for Keras": raw_weights(lambda good: good.weights.read_bytes(), "x.keras"),
}
