"""Several ranks: the same numbers as one, under every launcher; clean ends when something is wrong."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_config, write_images

pytestmark = pytest.mark.parallel

BIN = Path(sys.executable).parent
TIMEOUT_SECONDS = 240
LAUNCHERS = {
    "mpi": ["horovodrun", "--mpi", "--network-interfaces", "lo", "-np"],
    "gloo": ["horovodrun", "--gloo", "--network-interfaces", "lo", "-np"],
    "mpirun": ["mpirun", "--oversubscribe", "--mca", "btl_tcp_if_include", "lo", "-np"],
}


def launch(*arguments: str | Path, launcher: str = "mpi", ranks: int = 2) -> subprocess.CompletedProcess:
    """Run `python -m tfinpaint.<arguments>` on several ranks; a hang fails by the time-out."""
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    command, *rest = map(str, arguments)
    return subprocess.run(
        [*LAUNCHERS[launcher], str(ranks), sys.executable, "-m", f"tfinpaint.{command}", *rest],
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment,
    )  # fmt: skip


def succeed(*arguments: str | Path, **options: object) -> str:
    done = launch(*arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def launch_beside(folder: Path, *arguments: str) -> str:
    """Run a command on two ranks from within a folder, as its user would."""
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [*LAUNCHERS["mpi"], "2", "python", "-m", *arguments],
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alone(command: str, *arguments: str | Path) -> None:
    subprocess.run(
        [sys.executable, "-m", f"tfinpaint.{command}", *map(str, arguments)], check=True, capture_output=True
    )


def weights(run: Path, epoch: int = 1, model: str = "model") -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(run / "model_checkpoints" / f"model_checkpoint_{epoch}" / f"{model}.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def largest_relative_difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """Over all tensors, the largest difference divided by the largest magnitude of its tensor."""
    assert ours.keys() == theirs.keys()
    return max(np.abs(ours[n] - theirs[n]).max() / max(np.abs(theirs[n]).max(), 1e-12) for n in ours)


def test_gradients_are_averaged_and_ranks_stay_equal():
    """Under every other launcher: test_doctor.py."""
    output = succeed("canary", launcher="mpirun")
    assert "canary: 2 rank(s), gradients averaged, weights equal to the last byte" in output


@pytest.fixture
def equal_runs(images, tmp_path):
    """20 SGD steps on equal global batches with frozen batch norms; images per rank differ."""
    changes = {
        "num_epochs": 1,
        "steps_per_epoch": 20,
        "optimizer": {"type": "SGD", "learning_rate": 0.1, "momentum": 0.9},
        "model": {"encoder": "tiny", "trainable": "batchnorm_frozen"},
    }
    return write_config(tmp_path / "equal.yaml", "pretrain", images, **changes)


REGIONS = [{"resize": [32, 32]}, {"random_region": {"area": [0.02, 0.7], "fill": "noise"}}]
JOINT = {
    "function": "L1",
    "target": "masked",
    "overlap": 1,
    "adversarial": {"weight": 0.1, "optimizer": {"type": "SGD"}},
}


def test_all_that_two_ranks_measure_is_what_one_measures(equal_runs, tmp_path):
    # Holes of 2 to 70 % of an image: each rank's share of the hole is another one at every step. With a mean of the two
    # ranks' means the weights part at the first step, and the losses from the second one on, by 1e-5.
    # A checkpoint is saved only when all ranks hold the same bytes, so this also says that the ranks are equal.
    options = ("--config", equal_runs, "--set", f"data.transforms={json.dumps(REGIONS)}")
    options = (*options, "--set", f"loss={json.dumps(JOINT)}", "--set", "steps_per_epoch=1", "--set", "num_epochs=3")
    one, two = tmp_path / "one", tmp_path / "two"
    alone("pretrain", *options, "--workdir", one)
    succeed("pretrain", *options, "--workdir", two, launcher="gloo")
    for name in ("model", "discriminator"):
        assert largest_relative_difference(weights(two, 3, name), weights(one, 3, name)) <= 1e-5
    ours, theirs = ([json.loads(line) for line in (run / "metrics.jsonl").open()] for run in (two, one))
    losses = ("loss", "reconstruction_loss", "adversarial_loss", "discriminator_loss")
    of_images = ("hole_psnr_db", "hole_ssim", "image_l1_percent")
    assert len(ours) == 6
    for mine, its in zip(ours, theirs, strict=True):
        for name in losses if its["phase"] == "train" else (*losses, *of_images):
            assert mine[name] == pytest.approx(its[name], rel=1e-6)
    ours, theirs = (json.loads((run / "summary.json").read_text())["measurements"] for run in (two, one))
    for name in ("mean_colour", "nearest", "biharmonic"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6)


def test_batch_norms_that_a_transfer_leaves_frozen_get_the_statistics_of_one_rank(images, tmp_path):
    # Each rank sees 2 of 4 images: normalised by these alone, the first step's loss is another one by tens of percent.
    config = write_config(tmp_path / "p.yaml", "pretrain", images, num_epochs=1, steps_per_epoch=2)
    alone("pretrain", "--config", config, "--workdir", tmp_path / "pretrained")
    changes = {"num_epochs": 1, "steps_per_epoch": 1, "data__batch_size": 4, "model__trainable": "batchnorm_frozen"}
    config = write_config(tmp_path / "c.yaml", "classify", images, **changes)
    options = ("--config", config, "--set", f"checkpoints.load={tmp_path / 'pretrained'}")
    alone("classify", *options, "--workdir", tmp_path / "one")
    losses = {"one": [json.loads(line)["loss"] for line in (tmp_path / "one" / "metrics.jsonl").open()]}
    for launcher in ("mpirun", "gloo"):
        succeed("classify", *options, "--workdir", tmp_path / launcher, launcher=launcher)
        assert largest_relative_difference(weights(tmp_path / launcher), weights(tmp_path / "one")) <= 1e-4
        losses[launcher] = [json.loads(line)["loss"] for line in (tmp_path / launcher / "metrics.jsonl").open()]
        assert losses[launcher] == pytest.approx(losses["one"], rel=1e-4)


def test_xla_inside_and_collectives_outside(images, tmp_path):
    changes = {"num_epochs": 1, "steps_per_epoch": 2, "jit_compile": True, "precision": "mixed_bfloat16"}
    config = write_config(tmp_path / "c.yaml", "pretrain", images, data__test_input_path=None, **changes)
    succeed("pretrain", "--config", config)


@pytest.mark.parametrize("launcher", ["mpi", "gloo"])
def test_a_wrong_configuration_ends_every_rank_with_one_clear_line(images, tmp_path, launcher):
    config = write_config(tmp_path / "c.yaml", "pretrain", images, data__batch_size=9)
    done = launch("pretrain", "--config", config, launcher=launcher)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("data.batch_size 9 is the batch over all ranks") == 1
    assert "Traceback" not in done.stdout + done.stderr.split("error: ")[-1].split("\n")[0]


@pytest.mark.parametrize("launcher", ["mpi", "gloo"])
def test_a_bad_image_in_one_ranks_share_stops_all(images, tmp_path, launcher):
    bad = images / "training" / "cold" / "001.png"  # index 1: rank 1 reads it
    bad.write_bytes(b"not an image")
    config = write_config(tmp_path / "c.yaml", "pretrain", images)
    done = launch("pretrain", "--config", config, launcher=launcher)
    assert done.returncode != 0
    assert f"error: {bad}: not an image" in done.stdout + done.stderr


def test_ranks_that_see_different_files_are_told(tmp_path):
    write_images(tmp_path / "data" / "training", {"a": 9, "b": 9})
    config = write_config(tmp_path / "c.yaml", "pretrain", tmp_path / "data", data__test_input_path=None)
    # The second rank's listing is made different by a wrapper that removes one name.
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text(
        "import sys\n"
        "from tfinpaint import dist, pretrain\n"
        "from tfinpaint.data import sources\n"
        "whole = sources.list_images\n"
        "sources.list_images = lambda *given, **named: whole(*given, **named).select(range(18 - dist.launched_rank()))\n"
        "sys.exit(pretrain.main(sys.argv[1:]))\n"
    )
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [*LAUNCHERS["mpi"], "2", sys.executable, str(wrapper), "--config", str(config)],
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment,
    )  # fmt: skip
    assert done.returncode != 0
    assert "the ranks see different files there" in done.stdout + done.stderr


def test_records_on_two_ranks_train_as_files_on_one(images, equal_runs, tmp_path):
    packed = tmp_path / "packed"
    alone("prepare", images / "training", packed, "--records", "--no-split")
    one, two = tmp_path / "one", tmp_path / "two"
    options = ("--config", equal_runs, "--set", "data.preload=false", "--set", "data.test_input_path=null")
    options = (*options, "--set", "steps_per_epoch=1", "--set", "num_epochs=3")
    alone("pretrain", *options, "--workdir", one)
    succeed("pretrain", *options, "--set", f"data.input_path={packed}", "--workdir", two)
    losses = [[json.loads(line)["loss"] for line in (run / "metrics.jsonl").open()] for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.fixture
def seed_folder(natural_images, tmp_path) -> Path:
    """The tutorial's four files, and 12 + 2 of each class of its images beside them."""
    source = natural_images.parent / "seed"
    if not source.is_dir():
        pytest.skip(f"{source.name} is not beside the project")
    for path in source.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    taken: Counter[str] = Counter()
    with zipfile.ZipFile(natural_images) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
            category = Path(name).parent.name
            taken[category] += 1
            if taken[category] <= 14:
                target = tmp_path / "natural_images" / ("training" if taken[category] <= 12 else "testing") / category
                target.mkdir(parents=True, exist_ok=True)
                (target / Path(name).name).write_bytes(archive.read(name))
    return tmp_path


def test_the_tutorials_own_files_run_unmodified(seed_folder):
    short = ("--set", "num_epochs=1", "--set", "steps_per_epoch=1", "--set", "data.batch_size=8")
    launch_beside(seed_folder, "tfinpaint.pretrain", "--config", "config_inpaint_feature_extraction.json", *short)
    output = launch_beside(seed_folder, "tfinpaint.classify", "--config", "config_inpaint_classifier.json", *short)
    assert "Skipping layer dense_1: not found in model_checkpoint_1" in output
    assert "Transferred 106 layers by name; skipped 1, mismatched 0, not needed 5" in output
    runs = {name: seed_folder / f"config_inpaint_{name}_run" for name in ("feature_extraction", "classifier")}
    inpainter, classifier = (json.loads((run / "summary.json").read_text()) for run in runs.values())
    assert (inpainter["parameters"], inpainter["trainable_parameters"]) == (43_121_475, 43_068_355)
    assert (classifier["parameters"], classifier["trainable_parameters"]) == (23_849_864, 23_743_624)
    assert (classifier["world_size"], classifier["test_images"]) == (2, 16)
    for name in ("feature_extraction_train", "classifier_train", "classifier_test"):
        (line,) = (seed_folder / f"out_inpaint_{name}.txt").read_text().splitlines()
        assert line.startswith("1 ")
        assert len(line.split()) == (2 if "feature" in name else 3)  # epoch, loss, accuracy


def test_class_weights_and_predictions_of_two_ranks_are_those_of_one(images, tmp_path):
    # Ranks see different classes, so each has weights of its own to share the mean over.
    changes = {
        "num_epochs": 1,
        "steps_per_epoch": 10,
        "loss": {"function": "NLL", "weight": [1.0, 7.0]},
        "optimizer": {"type": "SGD", "learning_rate": 0.1, "momentum": 0.9},
        "model": {"encoder": "tiny", "trainable": "batchnorm_frozen"},
        "data__test_output_path": "predictions",
    }
    config = write_config(tmp_path / "c.yaml", "classify", images, **changes)
    one, two = tmp_path / "one", tmp_path / "two"
    alone("classify", "--config", config, "--workdir", one)
    succeed("classify", "--config", config, "--workdir", two, launcher="gloo")
    assert largest_relative_difference(weights(two), weights(one)) <= 1e-5
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
    # Evaluation alone, of a single image: the second rank has none.
    for path in sorted((images / "testing").rglob("*.png"))[1:]:
        path.unlink()
    shutil.rmtree(images / "testing" / "warm")
    load = f"checkpoints.load={two}/model_checkpoints/model_checkpoint_1"
    evaluation = ("--set", "data.input_path=null", "--set", load, "--workdir", tmp_path / "evaluated")
    succeed("classify", "--config", config, *evaluation)
    assert json.loads((tmp_path / "evaluated" / "summary.json").read_text())["test_images"] == 1
    assert (tmp_path / "evaluated" / "predictions" / "predictions.csv").read_text().count("\n") == 2


def test_every_option_at_once_resumes_and_transfers(images, tmp_path):
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
            "timeline": True,
        },
    }
    config = write_config(tmp_path / "pretrain.yaml", "pretrain", images, **changes)
    run = tmp_path / "pretrained"
    output = succeed("pretrain", "--config", config, "--workdir", run, launcher="gloo")
    assert "2 ranks over Gloo, 1 thread(s) each; " in output
    assert '"name": "gradients_2_' in (run / "timeline.json").read_text()  # the last of three groups
    checkpoint = run / "model_checkpoints" / "model_checkpoint_2"
    header = json.loads((checkpoint / "checkpoint.json").read_text())
    assert (header["batch_size"], header["lr_factor"], header["loss_scaled"]) == (8, 2.0, True)
    with np.load(checkpoint / "optimizer.npz") as state:
        iterations, scale = (int(state[name]) for name in ("0", str(len(state) - 2)))
    assert (iterations, scale) == (4, 2**15)  # no step was left out
    more = ("--resume", "--set", "num_epochs=3")
    other = subprocess.run(
        [sys.executable, "-m", "tfinpaint.pretrain", "--config", config, "--workdir", run, *more],
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
    )  # fmt: skip
    assert other.returncode == 0, other.stderr
    for change in ("batch_size was 8, is 4", "lr_factor was 2.0, is 1.0", "Saved by 2 rank(s), going on with 1"):
        assert change in other.stdout
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["world_size"] == 1
    # Trained on two ranks, in float16, with synchronised batch norms; moved into a plain classifier on one.
    classifier = write_config(
        tmp_path / "classify.yaml", "classify", images, num_epochs=1, checkpoints={"load": str(checkpoint)}
    )
    alone("classify", "--config", classifier, "--workdir", tmp_path / "classified")
    assert json.loads((tmp_path / "classified" / "summary.json").read_text())["test_images"] == 7
