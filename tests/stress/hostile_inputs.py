"""Give every command what a stranger could send: archives, images, configurations, networks, checkpoints, records.

Each input goes to the command that it belongs to, in a process of its own, beside the same command on good input. It
must be refused (or, one bad image among good ones, left out) in words that name the file; nothing may be run or written
elsewhere, and no more than 1.3 times the memory be taken.

usage: python tests/stress/hostile_inputs.py FOLDER [--only WORD ...]    prints a table; ends with 1 where one gets through
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import numpy as np
import yaml
from PIL import Image

SIDE = 32  # pixels of the good images
MEMORY_FACTOR = 1.3
TIMEOUT_SECONDS = 120
PROCESSES = 2

Arguments = list["str | Path"]


@dataclass(frozen=True)
class Good:
    """Inputs that every command takes."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        return self.root / name

    @property
    def weights(self) -> Path:
        return self.root / "run" / "model_checkpoints" / "model_checkpoint_1" / "model.weights.h5"

    @property
    def canaries(self) -> Path:
        """Where code that is run leaves a file."""
        return self.root.parent / "canaries"


Make = Callable[[Good, Path, Path], Arguments]  # (good inputs, folder for this one, folder to write to) -> arguments


@dataclass(frozen=True)
class Case:
    """An input.

    Attributes:
        command: of tfinpaint.
        named: what the message must name.
        ends: exit codes that are right; 0 where the rest of the input is used.
        normal: which good run its memory is compared with.
    """

    name: str
    command: str
    normal: str
    make: Make
    named: str
    ends: tuple[int, ...] = (2,)


@dataclass
class Result:
    name: str
    command: str
    code: int
    peak_mb: float
    text: str
    problems: list[str] = field(default_factory=list)

    def message(self, named: str) -> str:
        lines = [line for line in self.text.splitlines() if line.startswith("error:") or named in line]
        return lines[0] if lines else (self.text.splitlines() or [""])[-1]


# Good inputs, and the commands on them.


def write_good(root: Path) -> Good:
    good, generator = Good(root), np.random.default_rng(0)
    for name in ("a", "b"):
        (good.images / name).mkdir(parents=True)
        for number in range(8):
            pixels = generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(pixels).save(good.images / name / f"{number}.png")
    shutil.copy(good.images / "a" / "0.png", root / "photo.png")
    hole = np.zeros((SIDE, SIDE), np.uint8)
    hole[8:16, 8:16] = 255
    Image.fromarray(hole).save(root / "mask.png")
    with zipfile.ZipFile(root / "archive.zip", "w") as archive:
        for path in sorted(good.images.rglob("*.png")):
            archive.write(path, path.relative_to(good.images))
    write_yaml(root / "pretrain.yaml", config(good, "pretrain"))
    write_yaml(root / "classify.yaml", config(good, "classify"))
    good.canaries.mkdir()
    ghostscript = root / "bin" / "gs"  # Pillow gives it what looks like PostScript, where it is installed
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {good.canaries}/ghostscript\nexit 1\n")
    ghostscript.chmod(0o755)
    return good


def write_yaml(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(document))
    return path


def config(good: Good, task: str, **changes: Any) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"resize": [SIDE, SIDE]}]
    if task == "pretrain":
        steps.append({"random_patches": {"number": 2, "size": 8}})
    data = {"input_path": str(good.images), "batch_size": 8, "transforms": steps}
    model = {"encoder": "tiny", "batchnorm_batches": 0}
    return {"num_epochs": 1, "steps_per_epoch": 1, "data": data, "model": model, **changes}


def predict(good: Good, out: Path, checkpoint: Path, photo: Path | None = None, mask: Path | None = None) -> Arguments:
    return [
        checkpoint,
        photo or good.root / "photo.png",
        mask or good.root / "mask.png",
        "--output",
        out / "restored.png",
    ]


NORMAL: dict[str, tuple[str, Make]] = {
    "prepare": ("prepare", lambda good, _, out: [good.root / "archive.zip", out / "dest"]),
    "records": ("prepare", lambda good, _, out: [good.images, good.records, "--records", "--no-split"]),
    "pretrain": ("pretrain", lambda good, _, out: ["--config", good.root / "pretrain.yaml", "--workdir", good.run]),
    "verify": ("prepare", lambda good, _, out: ["--verify", good.records]),
    "preview": (
        "preview",
        lambda good, _, out: ["--config", good.root / "pretrain.yaml", "--output", out / "preview.png"],
    ),
    "predict": ("predict", lambda good, _, out: predict(good, out, good.weights)),
    "classify": (
        "classify",
        lambda good, _, out: [
            *("--config", good.root / "classify.yaml", "--workdir", out / "run"),
            *("--set", f"checkpoints.load={good.weights.with_name('encoder.weights.h5')}"),
        ],
    ),
}


# Archives.


def archive_with(change: Callable[[zipfile.ZipFile], None]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        path = Path(shutil.copy(good.root / "archive.zip", folder / "x.zip"))
        with zipfile.ZipFile(path, "a") as archive:
            change(archive)
        return [path, out / "dest"]

    return make


def member(
    name: str = "a/x.png", contents: bytes = b"x", mode: int = 0, method: int = zipfile.ZIP_DEFLATED, **changed: int
) -> Make:
    """One member more; `changed` fields lie in the archive's directory."""

    def change(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, method
        archive.writestr(info, contents)
        for key, value in changed.items():
            setattr(archive.getinfo(name), key, value)

    return archive_with(change)


def overlapping(archive: zipfile.ZipFile) -> None:
    for info in archive.infolist()[1:]:
        info.header_offset = archive.infolist()[0].header_offset
    archive.comment = b"so that the directory is written"


def archive_of(contents: Callable[[bytes], bytes]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        (folder / "x.zip").write_bytes(contents((good.root / "archive.zip").read_bytes()))
        return [folder / "x.zip", out / "dest"]

    return make


def nested() -> bytes:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.png", bytes(2**22))
    return inner.getvalue()


def spoil_directory(contents: bytes) -> bytes:
    return contents.replace(b"PK\1\2", b"PK\1\3", 1)


BYTES_64MB = bytes(2**26)
ARCHIVES = {
    "path that climbs": member("../../../../canaries/x.png"),
    "absolute path": member("/canaries/a/x.png"),
    "backslashes": member("..\\..\\a\\x.png"),
    "drive letter": member("C:\\a\\x.png"),
    "symbolic link": member(contents=b"/etc/passwd", mode=0o120777),
    "device": member(mode=0o020666),
    "encrypted": member(flag_bits=1),
    "LZMA": member(method=zipfile.ZIP_LZMA, contents=bytes(2**20)),
    "bomb": member(contents=bytes(2**27)),
    "overlapping members": archive_with(overlapping),
    "name twice": member("a//0.png"),
    "terminal codes in a name": member("a/\x1b]0;x\a.png"),
    "exabytes, zip64": member(file_size=2**60, compress_size=2**60),
    "cut in half": archive_of(lambda contents: contents[: len(contents) // 2]),
    "spoilt directory": archive_of(spoil_directory),
    "end of another archive": archive_of(lambda contents: contents[-22:]),
    "text": archive_of(lambda _: b"no archive"),
}
LEFT_OUT = {
    "offset beyond the end": member(header_offset=2**40),
    "member larger than said": member(contents=BYTES_64MB, file_size=64, CRC=zlib.crc32(bytes(64))),
    "archive for an image": member(contents=nested()),
    "wrong checksum": member(CRC=1),
}


# Images.


def png(
    width: int, height: int, chunks: Sequence[tuple[bytes, bytes]] = (), data: bytes = b"", is_bilevel: bool = False
) -> bytes:
    depth, colour = (1, 0) if is_bilevel else (8, 2)
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    parts = [header, *chunks, (b"IDAT", zlib.compress(data, 9)), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def jpeg(side: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (side, side), (9, 8, 7)).save(written, "JPEG")
    return written.getvalue()


def eps(canary: Path) -> bytes:
    return (
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n({canary}) (w) file closefile\nshowpage\n%%EOF\n".encode()
    )


def tiff(tags: dict[int, int], data: bytes = b"") -> bytes:
    """A grey TIFF file, whose directory begins at byte 8."""
    tags = dict(sorted(({258: 8, 262: 1, 277: 1} | tags).items()))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + data


def wide_tiff() -> bytes:
    return tiff({256: 2**31 - 1, 257: 2**31 - 1, 273: 8, 279: 1})


def tiled_tiff(width: int, height: int) -> bytes:
    """An image of 16 x 16 pixels that is the corner of one tile."""
    packing = zlib.compressobj(9)
    data = b"".join(packing.compress(bytes(width)) for _ in range(height)) + packing.flush()
    tags = {256: 16, 257: 16, 259: 8, 322: width, 323: height, 324: 0, 325: len(data)}
    tags[324] = len(tiff(tags))
    return tiff(tags, data)


IMAGES: dict[str, Callable[[Good], bytes]] = {
    "PNG of 2.5 gigapixels": lambda good: png(50_000, 50_000, data=bytes(2**20)),
    "PNG of 300 megapixels in 37 kB": lambda good: png(
        20_000, 15_000, data=bytes(15_000 * (1 + 20_000 // 8)), is_bilevel=True
    ),
    "PNG with a text bomb": lambda good: png(
        32, 32, [(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**27), 9))], bytes(97 * 32)
    ),
    "PNG cut short": lambda good: (good.images / "a" / "0.png").read_bytes()[:500],
    "PNG without pixels": lambda good: png(32, 32),
    "JPEG cut short": lambda good: jpeg(256)[:700],
    "TIFF of exapixels": lambda good: wide_tiff(),
    "TIFF of one tile of 300 megapixels": lambda good: tiled_tiff(20_000, 15_000),
    "PostScript": lambda good: eps(good.canaries / "postscript"),
    "pickle": lambda good: payload(good.canaries / "image"),
    "empty": lambda good: b"",
}


def image_for_prepare(contents: Callable[[Good], bytes]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        shutil.copytree(good.images, folder / "images")
        (folder / "images" / "a" / "x.png").write_bytes(contents(good))
        return [folder / "images", out / "dest"]

    return make


def image_for_predict(contents: Callable[[Good], bytes]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        (folder / "x.png").write_bytes(contents(good))
        return predict(good, out, good.weights, photo=folder / "x.png")

    return make


def pipe(good: Good, folder: Path, out: Path) -> Arguments:
    shutil.copytree(good.images, folder / "images")
    os.mkfifo(folder / "images" / "a" / "x.png")
    return [folder / "images", out / "dest"]


def pipe_for(command: str) -> Make:
    """In place of the first image that a configuration names, which preview shows in any case."""

    def make(good: Good, folder: Path, out: Path) -> Arguments:
        images = Path(shutil.copytree(good.images, folder / "images"))
        (images / "a" / "0.png").unlink()
        os.mkfifo(images / "a" / "0.png")
        document = config(good, "pretrain" if command == "preview" else command)
        document["data"]["input_path"] = str(images)
        to: Arguments = ["--output", out / "preview.png"] if command == "preview" else ["--workdir", out / "run"]
        return ["--config", write_yaml(folder / "c.yaml", document), *to]

    return make


def endless(good: Good, folder: Path, out: Path) -> Arguments:
    shutil.copytree(good.images, folder / "images")
    (folder / "images" / "a" / "x.png").symlink_to("/dev/zero")
    return [folder / "images", out / "dest"]


# Configurations and network files.


def aliases() -> str:
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)]
    return "a0: &a0 [x, x]\n" + "".join(lines)


CONFIGS: dict[str, Callable[[Good], str | bytes]] = {
    "aliases of aliases": lambda good: aliases(),
    "alias of itself": lambda good: "layers: &a [*a]\n",
    "Python object": lambda good: f"seed: !!python/object/apply:os.system ['touch {good.canaries}/yaml']\n",
    "number of a million digits": lambda good: "seed: " + "1:" * 500_000 + "1",
    "100,000 levels": lambda good: "layers: " + "[" * 100_000,
    "5 MiB": lambda good: "#" * (5 * 2**20),
    "null character": lambda good: "seed: 1\0\n",
    "UTF-16": lambda good: "seed: 1\n".encode("utf-16"),
    "a key twice": lambda good: "seed: 1\nseed: 2\n",
    "list for a key": lambda good: "? [seed]\n: 1\n",
    "images of 10^9 pixels a side": lambda good: "data: {transforms: [{resize: [1000000000, 1000000000]}]}\n",
}


def configuration(contents: Callable[[Good], str | bytes]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        text = contents(good)
        (folder / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["--config", folder / "x.yaml", "--output", out / "preview.png"]

    return make


def layer(name: str, *inputs: str, **settings: Any) -> dict[str, Any]:
    node = [[[each, 0, 0] for each in inputs]] if inputs else []
    return {"class_name": name, "name": name.lower(), "config": settings, "inbound_nodes": node}


def network(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"layers": [layer("InputLayer", batch_shape=[None, SIDE, SIDE, 3]), *layers]}


def system(good: Good) -> dict[str, Any]:
    return {
        "module": "os",
        "class_name": "system",
        "config": f"touch {good.canaries}/network",
        "registered_name": "os>system",
    }


def code(good: Good) -> dict[str, Any]:
    return {"class_name": "__lambda__", "config": {"code": f"open({str(good.canaries / 'lambda')!r}, 'w')"}}


NETWORKS: dict[str, Callable[[Good], Any]] = {
    "10^9 units": lambda good: network(layer("Dense", "inputlayer", units=10**9)),
    "kernel of terabytes": lambda good: network(
        layer("Conv2D", "inputlayer", filters=3, kernel_size=10**6, padding="same")
    ),
    "images of terapixels": lambda good: network(layer("UpSampling2D", "inputlayer", size=[10**6, 10**6])),
    "100,000 layers": lambda good: [layer("ReLU")] * 100_000,
    "Lambda": lambda good: network(layer("Lambda", "inputlayer", function=code(good))),
    "function for a class": lambda good: network(
        layer("Conv2D", "inputlayer", filters=3, kernel_size=1, kernel_initializer=system(good))
    ),
    "network within a network": lambda good: network(layer("Functional", "inputlayer", **network())),
    "layer that takes its own output": lambda good: network(layer("ReLU", "relu")),
    "levels": lambda good: "[" * 200_000,
    "8 MiB": lambda good: "[" + "{}," * 2_700_000 + "{}]",
}


def network_file(contents: Callable[[Good], Any]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        document = contents(good)
        (folder / "x.json").write_text(document if isinstance(document, str) else json.dumps(document))
        path = write_yaml(folder / "c.yaml", config(good, "pretrain", layers="x.json"))
        return ["--config", path, "--workdir", out / "run"]

    return make


# Checkpoints.


class Payload:
    """What a pickle runs when it is opened."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def payload(canary: Path) -> bytes:
    return pickle.dumps(Payload(canary))


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


def classify_from(path: Path, good: Good, out: Path) -> Arguments:
    return [
        *("--config", good.root / "classify.yaml", "--workdir", out / "run"),
        *("--set", f"checkpoints.load={path}"),
    ]


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


# Checkpoints of a run that is to go on, whose manifest is true.


def resumed(name: str, write: Callable[[Good, Path], None]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        import hashlib

        shutil.copytree(good.run, out / "run")
        checkpoint = out / "run" / "model_checkpoints" / "model_checkpoint_1"
        write(good, checkpoint / name)
        manifest = checkpoint / "manifest.json"
        files = json.loads(manifest.read_text())["files"]
        if (checkpoint / name).is_file():
            contents = (checkpoint / name).read_bytes()
            files[name] = {"bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
        else:
            files[name] = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
        manifest.write_text(json.dumps({"files": files}))
        path = write_yaml(folder / "c.yaml", config(good, "pretrain", num_epochs=2))
        return ["--config", path, "--workdir", out / "run", "--resume"]

    return make


def pickled_state(good: Good, path: Path) -> None:
    with np.load(path, allow_pickle=False) as stored:
        found = dict(stored)
    np.savez(path, **{**found, "0": np.array(Payload(good.canaries / "optimizer"), object)})


def claiming_state(good: Good, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, archive.open("0.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**20)})


def many_records(good: Good, path: Path) -> None:
    path.write_text('{"records": [' + "{}," * 2**23 + "{}]}")


def climbing_records(good: Good, path: Path) -> None:
    progress = json.loads(path.read_text())
    progress["records"][0]["phase"] = "../../../elsewhere"
    path.write_text(json.dumps(progress))


RESUMED = {  # with the file
    "optimizer with a pickle in it": ("optimizer.npz", pickled_state),
    "optimizer that claims terabytes": ("optimizer.npz", claiming_state),
    "optimizer that is a pickle": (
        "optimizer.npz",
        lambda good, path: path.write_bytes(payload(good.canaries / "state")),
    ),
    "half of an optimizer": (
        "optimizer.npz",
        lambda good, path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    ),
    "millions of records": ("progress.json", many_records),
    "records that climb out": ("progress.json", climbing_records),
    "pipe": ("x.pipe", lambda good, path: os.mkfifo(path)),
}


# Records.


def records(change: Callable[[Good, Path, dict[str, Any]], None]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        shutil.copytree(good.records, folder / "packed")
        index = folder / "packed" / "records.json"
        contents = json.loads(index.read_text())
        change(good, folder / "packed", contents)
        index.write_text(json.dumps(contents))
        return ["--verify", folder / "packed"]

    return make


def other_array(name: str, array: bytes) -> Make:
    """Another file in place of one of the index, with the right checksum."""

    def change(good: Good, folder: Path, contents: dict[str, Any]) -> None:
        import hashlib

        (folder / name).write_bytes(array)
        contents["arrays"][name] = {"bytes": len(array), "sha256": hashlib.sha256(array).hexdigest()}

    return records(change)


def npy(array: np.ndarray, **changes: Any) -> bytes:
    written = io.BytesIO()
    np.lib.format.write_array_header_1_0(written, np.lib.format.header_data_from_array_1_0(array) | changes)
    return written.getvalue() + array.tobytes()


def leading_out(good: Good, folder: Path, contents: dict[str, Any]) -> None:
    contents["shards"][0]["name"] = "../../../../../etc/passwd"


def other_count(good: Good, folder: Path, contents: dict[str, Any]) -> None:
    contents["images"] = contents["shards"][0]["images"] = 2**31


def pickled_names(good: Good, folder: Path, contents: dict[str, Any]) -> None:
    import hashlib

    written = io.BytesIO()
    np.save(written, np.array([Payload(good.canaries / "names")], object), allow_pickle=True)
    (folder / "names.npy").write_bytes(written.getvalue())
    digest = hashlib.sha256(written.getvalue()).hexdigest()
    contents["arrays"]["names.npy"] = {"bytes": len(written.getvalue()), "sha256": digest}


def spoilt(good: Good, folder: Path, contents: dict[str, Any]) -> None:
    (folder / contents["shards"][0]["name"]).write_bytes(b"x")


RECORDS = {  # with the file that is to be named
    "shard elsewhere": (records(leading_out), "packed/records.json"),
    "more images than there are": (records(other_count), "packed/records.json"),
    "names that are a pickle": (records(pickled_names), "packed/names.npy"),
    "names that claim terabytes": (
        other_array("names.npy", npy(np.zeros(8, np.uint8), shape=(2**42,))),
        "packed/names.npy",
    ),
    "places that are no places": (other_array("places.npy", npy(np.zeros(8, "<u8"))), "packed/places.npy"),
    "starts beyond the names": (
        other_array("name_starts.npy", npy(np.array([0, 2**60], "<u8"))),
        "packed/records.json",
    ),
    "spoilt shard": (records(spoilt), "packed/images-00000-of-00001.tfrecord"),
}


def cases() -> Iterator[Case]:
    for name, make in ARCHIVES.items():
        yield Case(f"archive: {name}", "prepare", "prepare", make, "x.zip")
    for name, make in LEFT_OUT.items():
        yield Case(f"archive: {name}", "prepare", "prepare", make, "x.png", (0,))
    yield Case("folder: pipe", "prepare", "prepare", pipe, "x.png", (0,))
    for command in ("preview", "pretrain", "classify"):
        yield Case(f"images: pipe, {command}", command, command, pipe_for(command), "a/0.png")
    yield Case("folder: endless device", "prepare", "prepare", endless, "x.png", (0,))
    for name, contents in IMAGES.items():
        yield Case(f"image: {name}", "prepare", "prepare", image_for_prepare(contents), "x.png", (0,))
        yield Case(f"photo: {name}", "predict", "predict", image_for_predict(contents), "x.png")
    for name, text in CONFIGS.items():
        yield Case(f"configuration: {name}", "preview", "preview", configuration(text), "x.yaml")
    for name, document in NETWORKS.items():
        yield Case(f"network: {name}", "pretrain", "pretrain", network_file(document), "x.json")
    for name, make in CHECKPOINTS.items():
        yield Case(f"checkpoint: {name}", "predict", "predict", make, "x.")
    for seed in range(4):  # what is hit may be a weight, which no one can tell
        yield Case(f"checkpoint: bits flipped, {seed}", "predict", "predict", raw_weights(flipped(seed)), "", (0, 2))
    for name, make in LEGACY.items():
        yield Case(f"Keras 2 weights: {name}", "classify", "classify", make, "x.h5")
    for name, (make, ends) in KERAS_FILES.items():
        yield Case(f"Keras file: {name}", "classify", "classify", make, "x.keras", (ends,))
    for name, (file, write) in RESUMED.items():
        yield Case(f"resumed: {name}", "pretrain", "pretrain", resumed(file, write), file)
    for name, (make, named) in RECORDS.items():
        yield Case(f"records: {name}", "prepare", "verify", make, named)


# Running them.


def start(good: Good, command: str, arguments: Arguments, out: Path) -> int:
    """Run a command in a process of its own, which has all modules loaded already. Returns its number."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(TIMEOUT_SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (2**35, 2**35))
        with (out / ".text").open("w") as text:
            os.dup2(text.fileno(), 1)
            os.dup2(text.fileno(), 2)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        os.chdir(out)
        os.environ["XDG_CACHE_HOME"] = str(out / ".cache")
        os.environ["PATH"] = f"{good.root / 'bin'}:{os.environ['PATH']}"
        code = importlib.import_module(f"tfinpaint.{command}").main([str(each) for each in arguments])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(pid: int, name: str, command: str, out: Path) -> Result:
    _, status, usage = os.wait4(pid, 0)
    text = (out / ".text").read_text(errors="replace")
    return Result(name, command, os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024, text)


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file but those in folders that commands may write to."""
    found = {}
    for folder, subfolders, files in os.walk(root):
        if Path(folder) == root / "out":
            subfolders.clear()
            continue
        for file in files:
            status = (Path(folder) / file).lstat()
            found[str(Path(folder, file).relative_to(root))] = (status.st_size, status.st_mtime_ns)
    return found


def judge(result: Result, case: Case, normal: Result, good: Good) -> None:
    if result.code not in case.ends:
        result.problems.append(f"ended with {result.code}")
    if "Traceback" in result.text:
        result.problems.append("traceback")
    if case.named not in result.text or not result.text.strip():
        result.problems.append(f"does not name {case.named}")
    if result.peak_mb > MEMORY_FACTOR * normal.peak_mb:
        result.problems.append(f"{result.peak_mb / normal.peak_mb:.1f} times the memory")
    for canary in good.canaries.iterdir():
        result.problems.append(f"code was run: {canary.name}")
        canary.unlink()  # it counts once, with two processes perhaps for the one beside


def run(root: Path, words: Sequence[str]) -> tuple[dict[str, Result], list[tuple[Case, Result]], list[str]]:
    """(good runs, every case with its result, files that were written where nothing may be written)."""
    for command in ("prepare", "predict", "pretrain", "classify", "preview"):
        importlib.import_module(f"tfinpaint.{command}")
    importlib.import_module("tensorflow")
    for module in (
        "data.ingest.copy",
        "data.records.writer",
        "runs.session",
        "runs.predictions",
        "runs.pictures",
        "report.html",
    ):
        importlib.import_module(f"tfinpaint.{module}")
    root.mkdir(parents=True)
    good = write_good(root / "good")
    normal: dict[str, Result] = {}
    chosen = [case for case in cases() if any(word in case.name for word in words)]
    needed = {case.normal for case in chosen}
    if needed & {"predict", "classify", "verify"}:  # they read the checkpoint and the records of the other good runs
        needed = NORMAL.keys()
    for name in [name for name in NORMAL if name in needed]:
        command, make = NORMAL[name]
        out = root / "out" / f"good {name}"
        out.mkdir(parents=True)
        normal[name] = finish(start(good, command, make(good, out, out), out), name, command, out)
        if normal[name].code:
            raise SystemExit(f"{name} on good input ended with {normal[name].code}: {normal[name].text}")
    arguments, folders = {}, {}
    for number, case in enumerate(chosen):
        folder, folders[case] = root / "in" / f"{number:03}", root / "out" / f"{number:03}"
        folder.mkdir(parents=True)
        folders[case].mkdir()
        arguments[case] = case.make(good, folder, folders[case])
    before = snapshot(root)
    results, running = [], []
    for case in chosen:
        running.append((case, start(good, case.command, arguments[case], folders[case])))
        if len(running) == PROCESSES:
            results.append(end(running.pop(0), folders, normal, good))
    results += [end(each, folders, normal, good) for each in running]
    after = snapshot(root)
    return normal, results, sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def end(
    running: tuple[Case, int], folders: dict[Case, Path], normal: dict[str, Result], good: Good
) -> tuple[Case, Result]:
    case, pid = running
    result = finish(pid, case.name, case.command, folders[case])
    judge(result, case, normal[case.normal], good)
    return case, result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the inputs are made; must not exist")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="inputs whose name has one of these in it"
    )
    parsed = parser.parse_args()
    normal, results, written = run(parsed.folder.resolve(), parsed.only)
    for name, good in normal.items():
        print(f"{'        good input: ' + name:54} {good.command:9} {good.code:3} {good.peak_mb:6.0f} MB")
    for case, result in results:
        times = result.peak_mb / normal[case.normal].peak_mb
        verdict = f"FAILED  ({'; '.join(result.problems)}) " if result.problems else "ok      "
        print(
            f"{verdict}{case.name:46} {case.command:9} {result.code:3} {result.peak_mb:6.0f} MB {times:5.2f}  "
            f"{ascii(result.message(case.named))[1:160]}"
        )
    failed = [result for _, result in results if result.problems]
    elsewhere = ", ".join(written) or "nothing"
    print(f"{len(results)} inputs, {len(failed)} not as they should be; written elsewhere: {elsewhere}")
    return 1 if failed or written else 0


if __name__ == "__main__":
    sys.exit(main())
