"""Inputs that every command takes, and the commands on them, which hostile inputs are compared with."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

SIDE = 32  # pixels of the good images

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


def classify_from(path: Path, good: Good, out: Path) -> Arguments:
    return [
        *("--config", good.root / "classify.yaml", "--workdir", out / "run"),
        *("--set", f"checkpoints.load={path}"),
    ]
