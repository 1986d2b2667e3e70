"""Two ranks that are stopped in the middle of an epoch: they, and other ranks than these, go on from there."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import outcome, write_small, write_training_and_testing
from test_parallel import LAUNCHERS, TIMEOUT_SECONDS, largest_relative_difference, succeed, weights

pytestmark = pytest.mark.parallel

BIN = Path(sys.executable).parent


def stop_in_an_epoch(launcher: str, number: int, run: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    """Start two ranks, and send the launcher a signal once a checkpoint was made within an epoch."""
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    command = [*LAUNCHERS[launcher], "2", sys.executable, "-m", "tfinpaint.classify", *map(str, arguments)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not list((run / "model_checkpoints").glob("model_checkpoint_*_step_*")) and time.monotonic() < deadline:
        assert started.poll() is None, started.communicate()
        time.sleep(0.05)
    started.send_signal(number)
    output, errors = started.communicate(timeout=TIMEOUT_SECONDS)
    return subprocess.CompletedProcess(command, started.returncode, output, errors)


def test_two_ranks_go_on_to_the_same_bytes_and_one_rank_says_what_is_different(tmp_path):
    data = write_training_and_testing(tmp_path)
    # Moving averages (batchnorm_batches is 0) and dropout: what two ranks know is not the same.
    config = write_small(tmp_path, data, num_epochs=8, checkpoints={"interval_steps": 1, "keep": 1})
    succeed("classify", "--config", config, "--workdir", tmp_path / "whole", launcher="mpirun")

    run = tmp_path / "run"
    done = stop_in_an_epoch("mpirun", signal.SIGUSR1, run, "--config", config, "--workdir", run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"Stopped .*, as SIGUSR1 asked; everything is saved, resume with: tfinpaint classify --resume", done.stdout
    )
    assert not (run / "summary.json").exists()
    output = succeed("classify", "--resume", "--workdir", run, launcher="mpirun")
    assert output.count("Going on after epoch ") == 1  # rank 0 alone speaks
    assert outcome(run) == outcome(tmp_path / "whole")
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["test_images"], summary["world_size"]) == (7, 2)  # every image is counted once

    alone = tmp_path / "alone"
    stop_in_an_epoch("gloo", signal.SIGTERM, alone, "--config", config, "--workdir", alone)  # which ends ranks at once
    output = subprocess.run(
        [sys.executable, "-m", "tfinpaint.classify", "--resume", "--workdir", str(alone)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "Saved by 2 rank(s), going on with 1: each computes 4 of a step's 4 images" in output
    records = outcome(alone)["metrics"]
    assert [r["epoch"] for r in records if r["phase"] == "train"] == list(range(1, 9))
    assert {r["world_size"] for r in records} >= {1}


def test_layers_that_are_unfrozen_on_two_ranks_train_as_on_one(tmp_path):
    data = write_training_and_testing(tmp_path)
    network = [
        {"class_name": "Conv2D", "config": {"filters": 4, "kernel_size": 3, "batch_input_shape": [None, 16, 16, 3]}},
        {"class_name": "ReLU"},
        {"class_name": "GlobalAveragePooling2D"},
        {"class_name": "Dense", "config": {"units": 2, "activation": "softmax"}},
    ]
    optimizer = {"type": "Adam", "learning_rate": 0.01, "clip_norm": 1.0}
    config = write_small(tmp_path, data, num_epochs=1, layers=network, optimizer=optimizer, accumulate_steps=2)
    for folder, launcher in (("one", None), ("two", "mpirun"), ("gloo", "gloo")):
        run = ("--workdir", tmp_path / folder, "--set")
        outputs = []
        for arguments in (
            ("--config", config, *run, 'model.trainable=["dense*"]'),
            ("--resume", *run, "model.trainable=all", "--set", "num_epochs=2", "--allow-change", "model.trainable"),
        ):
            if launcher:
                outputs.append(succeed("classify", *arguments, launcher=launcher))
            else:
                alone = [sys.executable, "-m", "tfinpaint.classify", *map(str, arguments)]
                outputs.append(subprocess.run(alone, capture_output=True, text=True, check=True).stdout)
        assert outputs[1].count("kept for 2 weights, new for 2 that were not trained before, dropped for 0") == 1
        difference = largest_relative_difference(weights(tmp_path / folder, 2), weights(tmp_path / "one", 2))
        assert difference <= 1e-4, (folder, difference)
