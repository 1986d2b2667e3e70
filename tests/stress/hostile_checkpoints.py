"""Checkpoints of a run that is to be continued, whose manifest is true."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from good_inputs import Arguments, Good, Make, config, write_yaml
from hostile_code import Payload, payload


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
