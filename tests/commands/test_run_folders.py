"""Run folders of whole commands with small networks: what is left there, continued, overwritten and transferred."""

import json
import logging
import os
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from commandline import records, refuse, succeed, weights
from conftest import tree, write_config, write_training_and_testing, write_untrained

from tfinpaint import __version__
from tfinpaint.checkpoint.find import list_checkpoints
from tfinpaint.checkpoint.reader import read_header
from tfinpaint.classify import main as classify
from tfinpaint.inpainting.metrics import METRICS
from tfinpaint.pretrain import main as pretrain
from tfinpaint.report.comparison import write_comparison
from tfinpaint.storage import atomic
from tfinpaint.system.installation import versions

pytestmark = pytest.mark.usefixtures("undrawn_figures")

PRETRAINED = {
    "outfile": "log.txt",
    "data__transforms": [{"resize": [32, 32]}, {"random_horizontal_flip": 0.5}, {"center": {}}],
}


@pytest.fixture(scope="module")
def pretrained_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    config = write_config(folder / "pretrain.yaml", "pretrain", write_training_and_testing(folder), **PRETRAINED)
    succeed("pretrain", "--config", config, "--resume")  # nothing is there yet: it starts
    return folder / "run"


@pytest.fixture
def pretrained(images, tmp_path, pretrained_once) -> Path:
    """A copy of the run folder of two epochs of pretraining, with its configuration beside it."""
    write_config(tmp_path / "p" / "pretrain.yaml", "pretrain", images, **PRETRAINED)
    run = Path(shutil.copytree(pretrained_once, tmp_path / "p" / "run"))
    # The same images at another place are other images to a run.
    for path in [run / "config.resolved.yaml", *run.glob("model_checkpoints/*/progress.json")]:
        path.write_text(path.read_text().replace(str(pretrained_once.parent / "data"), str(images)))
    for saved in run.glob("model_checkpoints/model_checkpoint_*"):
        (saved / atomic.MANIFEST).unlink()
        atomic._write_manifest(saved)
    return run


@pytest.fixture(scope="module")
def encoder_of_grey_images(tmp_path_factory) -> Path:
    """The run folder of the project's own network, as pretraining begins."""
    folder = tmp_path_factory.mktemp("grey")
    write_untrained(folder / "model_checkpoints", channels=1)
    write_config(folder / "config.resolved.yaml", "pretrain", folder, encoder="tiny", data__grayscale=True)
    (folder / "report.html").touch()
    return folder


def test_pretrain_leaves_everything_behind(pretrained):
    expected = {
        ".lock", "config.resolved.yaml", "metrics.jsonl", "log_train.txt", "log_test.txt", "summary.json", "report.html",
        "tensorboard", "figures", "model_checkpoints", "environment.json",
    }  # fmt: skip
    assert {path.name for path in pretrained.iterdir()} == expected
    figures = {"loss.png", "hole_psnr_db.png", "hole_ssim.png", "restorations.png", "animation.gif"}
    kept = {"restorations/epoch_2.png", "animation/epoch_1.png", "animation/epoch_2.png"}
    drawn = {str(path.relative_to(pretrained / "figures")) for path in (pretrained / "figures").rglob("*.*")}
    assert drawn == figures | kept
    assert [(r["phase"], r["epoch"]) for r in records(pretrained)] == [
        ("train", 1),
        ("test", 1),
        ("train", 2),
        ("test", 2),
    ]
    common = {"phase", "epoch", "loss", "images_per_second", "seconds", "world_size"}
    assert set(records(pretrained)[0]) == common
    assert set(records(pretrained)[1]) == common | set(METRICS)
    summary = json.loads((pretrained / "summary.json").read_text())
    assert summary["pretrain_loss"] == records(pretrained)[2]["loss"]
    assert (summary["world_size"], summary["epochs"]) == (1, 2)
    assert list(summary["measurements"]) == ["network", "mean_colour", "nearest", "biharmonic"]
    assert summary["measurements"]["network"] == {name: records(pretrained)[3][name] for name in METRICS}
    assert summary["trainable_parameters"] < summary["parameters"]
    environment = json.loads((pretrained / "environment.json").read_text())
    assert set(environment) == {*versions(), "seed", "started", "command"}
    assert {name: environment[name] for name in ("tfinpaint", "Keras", "seed")} == {
        "tfinpaint": __version__, "Keras": keras.__version__, "seed": 0,
    }  # fmt: skip
    assert environment["started"] <= summary["finished"]
    assert sorted(p.name for p in (pretrained / "model_checkpoints").iterdir()) == [
        ".lock",
        "model_checkpoint_1",
        "model_checkpoint_2",
    ]


def test_classify_transfers_learns_and_reports(images, tmp_path, encoder_of_grey_images, pretrained):
    saved = encoder_of_grey_images / "model_checkpoints" / "model_checkpoint_1"
    assert (read_header(saved).channels, read_header(saved).target_channels) == (1, 1)
    changes = {"num_epochs": 4, "data__grayscale": True, "checkpoints": {"load": f"{saved}.pt"}}
    config = write_config(tmp_path / "c.yaml", "classify", images, encoder="tiny", **changes)
    output = succeed("classify", "--config", config)
    transferred = "Transferred 32 layers by name; the head (dense_1) is new; 5 further layers of model_checkpoint_1 are not needed"
    assert f"{transferred}\n" in output
    assert "Skipping layer" not in output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test_accuracy"] >= 6 / 7  # bright against dark
    assert summary["test_images"] == 7
    last = records(tmp_path / "run")[-1]
    assert (last["phase"], last["epoch"], last["accuracy"]) == ("test", 4, summary["test_accuracy"])
    drawn = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert ("confused.png" in drawn) == (summary["test_accuracy"] < 1)
    assert drawn - {"confused.png"} == {
        "loss.png",
        "accuracy.png",
        "confusion.png",
        "reliability.png",
        "test_images.png",
        "confused_pairs.csv",
        "test_classes.csv",
        "test_predictions.csv",
    }
    assert [(each["class"], each["images"]) for each in summary["test_classes"]] == [("cold", 4), ("warm", 3)]
    assert sum(each["right"] for each in summary["test_classes"]) == 7 * summary["test_accuracy"]
    tested = [line.split(",") for line in (tmp_path / "run/figures/test_predictions.csv").read_text().splitlines()[1:]]
    assert [line[0] for line in tested] == [f"cold/00{i}.png" for i in range(4)] + [f"warm/00{i}.png" for i in range(3)]
    assert [line[1] for line in tested] == ["cold"] * 4 + ["warm"] * 3
    assert sum(true == predicted for _, true, predicted, _ in tested) == 7 * summary["test_accuracy"]
    intervals = summary["test_calibration"]["intervals"]
    gaps = [each["images"] * abs(each["mean_probability"] - each["accuracy"]) for each in intervals]
    assert summary["test_expected_calibration_error"] == pytest.approx(sum(gaps) / 7)
    page = (tmp_path / "run" / "report.html").read_text()
    assert transferred in page
    assert page.index(" of 7 test images (") < page.index("<table>")  # a sentence is the first
    assert f'<a href="{os.path.relpath(encoder_of_grey_images / "report.html", tmp_path / "run")}">' in page
    sample, confusion = page.index(" test images with their predicted classes"), page.index("Confusion matrix: true")
    assert sample < confusion
    assert "expected_calibration_error" not in page  # a group of values has a section of its own
    tables = write_comparison([pretrained, tmp_path / "run"], tmp_path / "both.html").tables
    assert {kind: table[1][0] for kind, table in tables.items()} == {
        "Classifiers": str(tmp_path / "run"),
        "Inpainting": str(pretrained),
    }
    assert (tmp_path / "both.html").exists()


@pytest.mark.stress
def test_head_only_leaves_the_encoder_as_it_came(images, tmp_path, encoder_of_grey_images):
    saved = encoder_of_grey_images / "model_checkpoints" / "model_checkpoint_1"
    changes = {
        "num_epochs": 1,
        "data__grayscale": True,
        "checkpoints": {"load": str(saved / "encoder.weights.h5")},
        "model": {"encoder": "tiny", "trainable": "head_only", "batchnorm_batches": 0},
    }
    succeed("classify", "--config", write_config(tmp_path / "c.yaml", "classify", images, encoder="tiny", **changes))
    before = weights(saved)
    after = weights(tmp_path / "run" / "model_checkpoints" / "model_checkpoint_1")
    encoder = [name for name in after if "/dense/" not in name]
    assert len(encoder) == 96  # 16 convolutions with 2 weights, 16 batch norms with 4
    assert all(np.array_equal(before[name], after[name]) for name in encoder)


def test_a_resumed_run_equals_the_uninterrupted_one(images, tmp_path, pretrained):
    again = Path(shutil.copytree(pretrained, tmp_path / "again"))
    shutil.rmtree(again / "model_checkpoints" / "model_checkpoint_2")  # as if it had been killed in the second epoch
    (again / "summary.json").unlink()
    output = succeed("pretrain", "--resume", "--workdir", again)
    assert "Resuming from epoch 1 of 2" in output
    ignored = ("seconds", "images_per_second")
    strip = lambda run: [{k: v for k, v in r.items() if k not in ignored} for r in records(run)]  # noqa: E731
    assert strip(again) == strip(pretrained)
    ours, theirs = (weights(run / "model_checkpoints" / "model_checkpoint_2") for run in (again, pretrained))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert (again / "log_train.txt").read_text() == (pretrained / "log_train.txt").read_text()


@pytest.mark.stress
def test_a_used_run_folder_is_not_overwritten_unasked(images, tmp_path, pretrained):
    config = tmp_path / "p" / "pretrain.yaml"
    before = (pretrained / "metrics.jsonl").read_bytes()
    assert "already holds a run; add --resume to continue it, --overwrite" in refuse("pretrain", "--config", config)
    assert (pretrained / "metrics.jsonl").read_bytes() == before
    short = ("num_epochs=1", "steps_per_epoch=1", "data.test_input_path=null")
    succeed("pretrain", "--config", config, "--overwrite", *(word for each in short for word in ("--set", each)))
    assert [path.name for path in list_checkpoints(pretrained / "model_checkpoints")] == ["model_checkpoint_1"]


def test_overwriting_destroys_nothing_before_the_new_run_is_sure_to_start(images, tmp_path, pretrained):
    config = tmp_path / "p" / "pretrain.yaml"
    checkpoints = sorted((pretrained / "model_checkpoints").iterdir())
    (images / "training" / "warm" / "bad.jpg").write_bytes(b"bad")
    assert "unusable images" in refuse("pretrain", "--config", config, "--overwrite")
    load = f"checkpoints.load={checkpoints[-1]}"
    assert "--overwrite would delete" in refuse("pretrain", "--config", config, "--overwrite", "--set", load)
    other = write_config(tmp_path / "p" / "classify.yaml", "classify", images)
    told = "model_checkpoints holds the checkpoints of a pretraining, another kind of run; name another folder with --workdir"
    for asked in ((), ("--overwrite",)):  # no option is named that would be refused next
        assert refuse("classify", "--config", other, *asked).endswith(f"{told}\n")
    assert sorted((pretrained / "model_checkpoints").iterdir()) == checkpoints
    assert len(records(pretrained)) == 4


def test_a_start_that_is_refused_leaves_the_folder_as_it_was(images, tmp_path, pretrained):
    (tmp_path / "text.weights.h5").write_text("text")
    no_checkpoint = ("--set", f"checkpoints.load={tmp_path}/text.weights.h5")
    (pretrained / "bad_images.txt").write_text("checked\t/x/a\tempty\nepoch 1\t/x/b\tempty\n")
    for folder in (pretrained, pretrained / "model_checkpoints"):
        (folder / ".lock").unlink()
    before = tree(pretrained)
    times = {path: path.stat().st_mtime_ns for path in pretrained.rglob("*") if path.is_file()}
    command = ("pretrain", "--config", tmp_path / "p" / "pretrain.yaml")
    assert "already holds a run" in refuse(*command)
    assert "not a checkpoint of tfinpaint" in refuse(*command, "--overwrite", *no_checkpoint)
    assert "not that of the run" in refuse(*command, "--resume", "--set", "seed=7")
    (images / "training" / "warm" / "000.png").rename(images / "training" / "warm" / "renamed.png")
    assert "are not the 24 of before" in refuse(*command, "--resume", "--set", "num_epochs=3")
    assert "not a checkpoint of tfinpaint" in refuse(*command, "--workdir", tmp_path / "a" / "new", *no_checkpoint)
    assert not (tmp_path / "a").exists()
    assert tree(pretrained) == before
    (images / "training" / "warm" / "bad.jpg").write_bytes(b"bad")
    assert f"(listed in {pretrained}/bad_images_refused.txt)" in refuse(*command, "--overwrite")
    after = tree(pretrained)
    assert after.pop("bad_images_refused.txt").startswith(b"checked\t")
    assert after == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.stress
def test_one_process_runs_one_command_after_another_in_the_same_folders(images, tmp_path, pretrained, capsys):
    handlers, policy = logging.getLogger().handlers[:], keras.config.dtype_policy().name
    short = {"num_epochs": 1, "steps_per_epoch": 1, "checkpoints": {"load": str(pretrained)}, "outfile": None}
    config = write_config(tmp_path / "c.yaml", "classify", images, **short, precision="mixed_bfloat16")
    assert classify(["--config", str(config)]) == 0
    note = rf"Using model_checkpoint_[12], the best of {pretrained}: lowest loss on held-out images \(0\.\d+\)\n"
    assert re.search(note, capsys.readouterr().out)
    again = ["--config", str(tmp_path / "p" / "pretrain.yaml"), "--set", "steps_per_epoch=1", "--set", "num_epochs=1"]
    assert pretrain(again) == 2  # the folder holds a run
    assert pretrain([*again, "--overwrite"]) == 0
    assert classify(["--resume", "--workdir", str(tmp_path / "run")]) == 0
    assert "nothing is left to train" in capsys.readouterr().out
    assert (logging.getLogger().handlers, keras.config.dtype_policy().name) == (handlers, policy)


def test_a_changed_configuration_is_listed_key_by_key_and_refused_unless_allowed(images, tmp_path, pretrained):
    config = tmp_path / "p" / "pretrain.yaml"
    changed = ("num_epochs=3", "data.batch_size=4", "optimizer.learning_rate=0.001", "figures_interval=2")
    resume = ("pretrain", "--config", config, "--resume", *(x for c in changed for x in ("--set", c)))
    before = {path: path.stat().st_mtime_ns for path in pretrained.rglob("*.*") if path.name != ".lock"}
    error = refuse(*resume)
    listed = [line.removeprefix("error: ") for line in error.splitlines()[1:-1]]
    # Without a schedule, the length of the run changes nothing that was done; pictures never do.
    assert listed == ["  data.batch_size: 8 -> 4", "  optimizer.learning_rate: 0.01 -> 0.001"]
    assert error.endswith("--allow-change data.batch_size --allow-change optimizer.learning_rate\n")
    assert "data.batch_size: 8" not in refuse(*resume, "--allow-change", "data")
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.stress
def test_a_changed_configuration_that_is_allowed_is_that_of_the_epochs_to_come(images, tmp_path, pretrained):
    changed = ("num_epochs=3", "data.batch_size=4", "optimizer.learning_rate=0.001")
    words = (word for change in changed for word in ("--set", change))
    resume = ("pretrain", "--config", tmp_path / "p" / "pretrain.yaml", "--resume", *words)
    output = succeed(*resume, "--allow-change", "data", "--allow-change", "optimizer.learning_rate")
    assert "Changed since the run was stopped: data.batch_size: 8 -> 4\n" in output
    assert "steps_per_epoch was 3, is 6" in output
    assert [r["epoch"] for r in records(pretrained)] == [1, 1, 2, 2, 3, 3]


def test_the_model_of_a_run_stays_whatever_is_allowed(images, tmp_path, pretrained):
    resume = ("pretrain", "--config", tmp_path / "p" / "pretrain.yaml", "--resume", "--set", "num_epochs=3")
    other = ("--set", "optimizer.type=SGD", "--allow-change", "optimizer")
    assert "--resume: optimizer was Adam and is now SGD; restore it, or start again" in refuse(*resume, *other)


@pytest.mark.stress
def test_other_training_images_are_refused_on_resume(images, tmp_path, pretrained):
    (images / "training" / "warm" / "000.png").rename(images / "training" / "warm" / "renamed.png")
    resume = ("pretrain", "--config", tmp_path / "p" / "pretrain.yaml", "--resume", "--set", "num_epochs=3")
    assert "--resume: the 24 training images are not the 24 of before" in refuse(*resume)
    assert "as data.max_bad_images allows" in succeed(*resume, "--set", "data.max_bad_images=1")


@pytest.mark.stress
def test_resume_needs_no_configuration_but_something_to_resume(images, tmp_path, pretrained):
    output = succeed("pretrain", "--resume", "--workdir", pretrained, "--set", "num_epochs=3")
    assert "Resuming from epoch 2 of 3" in output
    assert "--config FILE is missing" in refuse("pretrain", "--workdir", pretrained)
    error = refuse("pretrain", "--resume", "--workdir", tmp_path / "none")
    assert f"{tmp_path}/none: holds no run to resume (config.resolved.yaml is missing); give --config" in error
    assert "--allow-change needs --resume" in refuse(
        "pretrain", "--config", tmp_path / "p" / "pretrain.yaml", "--allow-change", "seed"
    )


@pytest.mark.stress
def test_checkpoints_of_the_wrong_kind_are_refused(images, tmp_path, pretrained):
    config = write_config(tmp_path / "c.yaml", "classify", images, num_epochs=1)
    succeed("classify", "--config", config)
    classifier = tmp_path / "run" / "model_checkpoints" / "model_checkpoint_1"
    again = ("pretrain", "--config", tmp_path / "p" / "pretrain.yaml", "--workdir", tmp_path / "other")
    load = ("--set", f"checkpoints.load={classifier}")
    assert "holds the weights of kind classifier; expected: inpainter or encoder" in refuse(*again, *load)
    more = ("classify", "--config", config, "--workdir", tmp_path / "more", *load)
    assert "skipped 0, mismatched 0, unused 0" in succeed(*more)  # a classifier may be trained further
    missing = (
        "classify",
        "--config",
        config,
        "--workdir",
        tmp_path / "other2",
        "--set",
        f"checkpoints.load={tmp_path}/x.pt",
    )
    assert f"no such checkpoint: {tmp_path}/x.pt" in refuse(*missing)
    mixed = ("pretrain", "--config", tmp_path / "p" / "pretrain.yaml", "--workdir", tmp_path / "run", "--resume")
    assert "holds the weights of kind classifier; expected: inpainter" in refuse(*mixed)
