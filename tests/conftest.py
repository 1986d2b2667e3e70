"""Fixtures that write small real files: folders of images, configurations for the tiny model."""

import os
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

NATURAL_IMAGES = Path(__file__).parents[2] / "shared" / "data" / "natural_images_30px.zip"


def write_images(root: Path, counts: dict[str, int], size: tuple[int, int] = (20, 24), seed: int = 0) -> Path:
    """Class folders of noisy images whose mean colour tells the class. `size` is (width, height)."""
    generator = np.random.default_rng(seed)
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        colour = np.array([40, 90, 200]) if number % 2 else np.array([220, 120, 30])
        for i in range(count):
            pixels = np.clip(colour + generator.normal(0, 25, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:03}.png")
    return root


def tree(root: Path) -> dict[str, bytes]:
    """All files below a folder, path -> contents."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def zipped(folder: Path, archive: Path, prefix: str) -> Path:
    """A zip of a folder's files, their paths preceded by `prefix`."""
    with zipfile.ZipFile(archive, "w") as file:
        for name, contents in tree(folder).items():
            file.writestr(f"{prefix}{name}", contents)
    return archive


def write_config(path: Path, task: str, data: Path, **changes: object) -> Path:
    """A configuration of the tiny model on `data/{training,testing}`; `changes` are dotted keys with _ for dots."""
    config: dict = {
        "workdir": str(path.parent / "run"),
        "num_epochs": 2,
        "data": {
            "input_path": str(data / "training"),
            "test_input_path": str(data / "testing"),
            "batch_size": 8,
            "test_batch_size": 4,
            "preload": True,
            "transforms": [{"resize": [32, 32]}],
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.01},
        "model": {"encoder": "tiny", "batchnorm_batches": 2},
    }
    if task == "pretrain":
        config["data"]["type"] = "images"
        config["data"]["transforms"].append({"random_patches": {"number": 2, "size": 8}})
        config["loss"] = {"function": "BCE"}
    else:
        config["data"]["target_type"] = "labels"
        config["loss"] = {"function": "NLL"}
    for key, value in changes.items():
        section = config
        *parents, last = key.split("__")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def write_training_and_testing(folder: Path) -> Path:
    """`folder/data`: training/ with 13 + 11 images and testing/ with 4 + 3, classes `cold` and `warm`."""
    write_images(folder / "data" / "training", {"cold": 13, "warm": 11})
    write_images(folder / "data" / "testing", {"cold": 4, "warm": 3}, seed=1)
    return folder / "data"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_training_and_testing(tmp_path)


@pytest.fixture
def natural_images() -> Path:
    """The Natural Images set at 30 px, where it is at hand."""
    if not NATURAL_IMAGES.exists():
        pytest.skip(f"{NATURAL_IMAGES.name} is not beside the project")
    return NATURAL_IMAGES
