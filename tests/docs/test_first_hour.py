"""Run the commands and the Python of the pages for a first hour, in order, in a folder of real photos.

So that this takes minutes, the configurations have one step of eight images per epoch at 32 pixels, and the smallest
network where the network does not matter; 20 epochs are 2 here. tests/commands/test_init_and_run.py runs `init` and
`run`.
"""

from pathlib import Path

import numpy as np
import pytest
import yaml
from commandline import refuse, succeed, summary
from pages_text import ROOT, blocks, command_lines
from PIL import Image
from sklearn.datasets import load_sample_image

pytestmark = pytest.mark.stress

GETTING_STARTED, FEATURES = ROOT / "docs" / "getting_started.md", ROOT / "docs" / "features.md"
# What makes the environment that the tests run in, and commands with tests of their own.
ELSEWHERE = (["scripts/setup"], ["source"], ["tfinpaint", "doctor"], ["tfinpaint", "init"], ["tfinpaint", "run"])
SMALLER = {"num_epochs=20": "num_epochs=2"}
SIDE = 80  # pixels of a photo: too small to be decoded at a fraction of its size


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with my_photos/ (two classes, cut from scikit-learn's photographs) and photo.jpg."""
    monkeypatch.chdir(tmp_path)
    for name in ("china", "flower"):
        folder = tmp_path / "my_photos" / name
        folder.mkdir(parents=True)
        pixels = load_sample_image(f"{name}.jpg")
        for number, left in enumerate(range(0, 540, 45)):
            cut = pixels[100 + 10 * number :, left:][:SIDE, :SIDE]
            Image.fromarray(cut).save(folder / f"{number:02}.jpg", quality=95)
    Image.fromarray(pixels[200:, 300:][:SIDE, :SIDE]).save("photo.jpg")
    return tmp_path


def write_project(encoder: str) -> None:
    """Write what `tfinpaint init my_photos` writes, as far as these pages need it, but smaller."""
    project = Path("runs/my_photos")
    project.mkdir(parents=True, exist_ok=True)
    common = {
        "num_epochs": 1,
        "steps_per_epoch": 1,
        "optimizer": {"type": "Adam", "learning_rate": 1e-3, "lr_scheduler": {"type": "Cosine"}},
        "model": {"encoder": encoder, "encoder_output": "after_relu", "batchnorm_batches": 1},
    }
    data = {"input_path": "data/training", "test_input_path": "data/testing", "batch_size": 8, "test_batch_size": 8}
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
        (project / f"{name}.yaml").write_text(yaml.safe_dump({**common, **own}))


def run(words: list[str]) -> None:
    """Run a line of a page, unless another test does."""
    if any(words[: len(each)] == each for each in ELSEWHERE):
        return
    program, *arguments = (SMALLER.get(word, word) for word in words)
    assert program == "tfinpaint", f"no test runs {words}"
    succeed(*arguments)


def run_python(block: str, names: dict) -> None:
    exec(block, names)  # noqa: S102 -- the project's own pages


def test_getting_started(photos):
    write_project("tiny")
    succeed("prepare", "my_photos", "runs/my_photos/data", "--test-fraction", "0.3")
    succeed("pretrain", "--config", "runs/my_photos/pretrain.yaml")
    succeed("classify", "--config", "runs/my_photos/classify.yaml")
    scratch = ("--set", "checkpoints.load=null", "--workdir", "runs/my_photos/from_scratch")
    succeed("classify", "--config", "runs/my_photos/classify.yaml", *scratch)
    assert "--allow-change num_epochs" in refuse(
        "pretrain", "--resume", "--workdir", "runs/my_photos/pretrain", "--set", "num_epochs=2"
    )

    for words in command_lines(GETTING_STARTED):
        run(words)
    for block in blocks(GETTING_STARTED, "python"):
        run_python(block, {})
    assert summary(Path("runs/my_photos/pretrain"))["epochs"] == 2
    assert Path("preview.png").exists()
    assert Path("comparison.html").exists()


def test_features_in_plain_keras_are_those_of_the_command(photos):
    """Both networks are those that `tfinpaint init` chooses."""
    from_file, with_keras, with_tfinpaint = blocks(FEATURES, "python")
    found: dict = {}
    for encoder, lines in (("resnet50", with_keras), ("resnet18", with_tfinpaint)):
        write_project(encoder)
        if encoder == "resnet50":
            succeed("prepare", "my_photos", "runs/my_photos/data", "--test-fraction", "0.3")
        else:
            found["newest"] = photos / "runs/my_photos/pretrain/model_checkpoints/model_checkpoint_1/encoder.weights.h5"
        succeed("pretrain", "--config", "runs/my_photos/pretrain.yaml", "--overwrite")
        for words in command_lines(FEATURES):
            run(words)
        run_python(from_file, found)
        expected, names = found["features"], found["names"]
        run_python(lines, found)
        assert [path.relative_to("my_photos").as_posix() for path in found["photos"]] == names.tolist()
        assert np.std(expected) > 0.01
        np.testing.assert_allclose(found["features"], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
