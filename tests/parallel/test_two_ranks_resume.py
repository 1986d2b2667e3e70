"""Two ranks that are stopped in the middle of an epoch: they, and other ranks than these, go on from there."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commandline import succeed as succeed_alone
from conftest import outcome, write_small, write_training_and_testing
from ranks import TIMEOUT_SECONDS, start

pytestmark = pytest.mark.parallel


def stop_in_an_epoch(launcher: str, number: int, run: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    """Start two ranks, and send the launcher a signal once a checkpoint was made within an epoch."""
    started = start(["-m", "tfinpaint.classify", *arguments], launcher=launcher)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not list((run / "model_checkpoints").glob("model_checkpoint_*_step_*")) and time.monotonic() < deadline:
        assert started.poll() is None, started.communicate()
        time.sleep(0.05)
    started.send_signal(number)
    output, errors = started.communicate(timeout=TIMEOUT_SECONDS)
    return subprocess.CompletedProcess(started.args, started.returncode, output, errors)


@pytest.fixture
def config(tmp_path):
    """A run with moving averages (batchnorm_batches is 0) and dropout: what two ranks know is not the same."""
    data = write_training_and_testing(tmp_path)
    return write_small(tmp_path, data, checkpoints={"interval_steps": 1, "keep": 1})


STOPPED = (
    r"Stopped .*, as SIGUSR1 asked; everything is saved in .*model_checkpoint_\S+; "
    r"resume with: tfinpaint classify --ranks 2 --resume --workdir "
)


@pytest.mark.parametrize("launched", [False, pytest.param(True, marks=pytest.mark.stress)])
def test_two_ranks_go_on_to_the_same_bytes(config, tmp_path, mpi, launched):
    """The signal reaches rank 0 itself, or the launcher of two ranks of their own."""
    epochs, interval = (4, 1) if launched else (2, 100)
    changes = (f"num_epochs={epochs}", f"checkpoints.interval_steps={interval}")
    options = ("--config", config, *(word for change in changes for word in ("--set", change)))
    mpi.succeed("classify", *options, "--workdir", tmp_path / "whole")

    run = tmp_path / "run"
    if launched:
        done = stop_in_an_epoch("mpirun", signal.SIGUSR1, run, *options, "--workdir", run)
        assert done.returncode == 0, done.stdout + done.stderr
        output = done.stdout
    else:
        output = mpi.run("stopped", 7, *options, "--workdir", run)
        assert "Stopped in epoch 2, after step " in output
    assert re.search(STOPPED, output)
    assert not (run / "summary.json").exists()
    output = mpi.succeed("classify", "--resume", "--workdir", run)
    assert output.count("Resuming from epoch ") == 1  # rank 0 alone speaks
    assert outcome(run) == outcome(tmp_path / "whole")
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["test_images"], summary["world_size"]) == (7, 2)  # every image is counted once


@pytest.mark.stress
def test_one_rank_goes_on_where_two_were_ended_and_says_what_is_different(config, tmp_path):
    alone = tmp_path / "alone"
    stop_in_an_epoch("gloo", signal.SIGTERM, alone, "--config", config, "--workdir", alone)  # which ends ranks at once
    output = succeed_alone("classify", "--resume", "--workdir", alone)
    assert "Resuming with 1 rank instead of 2: 4 images per rank. Results differ slightly" in output
    records = outcome(alone)["metrics"]
    assert [r["epoch"] for r in records if r["phase"] == "train"] == [1, 2, 3, 4]
    assert {r["world_size"] for r in records} >= {1}
