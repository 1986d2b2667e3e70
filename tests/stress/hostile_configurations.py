"""Configurations and network files that strangers could send."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from good_inputs import SIDE, Arguments, Good, Make, config, write_yaml
from hostile_code import code, system


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
