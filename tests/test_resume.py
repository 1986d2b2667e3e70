"""Runs that were stopped, killed or damaged, and go on: with small networks, in this process."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from conftest import outcome, write_small, write_training_and_testing
from test_commands import records, refuse, succeed, tfinpaint

from tfinpaint import commits
from tfinpaint.checkpoint import list_checkpoints
from tfinpaint.train.progress import RunProgress


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """(folder with data and run) of a run that nothing has happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    succeed("classify", "--config", write_small(folder, write_training_and_testing(folder)))
    return folder


@pytest.fixture
def at_step(monkeypatch):
    """Call something after a step, counted in this process."""

    def arrange(step: int, act) -> None:
        taken = RunProgress.step
        count = 0

        def counted(self, epoch, read_loss):
            nonlocal count
            taken(self, epoch, read_loss)
            count += 1
            if count == step:
                act()

        monkeypatch.setattr(RunProgress, "step", counted)

    return arrange


@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 4), (signal.SIGUSR1, 6)])
def test_a_run_that_is_told_to_stop_is_saved_there_and_goes_on_to_the_same_bytes(
    undisturbed, tmp_path, at_step, number, step
):
    handlers = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)]
    at_step(step, lambda: os.kill(os.getpid(), number))
    config = write_small(tmp_path, undisturbed / "data")
    done = tfinpaint("classify", "--config", config)
    assert done.returncode == 0, done.stderr
    where = re.search(r"Stopped (.*), as (\w+) asked; everything is saved, go on with --resume\n", done.stdout)
    # The step after is the one in which all ranks are told; after the last one of an epoch, its end has the news.
    expected = {4: "in epoch 2, after step 3", 6: "after epoch 2"}
    assert where.groups() == (expected[step], signal.Signals(number).name)
    assert [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)] == handlers
    assert not (tmp_path / "run" / "summary.json").exists()  # a sign that the run is not at its end
    output = succeed("classify", "--resume", "--workdir", tmp_path / "run")
    assert f"Going on after epoch {'1, and 3 of the 3 steps of the next,' if step == 4 else '2'} of 4" in output
    assert outcome(tmp_path / "run") == outcome(undisturbed / "run")
    assert (tmp_path / "run" / "summary.json").exists()


def test_checkpoints_are_due_by_steps_and_by_minutes(undisturbed, tmp_path, monkeypatch):
    made = []
    write = commits.write
    monkeypatch.setattr(commits, "write", lambda final, files: (made.append(final.name), write(final, files)))
    step, epoch = "model_checkpoint_{}_step_{}".format, "model_checkpoint_{}".format
    config = write_small(tmp_path, undisturbed / "data", num_epochs=2, checkpoints={"interval_steps": 2, "keep": 1})
    succeed("classify", "--config", config)
    assert made == [step(0, 2), epoch(1), step(1, 1), step(1, 3), epoch(2)]
    made.clear()
    always = {"interval_minutes": 1e-9, "interval": 2}
    config = write_small(tmp_path, undisturbed / "data", num_epochs=2, checkpoints=always)
    succeed("classify", "--config", config, "--overwrite")
    # Asked for before a step, granted after the next one: ranks agree on it without waiting for each other.
    assert made == [step(0, 2), epoch(1), step(1, 2), epoch(2)]


def test_what_is_kept(undisturbed, tmp_path):
    config = write_small(tmp_path, undisturbed / "data", checkpoints={"interval_steps": 2, "keep": 1})
    succeed("classify", "--config", config)
    losses = {r["epoch"]: r["loss"] for r in records(tmp_path / "run") if r["phase"] == "test"}
    best = min(losses, key=losses.get)
    names = [path.name for path in list_checkpoints(tmp_path / "run" / "model_checkpoints")]
    assert names == list(dict.fromkeys([f"model_checkpoint_{best}", "model_checkpoint_4"]))
    progress = json.loads((tmp_path / "run" / "model_checkpoints" / names[-1] / "progress.json").read_text())
    assert progress["best_epoch"] == best


def damaged_copy(undisturbed: Path, tmp_path: Path, *names: str) -> Path:
    """A copy of the run in which a byte in the middle of these checkpoints' weights is another."""
    run = Path(shutil.copytree(undisturbed / "run", tmp_path / "run"))
    for name in names:
        file = run / "model_checkpoints" / name / "model.weights.h5"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    return run


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_taken(undisturbed, tmp_path):
    run = damaged_copy(undisturbed, tmp_path, "model_checkpoint_4")
    output = succeed("classify", "--resume", "--workdir", run)
    assert "model_checkpoint_4 is damaged: model.weights.h5 is not what was written" in output
    assert "Going on after epoch 3 of 4" in output
    assert outcome(run) == outcome(undisturbed / "run")
    assert (run / "model_checkpoints" / "model_checkpoint_4.damaged").is_dir()  # it can still be looked at


def test_with_no_intact_checkpoint_nothing_is_started_anew_unasked(undisturbed, tmp_path):
    names = [path.name for path in list_checkpoints(undisturbed / "run" / "model_checkpoints")]
    run = damaged_copy(undisturbed, tmp_path, *names)
    error = refuse("classify", "--resume", "--workdir", run)
    assert "no checkpoint is left to go on from: " in error
    assert "start anew with --overwrite" in error
    assert [path.name for path in list_checkpoints(run / "model_checkpoints")] == names


def test_a_disk_that_fills_while_training_goes_on_ends_it_with_the_reason(undisturbed, tmp_path, monkeypatch):
    config = write_small(tmp_path, undisturbed / "data", checkpoints={"interval_steps": 2})
    monkeypatch.setattr(commits, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert "model_checkpoint_0_step_2: the checkpoint could not be written: No space left" in refuse(
        "classify", "--config", config
    )
