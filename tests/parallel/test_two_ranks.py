"""Two ranks give the numbers of one rank, under MPI and under Gloo. All cases share one launch of each (tests/ranks.py)."""

import csv
import json
import re
import shutil

import h5py
import numpy as np
import pytest
from commandline import records
from commandline import succeed as succeed_alone
from conftest import write_config, write_small, write_training_and_testing
from ranks import alone, largest_relative_difference, weights

from tfinpaint.checkpoint.find import list_checkpoints

pytestmark = [pytest.mark.parallel, pytest.mark.usefixtures("undrawn_figures")]


@pytest.fixture(params=["mpi", "gloo"])
def two(request):
    """Two ranks under each launcher in turn."""
    return request.getfixturevalue(request.param)


# Two ranks under MPI by default, and under Gloo in the stress tier.
UNDER_BOTH = pytest.mark.parametrize("two", ["mpi", pytest.param("gloo", marks=pytest.mark.stress)], indirect=True)


def test_every_collective_is_right_and_ranks_stay_equal(two):
    assert "canary: 2 ranks, gradients averaged, weights equal to the last byte" in two.succeed("canary")


def test_ranks_that_have_made_different_numbers_of_models_find_each_other(two):
    found = json.loads(two.run("uneven_models").splitlines()[-1])
    assert found["rows"] == [pytest.approx([-1.0, 1.0]), pytest.approx([1.0, -1.0])]  # 1 and 3, -2 and -6
    # A normalised value of two is -1 or 1 whatever the values are, so that nothing changes it.
    assert found["gradient"] == [pytest.approx([0.0, 0.0], abs=1e-5)]


@pytest.fixture
def equal_runs(images, tmp_path):
    """20 SGD steps on equal global batches with frozen batch norms; images per rank differ."""
    changes = {
        "num_epochs": 1,
        "steps_per_epoch": 20,
        "optimizer": {"type": "SGD", "learning_rate": 0.1, "momentum": 0.9},
        "model": {"trainable": "batchnorm_frozen"},
    }
    return write_config(tmp_path / "equal.yaml", "pretrain", images, **changes)


REGIONS = [{"resize": [32, 32]}, {"random_region": {"area": [0.02, 0.7], "fill": "noise"}}]
JOINT = {
    "function": "L1",
    "target": "masked",
    "overlap": 1,
    "adversarial": {"weight": 0.1, "optimizer": {"type": "SGD"}},
}


def test_all_that_two_ranks_measure_is_what_one_measures(equal_runs, tmp_path, gloo):
    # Holes of 2 to 70 % of an image: each rank's share of the hole is another one at every step. With a mean of the two
    # ranks' means the weights part at the first step, and the losses from the second one on, by 1e-5.
    # A checkpoint is saved only when all ranks hold the same bytes, so this also says that the ranks are equal.
    options = ("--config", equal_runs, "--set", f"data.transforms={json.dumps(REGIONS)}")
    options = (*options, "--set", f"loss={json.dumps(JOINT)}", "--set", "steps_per_epoch=1", "--set", "num_epochs=2")
    one, two = tmp_path / "one", tmp_path / "two"
    alone("pretrain", *options, "--workdir", one)
    gloo.succeed("pretrain", *options, "--workdir", two)
    for name in ("model", "discriminator"):
        assert largest_relative_difference(weights(two, name), weights(one, name)) <= 1e-5
    ours, theirs = records(two), records(one)
    losses = ("loss", "reconstruction_loss", "adversarial_loss", "discriminator_loss")
    of_images = ("hole_psnr_db", "hole_ssim", "image_l1_percent")
    assert len(ours) == 4
    for mine, its in zip(ours, theirs, strict=True):
        for name in losses if its["phase"] == "train" else (*losses, *of_images):
            assert mine[name] == pytest.approx(its[name], rel=1e-6)
    ours, theirs = (json.loads((run / "summary.json").read_text())["measurements"] for run in (two, one))
    for name in ("mean_colour", "nearest", "biharmonic"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6)


@UNDER_BOTH
def test_batch_norms_that_a_transfer_leaves_frozen_get_the_statistics_of_one_rank(images, tmp_path, two):
    # Each rank sees 2 of 4 images: normalised by these alone, the first step's loss is another one by tens of percent.
    short = {"num_epochs": 1, "steps_per_epoch": 1, "data__test_input_path": None}
    config = write_config(tmp_path / "p.yaml", "pretrain", images, **short)
    alone("pretrain", "--config", config, "--workdir", tmp_path / "pretrained")
    changes = {"num_epochs": 1, "steps_per_epoch": 1, "data__batch_size": 4, "model__trainable": "batchnorm_frozen"}
    config = write_config(tmp_path / "c.yaml", "classify", images, **changes)
    options = ("--config", config, "--set", f"checkpoints.load={tmp_path / 'pretrained'}")
    alone("classify", *options, "--workdir", tmp_path / "one")
    losses = [record["loss"] for record in records(tmp_path / "one")]
    run = tmp_path / "two"
    two.succeed("classify", *options, "--workdir", run)
    assert largest_relative_difference(weights(run), weights(tmp_path / "one")) <= 1e-4
    assert [record["loss"] for record in records(run)] == pytest.approx(losses, rel=1e-4)


@pytest.mark.stress
def test_xla_inside_and_collectives_outside(images, tmp_path, mpi):
    changes = {"num_epochs": 1, "steps_per_epoch": 2, "jit_compile": True, "precision": "mixed_bfloat16"}
    config = write_config(
        tmp_path / "c.yaml", "pretrain", images, encoder="tiny", data__test_input_path=None, **changes
    )
    mpi.succeed("pretrain", "--config", config)


def test_records_on_two_ranks_train_as_files_on_one(images, equal_runs, tmp_path, mpi):
    packed = tmp_path / "packed"
    alone("prepare", images / "training", packed, "--records", "--no-split")
    one, two = tmp_path / "one", tmp_path / "two"
    options = ("--config", equal_runs, "--set", "data.preload=false", "--set", "data.test_input_path=null")
    options = (*options, "--set", "steps_per_epoch=1", "--set", "num_epochs=2")
    alone("pretrain", *options, "--workdir", one)
    mpi.succeed("pretrain", *options, "--set", f"data.input_path={packed}", "--workdir", two)
    losses = [[record["loss"] for record in records(run)] for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.stress
def test_class_weights_averages_and_predictions_of_two_ranks_are_those_of_one(images, tmp_path, gloo):
    # Ranks see different classes, so each has weights of its own to share the mean over. The models are averages.
    changes = {
        "num_epochs": 1,
        "steps_per_epoch": 10,
        "loss": {"function": "NLL", "weight": [1.0, 7.0], "label_smoothing": 0.1},
        "optimizer": {"type": "SGD", "learning_rate": 0.1, "momentum": 0.9, "layer_decay": 0.9, "ema_decay": 0.9},
        "model": {"encoder": "tiny", "trainable": "batchnorm_frozen"},
        "data__test_output_path": "predictions",
    }
    # Only the project's own network can be recomputed, as the two ranks do.
    config = write_config(tmp_path / "c.yaml", "classify", images, encoder="tiny", **changes)
    one, two = tmp_path / "one", tmp_path / "two"
    alone("classify", "--config", config, "--workdir", one)
    gloo.succeed("classify", "--config", config, "--workdir", two, "--set", "recompute=true")
    assert largest_relative_difference(weights(two), weights(one)) <= 1e-5
    states = [np.load(list_checkpoints(run / "model_checkpoints")[-1] / "optimizer.npz") for run in (two, one)]
    assert largest_relative_difference(*({name: state[name] for name in state.files} for state in states)) <= 1e-4
    ours, theirs = ({}, {})
    for run, found in ((one, ours), (two, theirs)):
        with h5py.File(run / "predictions" / "predictions.h5") as file:
            file.visititems(
                lambda n, item, found=found: found.update({n: item[()]} if isinstance(item, h5py.Dataset) else {})
            )
        assert sorted(path.name for path in (run / "predictions").iterdir()) == ["predictions.csv", "predictions.h5"]
    assert len(ours) == 7
    assert largest_relative_difference(theirs, ours) <= 1e-4
    assert (one / "predictions" / "predictions.csv").read_text().count("\n") == 8
    mine, its = (json.loads((run / "summary.json").read_text()) for run in (two, one))
    assert mine["test_classes"] == its["test_classes"]
    assert mine["test_expected_calibration_error"] == pytest.approx(its["test_expected_calibration_error"], rel=1e-4)
    # Evaluation alone, of a single image: the second rank has none.
    for path in sorted((images / "testing").rglob("*.png"))[1:]:
        path.unlink()
    shutil.rmtree(images / "testing" / "warm")
    load = f"checkpoints.load={two}/model_checkpoints/model_checkpoint_1"
    evaluation = ("--set", "data.input_path=null", "--set", load, "--workdir", tmp_path / "evaluated")
    gloo.succeed("classify", "--config", config, *evaluation)
    assert json.loads((tmp_path / "evaluated" / "summary.json").read_text())["test_images"] == 1
    assert (tmp_path / "evaluated" / "predictions" / "predictions.csv").read_text().count("\n") == 2


@pytest.mark.stress
def test_every_option_at_once_resumes_and_transfers(images, tmp_path, gloo):
    changes = {
        "num_epochs": 2,
        "steps_per_epoch": 2,
        "precision": "mixed_float16",
        "accumulate_steps": 2,
        "optimizer": {"type": "Adam", "learning_rate": 1e-3, "clip_norm": 1.0},
        "data__batch_size": 4,
        "data__batch_size_per_rank": True,
        "distributed": {
            "lr_scaling": "linear",
            "lr_warmup_epochs": 1,
            "sync_batchnorm": True,
            "gradient_groups": 3,
            "compression": "fp16",
        },
    }
    config = write_config(tmp_path / "pretrain.yaml", "pretrain", images, encoder="tiny", **changes)
    run = tmp_path / "pretrained"
    output = gloo.succeed("pretrain", "--config", config, "--workdir", run)
    assert re.search(r"^2 ranks over Gloo, \d+ threads? each$", output, re.MULTILINE)
    assert json.loads((run / "communication.json").read_text())["over"] == "Gloo"
    checkpoint = run / "model_checkpoints" / "model_checkpoint_2"
    header = json.loads((checkpoint / "checkpoint.json").read_text())
    assert (header["batch_size"], header["lr_factor"], header["loss_scaled"]) == (8, 2.0, True)
    with np.load(checkpoint / "optimizer.npz") as state:
        iterations, scale = (int(state[name]) for name in ("0", str(len(state) - 2)))
    assert (iterations, scale) == (4, 2**15)  # no step was left out
    output = succeed_alone("pretrain", "--config", config, "--workdir", run, "--resume", "--set", "num_epochs=3")
    for change in ("batch_size was 8, is 4", "lr_factor was 2.0, is 1.0", "Resuming with 1 rank instead of 2"):
        assert change in output
    assert records(run)[-1]["world_size"] == 1
    # Trained on two ranks, in float16, with synchronised batch norms; moved into a plain classifier on one.
    classifier = write_config(
        tmp_path / "classify.yaml",
        "classify",
        images,
        encoder="tiny",
        num_epochs=1,
        checkpoints={"load": str(checkpoint)},
    )
    alone("classify", "--config", classifier, "--workdir", tmp_path / "classified")
    assert json.loads((tmp_path / "classified" / "summary.json").read_text())["test_images"] == 7


@UNDER_BOTH
def test_two_ranks_choose_the_best_epoch_of_one_and_end_with_it(tmp_path, two):
    # Validation images are shared out among the ranks: 3 and 3. The loss rises again at this learning rate.
    optimizer = {"type": "SGD", "learning_rate": 3.0, "ema_decay": 0.5}
    network = [
        {"class_name": "Flatten", "config": {"batch_input_shape": [None, 16, 16, 3]}},
        {"class_name": "Dense", "config": {"units": 2, "activation": "softmax"}},
    ]
    changes = {"num_epochs": 8, "early_stopping": {"patience": 2}, "model": {}, "optimizer": optimizer}
    config = write_small(tmp_path, write_training_and_testing(tmp_path), layers=network, **changes)
    options = ("--config", config, "--set", "data.validation_fraction=0.25", "--set", "loss.weight=balanced")
    succeed_alone("classify", *options, "--workdir", tmp_path / "one")
    two.succeed("classify", *options, "--workdir", tmp_path / "two")
    ours, theirs = (records(tmp_path / name) for name in ("two", "one"))
    assert [(r["phase"], r["epoch"]) for r in ours] == [(r["phase"], r["epoch"]) for r in theirs]
    assert [r["loss"] for r in ours] == pytest.approx([r["loss"] for r in theirs], rel=1e-4)
    assert ours[-1]["phase"] == "test"
    assert ours[-1]["epoch"] < max(r["epoch"] for r in ours) < 8


@pytest.mark.stress
def test_a_fitted_head_mixed_images_and_groups_that_are_unfrozen_are_those_of_one_rank(images, tmp_path, mpi, gloo):
    model = {"encoder": "tiny", "head": "pool", "head_init": "logistic_regression", "trainable": "batchnorm_frozen"}
    changes = {
        "num_epochs": 2,
        "steps_per_epoch": 2,
        "model": model | {"batchnorm_batches": 0},
        "loss": {"function": "NLL", "weight": [1.0, 3.0]},
        "optimizer": {"type": "SGD", "learning_rate": 0.05, "momentum": 0.9, "unfreeze_every": 1},
        "data__mixup": 0.5,
    }
    config = write_config(tmp_path / "c.yaml", "classify", images, encoder="tiny", **changes)
    alone("classify", "--config", config, "--workdir", tmp_path / "one")
    theirs = records(tmp_path / "one")
    for launcher in (mpi, gloo):
        output = launcher.succeed("classify", "--config", config, "--overwrite", "--workdir", tmp_path / "two")
        assert output.count("The head begins as logistic regression on the features of 24 training images") == 1
        difference = largest_relative_difference(weights(tmp_path / "two"), weights(tmp_path / "one"))
        assert difference <= 1e-4, difference
        for ours, its in zip(records(tmp_path / "two"), theirs, strict=True):
            assert (ours["loss"], ours["accuracy"]) == pytest.approx((its["loss"], its["accuracy"]), rel=1e-4)


@pytest.mark.stress
def test_layers_that_are_unfrozen_on_two_ranks_train_as_on_one(tmp_path, mpi):
    data = write_training_and_testing(tmp_path)
    network = [
        {"class_name": "Conv2D", "config": {"filters": 4, "kernel_size": 3, "batch_input_shape": [None, 16, 16, 3]}},
        {"class_name": "ReLU"},
        {"class_name": "GlobalAveragePooling2D"},
        {"class_name": "Dense", "config": {"units": 2, "activation": "softmax"}},
    ]
    optimizer = {"type": "Adam", "learning_rate": 0.01, "clip_norm": 1.0}
    config = write_small(tmp_path, data, num_epochs=1, layers=network, optimizer=optimizer, accumulate_steps=2)
    for folder, succeed in (("one", succeed_alone), ("two", mpi.succeed)):
        run = ("--workdir", tmp_path / folder, "--set")
        succeed("classify", "--config", config, *run, 'model.trainable=["dense*"]')
        change = ("model.trainable=all", "--set", "num_epochs=2", "--allow-change", "model.trainable")
        output = succeed("classify", "--resume", *run, *change)
        assert output.count("kept for 2 weights, new for 2 that were not trained before, dropped for 0") == 1
        difference = largest_relative_difference(weights(tmp_path / folder), weights(tmp_path / "one"))
        assert difference <= 1e-4, (folder, difference)


@UNDER_BOTH
def test_features_that_each_rank_computes_once_train_as_those_of_one_rank(tmp_path, two):
    network = [
        {"class_name": "Conv2D", "config": {"filters": 4, "kernel_size": 3, "batch_input_shape": [None, 16, 16, 3]}},
        {"class_name": "BatchNormalization"},
        {"class_name": "ReLU"},
        {"class_name": "GlobalAveragePooling2D"},
        {"class_name": "Dense", "config": {"units": 2, "activation": "softmax"}},
    ]
    optimizer = {"type": "SGD", "learning_rate": 0.1, "momentum": 0.9}
    changes = {"num_epochs": 2, "layers": network, "optimizer": optimizer}
    config = write_small(tmp_path, write_training_and_testing(tmp_path), **changes)
    options = ("--config", config, "--set", 'model.trainable=["dense*"]')
    options = (*options, "--set", "data.transforms=[{resize: [16, 16]}]")
    succeed_alone("classify", *options, "--workdir", tmp_path / "one")
    output = two.succeed("classify", *options, "--workdir", tmp_path / "two")
    for images in ("24 training", "7 held-out"):
        assert output.count(f"computing the features of {images} images once") == 1
    assert largest_relative_difference(weights(tmp_path / "two"), weights(tmp_path / "one")) <= 1e-5
    ours, theirs = ([record["loss"] for record in records(tmp_path / name)] for name in ("two", "one"))
    assert ours == pytest.approx(theirs, rel=1e-5)
    ours, theirs = (
        list(csv.reader((tmp_path / name / "figures" / "test_predictions.csv").open())) for name in ("two", "one")
    )
    assert len(ours) == 8  # rank 0 has tested every other image
    assert [line[:3] for line in ours] == [line[:3] for line in theirs]
    probabilities = ([float(line[3]) for line in lines[1:]] for lines in (ours, theirs))
    assert next(probabilities) == pytest.approx(next(probabilities), abs=1e-5)


LARGEST = {
    "accumulation, clipping, masked loss": 1e-5,
    "sync_batchnorm": 5e-4,  # dividing by deviations makes rounding errors grow from step to step
    "mixed_bfloat16": 2e-2,  # each rank rounds its own gradients, to 8 bits; biases begin at 0
}


@pytest.mark.parametrize(
    "cases", [["accumulation, clipping, masked loss"], pytest.param([*LARGEST], marks=pytest.mark.stress)]
)
def test_two_ranks_end_with_the_weights_of_one(gloo, cases):
    """Run the cases of tests/stress/equal_weights.py in which the most comes together."""
    found = json.loads(gloo.run("equal_weights", "--cases", *cases).splitlines()[-1])
    assert (found["ranks"], found["steps"]) == (2, 20)
    assert [*found["largest relative difference"]] == cases
    for case, difference in found["largest relative difference"].items():
        assert difference <= LARGEST[case], found


@pytest.mark.stress
def test_calls_of_the_python_interface_on_two_ranks_train_as_a_command_on_one(images, tmp_path, gloo):
    changes = {"steps_per_epoch": 1, "figures_interval": 100, "data__test_input_path": None}
    config = write_config(tmp_path / "c.yaml", "pretrain", images, model__trainable="batchnorm_frozen", **changes)
    alone("pretrain", "--config", config, "--workdir", tmp_path / "one")
    losses = [record["loss"] for record in records(tmp_path / "one") if record["phase"] == "train"]
    first, second = tmp_path / "first", tmp_path / "second"
    given = json.loads(gloo.run("call_pretrain", config, first, second).splitlines()[-1])
    assert given[0] == given[1]  # what each rank was given by its two calls
    assert [path for _, path in given[0]] == [
        str(list_checkpoints(run / "model_checkpoints")[-1]) for run in (first, second)
    ]
    for found, _ in given[0]:
        assert found == pytest.approx(losses, rel=1e-5)
