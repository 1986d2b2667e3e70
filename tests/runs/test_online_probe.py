"""The probe in pretraining: what it records and keeps, that it changes nothing else, and what it needs."""

from pathlib import Path

import numpy as np
import pytest
from commandline import records, refuse, succeed, summary
from conftest import outcome, write_config, write_images

from tfinpaint.checkpoint.find import list_checkpoints
from tfinpaint.checkpoint.header import SavedProgress
from tfinpaint.checkpoint.reader import read_progress
from tfinpaint.config.schema import Config
from tfinpaint.data.listing.listing import fraction_indices, list_class_folders
from tfinpaint.probing.classifiers import fit_linear_probe
from tfinpaint.probing.encoder import load_encoder
from tfinpaint.probing.features import extract_features
from tfinpaint.probing.images import open_labelled
from tfinpaint.runs.online_probe import FITTED, JUDGED, TRIED, BestProbe, choose_images
from tfinpaint.runs.progress import RunProgress
from tfinpaint.runs.run import Resumed, Run
from tfinpaint.train.totals import EpochResult

# Two classes of either colour, so that accuracies are neither 0 nor 1.
CLASSES = {"cold": 13, "warm": 11, "cool": 10, "single": 1}
MODEL = {"encoder": "tiny", "encoder_output": "after_relu", "batchnorm_batches": 2}
DRAW = 2**31


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "training", CLASSES)
    write_images(folder / "testing", {"cold": 4, "warm": 3}, seed=1)
    return folder


def probed(folder, data, **changes):
    changes = {
        "num_epochs": 3,
        "deterministic": True,
        "figures_interval": 100,
        "model": MODEL,
        "probe": {"every": 2, "images": 30},
        "checkpoints": {"interval": 100, "interval_steps": 1, "keep": 1},
        "optimizer": {"type": "Adam", "learning_rate": 0.01, "ema_decay": 0.9},
        **changes,
    }
    return write_config(folder / "c.yaml", "pretrain", data, encoder="tiny", **changes)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probed")
    (folder / "output").write_text(succeed("pretrain", "--config", probed(folder, data)))
    return folder / "run"


def without_probe(metrics):
    return [{name: value for name, value in record.items() if name not in JUDGED.values()} for record in metrics]


@pytest.mark.stress
def test_accuracies_are_recorded_shown_and_drawn_every_few_epochs_and_at_the_end(run):
    output, trained = (run.parent / "output").read_text(), [r for r in records(run) if r["phase"] == "train"]
    assert "Probe every 2 epochs: logistic regression on 14 images of 4 classes, measured on 14 others" in output
    assert [r["epoch"] for r in trained if "probe_stage5" in r] == [2, 3]
    assert all(name in r for r in trained[1:] for name in JUDGED.values())
    assert f"epoch 2/3  loss {trained[1]['loss']:.4f}, test " in output
    assert f"  probe_stage5 {trained[1]['probe_stage5']:.3f}" in output
    assert (run / "figures" / "probe.png").stat().st_size > 5000
    assert (run / "report.html").read_text().count("<img") == 7


@pytest.mark.stress
def test_they_are_those_of_the_encoder_in_the_checkpoint_on_images_without_holes(run, data):
    source = load_encoder(run / "model_checkpoints" / "model_checkpoint_3")
    listing = choose_images(list_class_folders(data / "training"), 30)
    fitted = fraction_indices(listing, FITTED, DRAW)
    others = np.setdiff1d(np.arange(len(listing)), fitted)
    features = extract_features(listing, source.preprocessing, {"it": (source.encoder, source.model)})["it"]
    for stage, name in JUDGED.items():
        probe = fit_linear_probe(features[stage][fitted], listing.labels[fitted], TRIED)
        right = probe.probabilities(features[stage][others]).argmax(axis=1) == listing.labels[others]
        assert records(run)[-2][name] == pytest.approx(right.mean()), stage
        assert 0 < right.mean() < 1


@pytest.mark.stress
def test_the_best_checkpoint_by_the_probe_is_kept_and_has_a_name(run):
    accuracies = {r["epoch"]: r["probe_stage5"] for r in records(run) if "probe_stage5" in r}
    best = 2 if accuracies[2] >= accuracies[3] else 3
    found = summary(run)
    assert f"best after epoch {best}: logistic regression on labelled images" in (run / "report.html").read_text()
    assert 0 < found["random_probe_accuracy"] <= 1
    assert (found["best_probe_epoch"], found["best_probe_accuracy"]) == (best, accuracies[best])
    assert found["best_probe_checkpoint"] == f"model_checkpoints/model_checkpoint_{best}"
    kept = [path.name for path in list_checkpoints(run / "model_checkpoints")]
    assert {f"model_checkpoint_{best}", "model_checkpoint_3"} == set(kept)  # although the interval is 100 epochs
    assert load_encoder(run / "best_probe").notes[0].startswith(f"Using model_checkpoint_{best}, the best of {run}")
    assert load_encoder(run).notes == load_encoder(run / "best_probe").notes
    for name in kept:
        labels = load_encoder(run / "model_checkpoints" / name).labels_of_choice
        assert labels == (30 if name == f"model_checkpoint_{best}" else 0)


@pytest.mark.stress
def test_a_probe_changes_nothing_else(run, data, tmp_path):
    succeed("pretrain", "--config", probed(tmp_path, data, probe=None))
    ours, theirs = outcome(run), outcome(tmp_path / "run")
    assert without_probe(ours.pop("metrics")) == theirs.pop("metrics")
    assert ours == theirs


@pytest.mark.stress
def test_a_run_that_stops_within_an_epoch_goes_on_to_the_same_bytes_and_accuracies(run, data, tmp_path, monkeypatch):
    taken = RunProgress.step

    def fail(self, epoch, read_loss):
        taken(self, epoch, read_loss)
        if self._done == 10:  # of 4 steps in each of 3 epochs
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "step", fail)
        with pytest.raises((KeyboardInterrupt, AssertionError)):
            succeed("pretrain", "--config", probed(tmp_path, data))
    assert read_progress(list_checkpoints(tmp_path / "run" / "model_checkpoints")[-1]).best_probe_epoch == 2
    assert "Resuming from epoch 2 of 3, step 1 of 4" in succeed("pretrain", "--resume", "--workdir", tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(run)
    assert summary(tmp_path / "run")["best_probe_epoch"] == summary(run)["best_probe_epoch"]


def test_images_are_a_fraction_of_each_class_and_never_those_that_the_command_probe_sets_aside(tmp_path):
    write_images(tmp_path, {"cold": 40, "warm": 20, "few": 2}, size=(4, 4))
    listing = list_class_folders(tmp_path)
    tested = set(open_labelled(tmp_path, None).test.paths)
    for count, expected in ((12, [8, 1, 4]), (1000, [32, 1, 16])):  # cold, few, warm
        chosen = choose_images(listing, count)
        assert np.bincount(chosen.labels).tolist() == expected
        assert not tested & set(chosen.paths)


def test_the_first_of_equal_epochs_is_the_best_also_after_a_resume():
    def result(**values):
        return EpochResult({"loss": 1.0, **values}, 1, 1.0, 1.0)

    best = BestProbe.before(Run(Config(), "inpainter"))
    shown = [best.is_new(epoch, result(**values)) for epoch, values in enumerate(
        [{}, {"probe_stage5": 0.5}, {}, {"probe_stage5": 0.5}, {"probe_stage5": 0.75}, {"probe_stage5": 0.7}], start=1
    )]  # fmt: skip
    assert (shown, best.epoch) == ([False, True, False, False, True, False], 5)
    record = {"phase": "train", "loss": 1.0, "seconds": 1.0, "images_per_second": 1.0}
    before = ({**record, "epoch": 1, "probe_stage5": 0.5}, {**record, "epoch": 2})
    progress = SavedProgress(records=before, best_probe_epoch=1)
    best = BestProbe.before(Run(Config(), "inpainter", resumed=Resumed(Path(), None, progress)))
    assert (best.epoch, best.accuracy) == (1, 0.5)
    assert [best.is_new(3, result(probe_stage5=0.5)), best.is_new(4, result(probe_stage5=0.6))] == [False, True]


def test_what_a_probe_needs_is_said_in_a_line(data, tmp_path):
    config, flat, single = probed(tmp_path, data), tmp_path / "flat", tmp_path / "single"
    write_images(flat, {".": 8})
    write_images(single, {"cold": 1, "warm": 1})
    error = refuse("pretrain", "--config", config, "--set", f"data.input_path={flat}")
    assert f"probe: {flat}: a classifier needs at least two class folders, found 0" in error
    assert "name a folder of class folders in probe.path, or remove probe" in error
    error = refuse("pretrain", "--config", config, "--set", f"probe.path={single}")
    assert f"probe: {single}: no class has two images, one to fit with and one to measure with" in error
    error = refuse("pretrain", "--config", config, "--set", "model.encoder_output=before_add")
    assert (
        "probe: the encoder lacks conv5_block1_0_conv, which leads to the end of stage 5; set model.encoder_" in error
    )
    error = refuse("pretrain", "--config", config, "--set", f"probe.path={tmp_path / 'nowhere'}")
    assert "probe.path: no such folder" in error
    classify = write_config(tmp_path / "classify.yaml", "classify", data, encoder="tiny", probe={})
    assert "probe is for pretrain only; remove it for classify" in refuse("classify", "--config", classify)
