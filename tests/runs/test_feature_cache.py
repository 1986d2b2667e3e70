"""Features of frozen layers that are computed once: the results are those without them, wherever they are kept."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from commandline import records, succeed, weights
from conftest import TIMES, outcome, write_config, write_small, write_training_and_testing

from tfinpaint.runs import features
from tfinpaint.runs.progress import RunProgress

pytestmark = pytest.mark.usefixtures("undrawn_figures")

RESIZE = [{"resize": [16, 16]}]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_training_and_testing(tmp_path_factory.mktemp("images"))


def read(run: Path) -> tuple[dict[str, np.ndarray], list[dict]]:
    """The weights of the last checkpoint, and all metrics."""
    return weights(max((run / "model_checkpoints").glob("model_checkpoint_*"))), records(run)


def write_frozen(folder: Path, images: Path, in_data: dict | None = None, **changes: object) -> Path:
    """The small classifier with a frozen convolution and batch norm, and dropout behind them."""
    model = {"batchnorm_batches": 0, "trainable": ["dense*"]}
    path = write_small(folder, images, **{"num_epochs": 2, "model": model, **changes})
    config = yaml.safe_load(path.read_text())
    config["data"] |= {"transforms": RESIZE, **(in_data or {})}
    path.write_text(yaml.safe_dump(config))
    return path


def without_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_place", lambda *_: "not here")


def same_results(one: Path, two: Path) -> None:
    (ours, mine), (theirs, its) = read(one), read(two)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert np.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-7), name
    for ours_at, theirs_at in zip(mine, its, strict=True):
        for name in ours_at.keys() - {"phase", *TIMES}:
            assert ours_at[name] == pytest.approx(theirs_at[name], rel=1e-5), name


@pytest.mark.parametrize("place", ["memory", pytest.param("disk", marks=pytest.mark.stress)])
def test_features_give_the_results_of_the_images(images, tmp_path, monkeypatch, place):
    config = write_frozen(tmp_path, images, precision="mixed_bfloat16" if place == "disk" else "float32")
    once, always = tmp_path / "once", tmp_path / "always"
    if place == "disk":
        monkeypatch.setattr(features, "available_memory", lambda: 0)
    output = succeed("classify", "--config", config, "--workdir", once)
    where = "memory" if place == "memory" else f"a nameless file on the disk of {once}"
    for images_of, size in (("24 training", "0.1"), ("7 held-out", "0.0")):
        line = f"computing the features of {images_of} images once, {size} MiB per rank in {where}\n"
        if place == "memory":
            assert f"Frozen layers up to relu_3: {line}" in output
        assert line.partition(",")[0] in output
    without_cache(monkeypatch)
    output = succeed("classify", "--config", config, "--workdir", always)
    assert "Frozen layers up to relu_3: they are computed in every pass over the training images: not here" in output
    same_results(once, always)
    assert {path.name for path in once.iterdir()} == {path.name for path in always.iterdir()}


@pytest.mark.stress
def test_a_transferred_encoder_whose_last_stage_is_trained(images, tmp_path, monkeypatch):
    # The frozen batch norms are recalibrated before the features are computed, those of the stage after every epoch.
    pretrained = write_config(tmp_path / "p.yaml", "pretrain", images, encoder="tiny", num_epochs=1, steps_per_epoch=1)
    succeed("pretrain", "--config", pretrained, "--workdir", tmp_path / "pretrained")
    changes = {"model__trainable": ["conv5_*", "dense_1"], "checkpoints": {"load": str(tmp_path / "pretrained")}}
    changes |= {"steps_per_epoch": 2, "data__batch_size": 12}
    config = write_config(tmp_path / "c.yaml", "classify", images, encoder="tiny", **changes)
    once, always = tmp_path / "once", tmp_path / "always"
    assert "up to conv4_block1_out: computing" in succeed("classify", "--config", config, "--workdir", once)
    without_cache(monkeypatch)
    succeed("classify", "--config", config, "--workdir", always)
    same_results(once, always)


@pytest.mark.stress
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_run_that_is_stopped_within_an_epoch_goes_on_to_the_same_bytes(images, tmp_path, monkeypatch, place):
    config = write_frozen(tmp_path, images)
    if place == "disk":
        monkeypatch.setattr(features, "available_memory", lambda: 0)
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    succeed("classify", "--config", config, "--workdir", undisturbed)
    steps, step = 0, RunProgress.step

    def stop_at_eight(self, epoch, read_loss):
        nonlocal steps
        step(self, epoch, read_loss)
        steps += 1
        if steps == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patches:
        patches.setattr(RunProgress, "step", stop_at_eight)
        assert "Stopped in epoch 2, after step 4" in succeed("classify", "--config", config, "--workdir", stopped)
    assert "Frozen layers up to relu_3: computing" in succeed("classify", "--resume", "--workdir", stopped)
    assert outcome(stopped) == outcome(undisturbed)


@pytest.mark.stress
@pytest.mark.parametrize(
    ("task", "changes", "training", "held_out"),
    [
        ("classify", {"transforms": [*RESIZE, {"random_horizontal_flip": 0.5}]}, "random transforms or masks", "once"),
        ("classify", {"transforms": RESIZE, "test_input_path": None}, "once", None),
        ("pretrain", {"transforms": [*RESIZE, {"random_patches": {"number": 1, "size": 4}}]}, *["random transforms"] * 2),
    ],
)  # fmt: skip
def test_what_changes_in_every_epoch_is_not_cached(images, tmp_path, task, changes, training, held_out):
    if task == "pretrain":
        data = {"type": "images", "target_type": None, **changes}
        last = {"class_name": "Conv2D", "config": {"filters": 3, "kernel_size": 3, "padding": "same", "name": "dense"}}
        first = {**last["config"], "batch_input_shape": [None, 16, 16, 3], "name": "frozen"}
        network = [{"class_name": "Conv2D", "config": first}, {"class_name": "ReLU"}, last]
        config = write_frozen(tmp_path, images, data, layers=network, loss={"function": "MSE"})
    else:
        config = write_frozen(tmp_path, images, changes)
    output = succeed(task, "--config", config)
    for what, said in (("training", training), ("held-out", held_out)):
        lines = [line for line in output.splitlines() if "Frozen layers" in line and what in line]
        assert [said in line for line in lines] == ([True] if said else [])


def write_pairs(folder: Path, images: Path) -> Path:
    """A network of images to images, with a frozen first layer; inputs and targets are the same files."""
    first, last = (
        {"class_name": "Conv2D", "config": {"name": name, "filters": 3, "kernel_size": 3, "padding": "same"}}
        for name in ("frozen", "dense")
    )
    first["config"]["batch_input_shape"] = [None, 16, 16, 3]
    data = {
        "type": "images", "target_type": None, "target_path": str(images / "training"),
        "test_target_path": str(images / "testing"),
    }  # fmt: skip
    return write_frozen(folder, images, data, layers=[first, last], loss={"function": "MSE"})


@pytest.mark.stress
def test_pairs_of_images_are_read_on_the_side_of_the_targets_alone(images, tmp_path, monkeypatch):
    config, once, always = write_pairs(tmp_path, images), tmp_path / "once", tmp_path / "always"
    flipped = "data.target_transforms=[{random_horizontal_flip: 0.5}]"  # what is drawn for targets changes no features
    output = succeed("pretrain", "--config", config, "--workdir", once, "--set", flipped)
    assert output.count("Frozen layers up to frozen: computing") == 2
    without_cache(monkeypatch)
    succeed("pretrain", "--config", config, "--workdir", always, "--set", flipped)
    same_results(once, always)


@pytest.mark.stress
def test_features_of_any_size_are_not_kept(images, tmp_path):
    shape = {"batch_input_shape": [None, None, None, 3]}
    network = [
        {"class_name": "Conv2D", "config": {"filters": 4, "kernel_size": 3, **shape}},
        {"class_name": "Dropout", "config": {"rate": 0.5}},
        {"class_name": "GlobalAveragePooling2D"},
        {"class_name": "Dense", "config": {"units": 2, "activation": "softmax"}},
    ]
    output = succeed("classify", "--config", write_frozen(tmp_path, images, layers=network, num_epochs=2))
    assert output.count(" images: the network takes images of any size\n") == 2
