"""Runs that average their weights: what is evaluated and saved, and how they are resumed."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from commandline import records, refuse, succeed, weights
from conftest import outcome, write_small, write_training_and_testing

from tfinpaint.checkpoint.find import list_checkpoints
from tfinpaint.checkpoint.reader import open_checkpoint
from tfinpaint.config.transforms import Transform
from tfinpaint.data.examples import load_images
from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.data.listing.listing import list_class_folders

pytestmark = pytest.mark.usefixtures("undrawn_figures")

RESIZE = {"resize": [16, 16]}
CHANGES = {
    "num_epochs": 3,
    "optimizer": {"type": "AdamW", "learning_rate": 0.01, "weight_decay": 0.1, "ema_decay": 0.9},
    "model": {"batchnorm_batches": 6},
    "checkpoints": {"interval_steps": 4, "keep": 50},
}


def write(folder: Path, data: Path, **changes: object) -> Path:
    config = write_small(folder, data, **CHANGES | changes)
    config.write_text(config.read_text().replace("  - random_horizontal_flip: 0.5\n", ""))
    assert "flip" not in config.read_text()
    return config


@pytest.fixture(scope="module")
def averaged(tmp_path_factory) -> Path:
    """(folder with data and run) of three epochs of six steps."""
    folder = tmp_path_factory.mktemp("averaged")
    succeed("classify", "--config", write(folder, write_training_and_testing(folder)))
    return folder


def losses(run: Path, phase: str) -> list[float]:
    return [record["loss"] for record in records(run) if record["phase"] == phase]


@pytest.mark.stress
def test_training_is_the_same_and_evaluations_have_the_averages(averaged, tmp_path):
    plain = {**CHANGES["optimizer"], "ema_decay": None}
    succeed("classify", "--config", write(tmp_path, averaged / "data", optimizer=plain))
    assert losses(tmp_path / "run", "train") == losses(averaged / "run", "train")
    assert losses(tmp_path / "run", "test") != losses(averaged / "run", "test")
    # What a checkpoint of averages has in its optimizer's place for them is what was trained.
    last = "model_checkpoints/model_checkpoint_3"
    trained, ours = weights(tmp_path / "run" / last), weights(averaged / "run" / last)
    with np.load(averaged / "run" / last / "optimizer.npz") as state:
        kept = [state[name] for name in state.files]
    for name, value in trained.items():
        if value.ndim == 4 or "dense" in name:
            assert any(value.shape == each.shape and np.array_equal(value, each) for each in kept), name
            assert not np.array_equal(value, ours[name])


def test_a_saved_model_is_what_was_evaluated_and_its_statistics_are_those_of_the_averages(averaged, tmp_path):
    load = f"checkpoints.load={averaged / 'run'}"
    evaluation = ("--set", "data.input_path=null", "--set", load, "--workdir", tmp_path / "evaluated")
    succeed("classify", "--config", averaged / "c.yaml", *evaluation)
    assert losses(tmp_path / "evaluated", "test")[-1] == pytest.approx(losses(averaged / "run", "test")[-1], rel=1e-6)
    with open_checkpoint(averaged / "run" / "model_checkpoints" / "model_checkpoint_3") as saved:
        model = saved.model()
    # Six batches are all images, once each; six means of four images are the mean of all.
    options = DecodeOptions(steps=(Transform.model_validate(RESIZE),))
    pixels = load_images(list_class_folders(averaged / "data" / "training"), range(24), options).astype(np.float32)
    convolution, norm = model.layers[0:2] if model.layers[0].weights else model.layers[1:3]
    outputs = keras.Model(model.inputs, convolution.output)(pixels / 255).numpy()
    np.testing.assert_allclose(norm.moving_mean.numpy(), outputs.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "newest",
    [
        "model_checkpoint_1_step_2",
        pytest.param("model_checkpoint_1", marks=pytest.mark.stress),
        pytest.param("model_checkpoint_2_step_4", marks=pytest.mark.stress),
    ],
)
def test_a_run_is_resumed_to_the_same_bytes(averaged, tmp_path, newest):
    run = Path(shutil.copytree(averaged / "run", tmp_path / "run"))
    kept = [path.name for path in list_checkpoints(run / "model_checkpoints")]
    for name in kept[kept.index(newest) + 1 :]:
        shutil.rmtree(run / "model_checkpoints" / name)
    (run / "summary.json").unlink()
    assert "Resuming from epoch" in succeed("classify", "--resume", "--workdir", run)
    assert outcome(run) == outcome(averaged / "run")


@pytest.mark.stress
def test_a_finished_run_is_evaluated_with_its_averages(averaged, tmp_path):
    run = Path(shutil.copytree(averaged / "run", tmp_path / "run"))
    before = json.loads((run / "summary.json").read_text())
    other = f"data.test_input_path={averaged / 'data' / 'training'}"
    for name in (other, f"data.test_input_path={averaged / 'data' / 'testing'}"):
        succeed("classify", "--resume", "--workdir", run, "--set", name, "--allow-change", "data")
    again = json.loads((run / "summary.json").read_text())
    assert again["test_loss"] == pytest.approx(before["test_loss"], rel=1e-6)
    assert again["test_accuracy"] == before["test_accuracy"]


@pytest.mark.stress
def test_averages_may_begin_or_end_while_a_run_is_stopped(averaged, tmp_path):
    """Without them the run continues with what was trained; those that begin start from the weights."""
    plain = {**CHANGES["optimizer"], "ema_decay": None}
    both = ("--set", "num_epochs=4", "--allow-change", "num_epochs", "--allow-change", "optimizer.ema_decay")
    runs = {}
    for name, first, then in (
        ("ended", CHANGES["optimizer"], "null"),
        ("none", plain, "null"),
        ("begun", plain, "0.5"),
    ):
        folder = tmp_path / name
        succeed("classify", "--config", write(folder, averaged / "data", optimizer=first))
        succeed("classify", "--resume", "--workdir", folder / "run", "--set", f"optimizer.ema_decay={then}", *both)
        runs[name] = folder / "run"
    for name in ("ended", "begun"):
        assert losses(runs[name], "train") == losses(runs["none"], "train")
    assert losses(runs["ended"], "test")[-1] == losses(runs["none"], "test")[-1]
    ours, theirs = (losses(runs[name], "test") for name in ("begun", "none"))
    assert ours[:3] == theirs[:3]
    assert ours[3] != theirs[3]


def test_averages_need_recalibrated_statistics(averaged, tmp_path):
    error = refuse("classify", "--config", write(tmp_path, averaged / "data", model={"batchnorm_batches": 0}))
    assert "optimizer.ema_decay needs model.batchnorm_batches above 0" in error
