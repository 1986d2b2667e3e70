"""Runs with two views: without a mask, resumed within an epoch, transferred, and with features that collapse."""

import h5py
import numpy as np
import pytest
from commandline import records, refuse, succeed, tfinpaint, weights
from conftest import outcome, write_config, write_training_and_testing

from tfinpaint.checkpoint.find import list_checkpoints
from tfinpaint.runs.progress import RunProgress
from tfinpaint.train import view_measures

pytestmark = pytest.mark.usefixtures("undrawn_figures")

STEPS = [
    {"resize": [32, 32]},
    {"random_resized_crop": {"scale": [0.3, 1.0]}},
    {"color_jitter": {"brightness": 0.4, "saturation": 0.2}},
]
MASK = {"grid": {"size": 8, "ratio": [0, 0.5], "fill": "mean"}}
RESTORED = {"function": "MSE", "target": "masked", "normalize_patches": 8}
AGREEMENT = {"agreement": {"projector": [16, 8]}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_training_and_testing(tmp_path_factory.mktemp("images"))


def two_views(folder, data, **changes):
    changes = {
        "deterministic": True,
        "figures_interval": 100,
        "model": {"encoder": "tiny", "encoder_output": "after_relu", "batchnorm_batches": 0},
        "data__views": 2,
        "data__transforms": [*STEPS, MASK],
        "loss": RESTORED | AGREEMENT | {"reconstruction_weight": 0.5},
        **changes,
    }
    return write_config(folder / "c.yaml", "pretrain", data, encoder="tiny", **changes)


def beside(run):
    """Return the bytes of the projector and of its optimizer in the last checkpoint."""
    last, found = list_checkpoints(run / "model_checkpoints")[-1], {}
    with h5py.File(last / "projector.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()].tobytes()}) if hasattr(item, "shape") else None)
    with np.load(last / "projector_optimizer.npz") as file:
        found |= {name: file[name].tobytes() for name in file.files}
    return found


@pytest.mark.stress
def test_a_run_that_stops_within_an_epoch_goes_on_to_the_same_bytes(data, tmp_path, monkeypatch):
    whole, run = tmp_path / "whole", tmp_path / "run"
    config = two_views(tmp_path, data, checkpoints={"interval_steps": 1})
    succeed("pretrain", "--config", config, "--workdir", whole)
    assert {"agreement_loss", "rankme", "alignment", "uniformity"} <= records(whole)[0].keys()
    taken = RunProgress.step

    def fail(self, epoch, read_loss):
        taken(self, epoch, read_loss)
        if self._done == 5:  # of 3 steps in each of 2 epochs
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "step", fail)
        with pytest.raises((KeyboardInterrupt, AssertionError)):
            succeed("pretrain", "--config", config, "--workdir", run)
    assert [path.name for path in list_checkpoints(run / "model_checkpoints")][-1] == "model_checkpoint_1_step_1"
    assert "Resuming from epoch 1 of 2, step 1 of 3" in succeed("pretrain", "--resume", "--workdir", run)
    assert outcome(run) == outcome(whole)
    assert beside(run) == beside(whole)
    assert len(beside(run)) > 10


@pytest.mark.stress
def test_views_alone_need_no_mask_and_leave_the_decoder_as_it_began(data, tmp_path):
    loss = AGREEMENT | {"reconstruction_weight": 0}
    output = succeed("pretrain", "--config", two_views(tmp_path, data, data__transforms=STEPS, loss=loss))
    run = tmp_path / "run"
    found = records(run)
    assert [(r["phase"], r["epoch"]) for r in found] == [("train", 1), ("train", 2)]
    assert found[0]["loss"] == pytest.approx(found[0]["agreement_loss"])
    assert "test loss" not in output
    first, last = (weights(path) for path in list_checkpoints(run / "model_checkpoints"))
    same = {name for name, values in first.items() if np.array_equal(values, last[name])}
    decoder = {name for name in first if "transpose" in name}
    assert len(decoder) == 10  # kernels and biases of five layers
    assert decoder <= same
    kernels = {name for name, values in first.items() if values.ndim == 4} - decoder
    assert not kernels & same
    # The encoder moves into a classifier; the projector stays behind.
    classifier = write_config(
        tmp_path / "classify.yaml", "classify", data, encoder="tiny", num_epochs=1, checkpoints={"load": str(run)}
    )
    succeed("classify", "--config", classifier, "--workdir", tmp_path / "classified")
    files = {path.name for path in list_checkpoints(tmp_path / "classified" / "model_checkpoints")[-1].iterdir()}
    assert not any("projector" in name for name in files)


@pytest.mark.stress
def test_features_that_collapse_are_named_with_what_to_do(data, tmp_path, monkeypatch):
    monkeypatch.setattr(view_measures, "rankme", lambda rows: 1.25)
    done = tfinpaint("pretrain", "--config", two_views(tmp_path, data, num_epochs=1, steps_per_epoch=1))
    text = done.stdout + done.stderr
    assert "Epoch 1: the encoder's features have collapsed" in text
    assert "RankMe 1.25 of at most 16; 1 is a complete collapse" in text
    assert "lower optimizer.learning_rate or raise data.batch_size" in text


def test_an_encoder_that_is_frozen_is_refused(data, tmp_path):
    model = {"encoder": "tiny", "encoder_output": "after_relu", "trainable": ["decoder_*"]}
    line = refuse("pretrain", "--config", two_views(tmp_path, data, model=model))
    assert "loss.agreement trains the encoder, but model.trainable freezes all of it" in line
