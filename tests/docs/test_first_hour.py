"""Run the commands and the Python of the pages for a first hour, in order, in a folder of real photos.

So that this takes minutes, the configurations have one step of eight images per epoch at 32 pixels, and the smallest
network where the network does not matter; 20 epochs are 2 here. tests/commands/test_run_stages.py runs `init` and
`run`.
"""

from pathlib import Path

import numpy as np
import pytest
from commandline import refuse, succeed, summary
from pages_text import ROOT, blocks, command_lines
from small_project import run_project, write_photos, write_project

pytestmark = pytest.mark.stress

GETTING_STARTED, FEATURES = ROOT / "docs" / "getting_started.md", ROOT / "docs" / "features.md"
# What makes the environment that the tests run in, and commands with tests of their own.
ELSEWHERE = (["scripts/setup"], ["source"], ["tfinpaint", "doctor"], ["tfinpaint", "init"], ["tfinpaint", "run"])
SMALLER = {"num_epochs=20": "num_epochs=2"}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with my_photos/ and photo.jpg."""
    monkeypatch.chdir(tmp_path)
    write_photos()
    return tmp_path


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
    run_project()
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
