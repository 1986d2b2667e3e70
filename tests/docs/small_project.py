"""Make what the pages name, in a size that takes seconds: photos, and a project as `tfinpaint init` makes it."""

import shutil
from pathlib import Path

import numpy as np
import yaml
from commandline import succeed
from pages_text import ROOT
from PIL import Image
from sklearn.datasets import load_sample_image

SIDE = 80  # pixels of a photo: too small to be decoded at a fraction of its size
SMALL_DATA = {"batch_size": 8, "test_batch_size": 8}
PROJECT = Path("runs/my_photos")


def write_photos() -> None:
    """Write my_photos/ (two classes, cut from scikit-learn's photographs) and photo.jpg into the working directory."""
    for name in ("china", "flower"):
        folder = Path("my_photos") / name
        folder.mkdir(parents=True)
        pixels = load_sample_image(f"{name}.jpg")
        for number, left in enumerate(range(0, 540, 45)):
            cut = pixels[100 + 10 * number :, left:][:SIDE, :SIDE]
            Image.fromarray(cut).save(folder / f"{number:02}.jpg", quality=95)
    Image.fromarray(pixels[200:, 300:][:SIDE, :SIDE]).save("photo.jpg")


def write_project(encoder: str) -> None:
    """Write what `tfinpaint init my_photos` writes, as far as these pages need it, but smaller."""
    PROJECT.mkdir(parents=True, exist_ok=True)
    common = {
        "num_epochs": 1,
        "steps_per_epoch": 1,
        "optimizer": {"type": "Adam", "learning_rate": 1e-3, "lr_scheduler": {"type": "Cosine"}},
        "model": {"encoder": encoder, "encoder_output": "after_relu", "batchnorm_batches": 1},
    }
    data = {"input_path": "data/training", "test_input_path": "data/testing", **SMALL_DATA}
    size = {"resize": [32, 32]}
    grid = {"grid": {"size": 8, "ratio": 0.5}}
    pretrain = {
        "workdir": "pretrain", "data": {"type": "images", **data, "transforms": [size, grid]},
        "loss": {"function": "MSE", "target": "masked"},
    }  # fmt: skip
    classify = {
        "workdir": "classify", "data": {"target_type": "labels", **data, "transforms": [size]},
        "loss": {"function": "NLL"}, "checkpoints": {"load": "pretrain"},
    }  # fmt: skip
    for name, own in (("pretrain", pretrain), ("classify", classify)):
        (PROJECT / f"{name}.yaml").write_text(yaml.safe_dump({**common, **own}))


def run_project() -> None:
    """Train all of the project: the encoder, the classifier, and the same from scratch."""
    succeed("prepare", "my_photos", PROJECT / "data", "--test-fraction", "0.3")
    succeed("pretrain", "--config", PROJECT / "pretrain.yaml")
    succeed("classify", "--config", PROJECT / "classify.yaml")
    scratch = ("--set", "checkpoints.load=null", "--workdir", PROJECT / "from_scratch")
    succeed("classify", "--config", PROJECT / "classify.yaml", *scratch)


def write_recipes() -> None:
    """Write configs/ as it is in the project, but each with one step of the smallest network."""
    for path in (ROOT / "configs").rglob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        values |= {"num_epochs": 1, "steps_per_epoch": 1}
        values["data"] = {**values["data"], **SMALL_DATA, "label_fraction": 1.0}
        values["model"] = {**values.get("model", {}), "encoder": "tiny", "encoder_output": "after_relu"}
        copy = Path(path.relative_to(ROOT))
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(yaml.safe_dump(values))


def write_what_pages_name() -> None:
    """Write the other files and folders that commands on the pages take."""
    for archive in ("my_images", "natural-images"):
        shutil.make_archive(archive, "zip", "my_photos")
    for folder in ("photos", "new_images", "runs/data/photos"):
        shutil.copytree("my_photos", folder)
    for folder in ("new_photos", "more"):
        Path(folder).mkdir()
        shutil.copy("photo.jpg", Path(folder) / "one.jpg")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[30:50, 30:50] = 255
    Image.fromarray(mask).save("mask.png")
    shutil.copytree(PROJECT / "data", "runs/data/natural_images")
    shutil.copytree(PROJECT, "runs/demo")
    Path("runs/demo/classify").rename("runs/demo/pretrained")
