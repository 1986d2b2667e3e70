"""Classifiers of a network file: training, evaluation alone, predictions, loading of weights, and refusals."""

import csv
import json
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from commandline import refuse, succeed, summary, tfinpaint
from conftest import write_config, write_images
from network_files import conv, network

from tfinpaint.config.loss import Loss
from tfinpaint.models import losses
from tfinpaint.models.keras_json.build import build_network
from tfinpaint.models.keras_json.parse import read_network

pytestmark = pytest.mark.usefixtures("undrawn_figures")

CLASSIFIER = (
    conv("conv1", 4, "relu"),
    {"class_name": "BatchNormalization", "config": {"name": "bn1", "axis": [3], "trainable": False}},
    {"class_name": "Flatten", "config": {"name": "flatten_1"}},
    {"class_name": "Dense", "config": {"name": "dense_1", "units": 2, "activation": "log_softmax"}},
)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """The folder of a classifier from a network file, trained, with `data` and `c.yaml`."""
    folder = tmp_path_factory.mktemp("classifier")
    write_images(folder / "data" / "training", {"cold": 13, "warm": 11})
    write_images(folder / "data" / "testing", {"cold": 4, "warm": 3}, seed=1)
    config = write_config(
        folder / "c.yaml", "classify", folder / "data", num_epochs=6, outfile="log.txt",
        layers=network(folder / "net.json", *CLASSIFIER),
    )  # fmt: skip
    succeed("classify", "--config", config)
    return folder


def test_a_network_file_keeps_its_flags_and_its_checkpoint_its_network(classifier, tmp_path):
    found = summary(classifier / "run")
    assert (found["test_accuracy"], found["test_images"]) == (1.0, 7)
    # 3 x 3 x 3 x 4 + 4, frozen 4 x 4, 32 x 32 x 4 x 2 + 2.
    assert (found["parameters"], found["trainable_parameters"]) == (112 + 16 + 8194, 112 + 8194)
    checkpoint = classifier / "run" / "model_checkpoints" / "model_checkpoint_6"
    assert not (checkpoint / "encoder.weights.h5").exists()
    # A checkpoint of a network file fits another network by the layers' names, though its file is gone.
    layers = (conv("conv1", 4, "relu"), conv("new", 3, "sigmoid"))
    (classifier / "net.json").rename(tmp_path / "moved.json")
    try:
        config = write_config(
            tmp_path / "d.yaml", "classify", classifier / "data", num_epochs=1,
            layers=network(tmp_path / "d.json", *layers, *CLASSIFIER[2:]), checkpoints={"load": f"{checkpoint}.pt"},
        )  # fmt: skip
        output = succeed("classify", "--config", config)
    finally:
        (tmp_path / "moved.json").rename(classifier / "net.json")
    assert "Skipping layer new: not found in model_checkpoint_6" in output
    assert "model_checkpoint_6 has weights [(4096, 2), (2,)], the model [(3072, 2), (2,)]" in output
    assert "Transferred 1 layer by name; skipped 1, mismatched 1, unused 1" in output


def test_evaluation_alone_scores_a_finished_classifier(classifier, tmp_path):
    checkpoint = classifier / "run" / "model_checkpoints" / "model_checkpoint_6"
    only = ("--set", "data.input_path=null", "--set", f"checkpoints.load={checkpoint}", "--workdir", tmp_path / "eval")
    succeed("classify", "--config", classifier / "c.yaml", *only, "--set", "data.test_output_path=out")
    trained, evaluated = summary(classifier / "run"), summary(tmp_path / "eval")
    assert evaluated["test_loss"] == pytest.approx(trained["test_loss"], rel=1e-6)
    assert evaluated["test_accuracy"] == 1.0
    assert "train_accuracy" not in evaluated
    assert (tmp_path / "eval" / "log_test.txt").read_text().startswith("# epoch loss accuracy\n0 ")
    assert not (tmp_path / "eval" / "model_checkpoints").exists()
    rows = list(csv.DictReader((tmp_path / "eval" / "out" / "predictions.csv").open()))
    assert [(row["image"], row["class"]) for row in rows] == [
        (f"{name}/{i:03}.png", name) for name, count in (("cold", 4), ("warm", 3)) for i in range(count)
    ]
    with h5py.File(tmp_path / "eval" / "out" / "predictions.h5") as file:
        assert file["cold/000.png"][()].sum() == pytest.approx(
            1, abs=1e-5
        )  # probabilities, though the network gives logs


@pytest.mark.stress
def test_images_without_class_folders_are_only_predicted(classifier, tmp_path):
    for i in range(3):
        shutil.copy(classifier / "data" / "testing" / "warm" / f"{i:03}.png", tmp_path)
    folder = tmp_path / "flat"
    folder.mkdir()
    for path in tmp_path.glob("*.png"):
        path.rename(folder / path.name)
    checkpoint = classifier / "run" / "model_checkpoints" / "model_checkpoint_6"
    changes = [
        f"checkpoints.load={checkpoint}",
        "data.input_path=null",
        f"data.test_input_path={folder}",
        "data.test_output_path=out",
    ]
    output = succeed(
        "classify", "--config", classifier / "c.yaml", "--workdir", tmp_path / "run",
        *(word for change in changes for word in ("--set", change)),
    )  # fmt: skip
    assert "no class folders, so only predictions are made" in output
    rows = list(csv.DictReader((tmp_path / "run" / "out" / "predictions.csv").open()))
    assert [row["class"] for row in rows] == ["warm"] * 3
    assert "test_accuracy" not in summary(tmp_path / "run")


@pytest.mark.stress
def test_an_evaluation_destroys_no_training(classifier, tmp_path):
    checkpoints = classifier / "run" / "model_checkpoints"
    before = sorted(path.name for path in checkpoints.iterdir())
    load = ("--set", "data.input_path=null", "--set", f"checkpoints.load={checkpoints}/model_checkpoint_6")
    evaluate = ("classify", "--config", classifier / "c.yaml", *load)
    assert "holds the run of a training; name another --workdir" in refuse(*evaluate, "--overwrite")
    assert "without data.input_path there is none" in refuse(*evaluate, "--resume")
    elsewhere = (*evaluate, "--workdir", tmp_path / "eval", "--set", f"checkpoints.save={checkpoints}")
    succeed(*elsewhere)
    assert "already exists; add --overwrite" in refuse(*elsewhere)
    succeed(*elsewhere, "--overwrite")
    assert sorted(path.name for path in checkpoints.iterdir()) == before
    assert summary(tmp_path / "eval")["epochs"] == 0


def test_two_runs_do_not_share_their_checkpoints(classifier, tmp_path):
    checkpoints = classifier / "run" / "model_checkpoints"
    save = ("--set", f"checkpoints.save={checkpoints}")
    error = refuse("classify", "--config", classifier / "c.yaml", "--workdir", tmp_path / "other", *save)
    assert f"{checkpoints} already holds a run; add --resume" in error


def test_weights_must_be_whole_where_nothing_is_trained(classifier, tmp_path):
    checkpoint = classifier / "run" / "model_checkpoints" / "model_checkpoint_6"
    other = network(tmp_path / "other.json", conv("conv9", 4, "relu"), *CLASSIFIER[1:])
    changes = [f"layers={other}", "data.input_path=null", f"checkpoints.load={checkpoint}"]
    assert "layer conv9 is not there; without training every layer needs its weights" in refuse(
        "classify", "--config", classifier / "c.yaml", "--workdir", tmp_path / "run",
        *(word for change in changes for word in ("--set", change)),
    )  # fmt: skip


@pytest.mark.stress
def test_a_keras_2_weight_file_is_loaded_by_name_with_a_report(classifier, tmp_path):
    generator = np.random.default_rng(0)
    kernel, bias = generator.normal(size=(3, 3, 3, 4)).astype(np.float32), np.arange(4, dtype=np.float32)
    with h5py.File(tmp_path / "keras2.h5", "w") as file:  # the layout of Keras 2's save_weights
        file.attrs["layer_names"] = [b"input_1", b"conv1", b"dense_1"]
        file.create_group("input_1").attrs["weight_names"] = []
        for layer, weights in {"conv1": [kernel, bias], "dense_1": [np.zeros((5, 2), np.float32), np.zeros(2)]}.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in ("kernel", "bias")]
            for name, value in zip(("kernel", "bias"), weights, strict=True):
                group[f"{layer}/{name}:0"] = value
    config = write_config(
        tmp_path / "c.yaml", "classify", classifier / "data", num_epochs=1, steps_per_epoch=1,
        layers=network(tmp_path / "net.json", conv("conv1", 4, "relu", trainable=False), *CLASSIFIER[1:]),
        checkpoints={"load": str(tmp_path / "keras2.h5")},
    )  # fmt: skip
    output = succeed("classify", "--config", config)
    assert "Skipping layer bn1: not found in keras2.h5\n" in output
    assert "Skipping layer dense_1: keras2.h5 has weights [(5, 2), (2,)], the model [(4096, 2), (2,)]" in output
    assert "Transferred 1 layer by name; skipped 1, mismatched 1, unused 0" in output
    with h5py.File(tmp_path / "run" / "model_checkpoints" / "model_checkpoint_1" / "model.weights.h5") as file:
        stored = [item[()] for item in _datasets(file)]
    assert any(np.array_equal(value, kernel) for value in stored)  # frozen: it is still what came from the file


@pytest.mark.stress
def test_the_head_of_a_classifier_goes_to_the_same_classes_alone(classifier, tmp_path):
    checkpoint = classifier / "run" / "model_checkpoints" / "model_checkpoint_6"
    other = tmp_path / "other"
    for name, new in {"cold": "ant", "warm": "bee"}.items():
        shutil.copytree(classifier / "data" / "training" / name, other / new)

    def run(name: str, *changes: str) -> str:
        named = ("checkpoints.save=null", "num_epochs=1", "steps_per_epoch=1", *changes)
        words = [word for change in named for word in ("--set", change)]
        return succeed("classify", "--config", classifier / "c.yaml", "--workdir", tmp_path / name, *words)

    elsewhere = (f"data.input_path={other}", "data.test_input_path=null")
    output = run("other", f"checkpoints.load={checkpoint}", *elsewhere)
    assert "Skipping layer dense_1: model_checkpoint_6 was trained on other classes: cold, warm\n" in output
    assert "Transferred 2 layers by name; skipped 1, mismatched 0, unused 0" in output
    output = run("same", f"checkpoints.load={checkpoint}")
    assert "Transferred 3 layers by name, all of the model" in output
    plain = tmp_path / "plain.weights.h5"  # as plain Keras writes it, which knows no class names
    with h5py.File(checkpoint / "model.weights.h5") as source, h5py.File(plain, "w") as target:
        for name in source:
            if name != "tfinpaint_network":
                source.copy(name, target)
    output = run("plain", f"checkpoints.load={plain}")
    assert "Skipping layer dense_1: plain.weights.h5 does not name the classes that it was trained on\n" in output
    # Without training there is no other head: the order of the classes is taken on trust, and said.
    output = run("evaluated", f"checkpoints.load={plain}", "data.input_path=null")
    assert (
        "plain.weights.h5 does not name the classes that it was trained on; its head is used for the classes cold, warm"
        in output
    )
    assert "Transferred 3 layers by name" in output
    assert summary(tmp_path / "evaluated")["test_accuracy"] == 1.0


def _datasets(group: h5py.Group) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    group.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (CLASSIFIER[2:3], r"the network's output has the shape 3072, the data has 2 classes: cold, warm"),
        ((*CLASSIFIER[2:3], {"class_name": "Dense", "config": {"name": "d", "units": 2}}), "linear"),
        ((*CLASSIFIER[2:3], {"class_name": "Lambda", "config": {"name": "evil"}}), "Lambda"),
    ],
)
def test_networks_that_cannot_classify_are_refused_in_one_line(images, tmp_path, layers, message):
    config = write_config(tmp_path / "c.yaml", "classify", images, layers=network(tmp_path / "net.json", *layers))
    error = refuse("classify", "--config", config)
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.stress
def test_a_seed_style_pair_of_configurations_shares_a_folder(images, tmp_path):
    inpaint = {
        "num_epochs": 1, "outfile": "out_inpaint.txt", "layers": network(tmp_path / "a.json", conv("conv1", 3, "sigmoid")),
        "checkpoints": {"save": "./model_checkpoints/", "interval": 10},
        "data": {
            "type": "images", "input_path": "./data/training/", "target_path": "./data/training/", "batch_size": 8,
            "transforms": [{"resize": [32, 32]}, {"random_patches": {"number": 4, "size": 8}}],
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.001}, "loss": {"function": "BCE"},
    }  # fmt: skip
    classify = {
        "outfile": "out_classify.txt",
        "layers": network(tmp_path / "b.json", conv("conv1", 3, "relu"), *CLASSIFIER[2:]),
        "checkpoints": {"load": "./model_checkpoints/model_checkpoint_100.pt"},
        "data": {
            "input_type": "images", "target_type": "labels", "input_path": "./data/training/", "batch_size": 8,
            "test_input_path": "./data/testing", "transforms": [{"resize": [32, 32]}],
        },
        "loss": {"function": "NLL"},
    }  # fmt: skip
    for name, section in (("inpaint", inpaint), ("classify", classify)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"neural_network": section}))
    succeed("pretrain", "--config", tmp_path / "inpaint.json")
    output = succeed("classify", "--config", tmp_path / "classify.json")
    assert "model_checkpoint_100 does not exist; using model_checkpoint_1, the newest one before it" in output
    assert "; the head (dense_1) is new" in output
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".json"} == {
        "data", "model_checkpoints", "inpaint_run", "classify_run",
        "out_inpaint_train.txt", "out_classify_train.txt", "out_classify_test.txt",
    }  # fmt: skip
    (line,) = (tmp_path / "out_classify_test.txt").read_text().splitlines()
    assert (line.split()[0], len(line.split())) == ("1", 3)  # epoch, loss, accuracy
    assert (
        tfinpaint("classify", "--config", tmp_path / "classify.json").returncode == 2
    )  # nothing is overwritten unasked


def test_log_softmax_and_nll_are_keras_sparse_cross_entropy(classifier):
    model = build_network(read_network(classifier / "net.json"))
    images = np.random.default_rng(0).random((16, 32, 32, 3), np.float32) * 50
    targets = np.arange(16, dtype=np.int32) % 2
    head = model.get_layer("dense_1")
    logits = keras.Model(model.input, head.input)(images) @ head.kernel + head.bias
    expected = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
    objective = losses.build_objective(Loss(function="NLL"), "log_softmax")
    found = objective.per_example({"targets": targets}, model(images))
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-6)
