"""Files that version 0.1 wrote (tests/golden/v0_1, made by its own code) are read by this one."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from conftest import ROOT, outcome, write_config, write_images, write_small, write_training_and_testing

from tfinpaint.checkpoint.reader import open_checkpoint
from tfinpaint.checkpoint.transfer import plan_transfer
from tfinpaint.classify import main as classify
from tfinpaint.data.examples import load_images
from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.data.listing.listing import list_class_folders
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.encoder import build_encoder

pytestmark = pytest.mark.usefixtures("undrawn_figures")

OLD = ROOT / "tests" / "golden" / "v0_1"
CHECKPOINTS = OLD / "run" / "model_checkpoints"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("run", CHECKPOINTS / "model_checkpoint_2"),
        ("step", CHECKPOINTS / "model_checkpoint_1_step_4"),
        ("encoder", OLD / "encoder.weights.h5"),
    ],
)
def test_weights_are_those_that_were_written(name, path):
    with open_checkpoint(path) as saved:
        model = saved.model()
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    assert digest.hexdigest() == json.loads((OLD / "digests.json").read_text())[name]


@pytest.mark.parametrize(
    "newest", ["model_checkpoint_1_step_4", pytest.param("model_checkpoint_2", marks=pytest.mark.stress)]
)
def test_a_run_is_resumed_after_an_epoch_and_within_one(tmp_path, newest):
    shutil.copytree(OLD / "run", tmp_path / "run")
    for folder in (tmp_path / "run" / "model_checkpoints").iterdir():
        if folder.name != newest:
            shutil.rmtree(folder)
    config = write_small(tmp_path, write_training_and_testing(tmp_path), checkpoints={"interval_steps": 5})
    allowed = [f"--allow-change={key}" for key in ("checkpoints", "data", "num_epochs")]
    assert classify(["--config", str(config), "--resume", *allowed, "--set", "num_epochs=3"]) == 0
    found = outcome(tmp_path / "run")
    assert found["last"] == "model_checkpoint_3"
    assert [record["epoch"] for record in found["metrics"]] == [1, 1, 2, 2, 3, 3]


def test_an_encoder_is_transferred_whole():
    with open_checkpoint(OLD / "encoder.weights.h5") as saved:
        plan = plan_transfer(saved.layer_weights(), build_classifier(build_encoder("tiny", "before_add", 32, 32), 2))
    assert (len(plan.copied), plan.not_copied) == (32, ["dense_1"])


@pytest.mark.stress
def test_a_classifier_is_trained_from_an_encoder(tmp_path, capfd):
    data = write_training_and_testing(tmp_path)
    changes = {"num_epochs": 1, "steps_per_epoch": 1, "checkpoints": {"load": str(OLD / "encoder.weights.h5")}}
    config = write_config(tmp_path / "c.yaml", "classify", data, encoder="tiny", **changes, data__test_input_path=None)
    assert classify(["--config", str(config)]) == 0
    assert "Transferred 32 layers by name; the head (dense_1) is new" in capfd.readouterr().out


def test_records_hold_the_pixels_that_were_packed(tmp_path):
    packed = list_class_folders(OLD / "records")
    files = list_class_folders(write_images(tmp_path / "files", {"cold": 3, "warm": 2}, size=(12, 10)))
    assert (packed.classes, list(packed.paths)) == (files.classes, list(files.paths))
    assert list(packed.labels) == list(files.labels)
    for old, new in zip(*(load_images(each, range(5), DecodeOptions()) for each in (packed, files)), strict=True):
        np.testing.assert_array_equal(old, new)
