"""Checkpoints of runs: when they are due, what is kept, and those that are damaged, gone, in use or not writable."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
from commandline import records, refuse, succeed
from conftest import outcome, tree, write_small
from stopped_runs import at_step

from tfinpaint.checkpoint import store
from tfinpaint.checkpoint.find import list_checkpoints
from tfinpaint.storage import atomic
from tfinpaint.storage.atomic import write_folder
from tfinpaint.train.step import TrainingStep

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.mark.stress
def test_checkpoints_are_due_by_steps_and_by_minutes(undisturbed, tmp_path, monkeypatch):
    made = []
    write = write_folder
    monkeypatch.setattr(store, "write_folder", lambda final, files: (made.append(final.name), write(final, files)))
    step, epoch = "model_checkpoint_{}_step_{}".format, "model_checkpoint_{}".format
    config = write_small(tmp_path, undisturbed / "data", num_epochs=2, checkpoints={"interval_steps": 4, "keep": 1})
    succeed("classify", "--config", config)
    assert made == [step(0, 4), epoch(1), step(1, 2), step(1, 6), epoch(2)]
    made.clear()
    always = {"interval_minutes": 1e-9, "interval": 2}
    config = write_small(tmp_path, undisturbed / "data", num_epochs=2, checkpoints=always)
    succeed("classify", "--config", config, "--overwrite")
    # Asked for before a step, granted after the next one: ranks agree on it without waiting for each other.
    assert made == [name for e in (0, 1) for name in (step(e, 2), step(e, 4), step(e, 6), epoch(e + 1))]


@pytest.mark.stress
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
    assert "Resuming from epoch 3 of 4" in output
    assert outcome(run) == outcome(undisturbed / "run")
    assert (run / "model_checkpoints" / "model_checkpoint_4.damaged").is_dir()  # it can still be looked at


@pytest.mark.stress
def test_with_no_intact_checkpoint_nothing_is_started_again_unasked(undisturbed, tmp_path):
    names = [path.name for path in list_checkpoints(undisturbed / "run" / "model_checkpoints")]
    run = damaged_copy(undisturbed, tmp_path, *names)
    error = refuse("classify", "--resume", "--workdir", run)
    assert "no intact checkpoint is left to resume from: " in error
    assert "start again with --overwrite" in error
    assert [path.name for path in list_checkpoints(run / "model_checkpoints")] == names
    for name in names:  # not even their headers can be read
        os.truncate(run / "model_checkpoints" / name / "model.weights.h5", 100)
    succeed("classify", "--config", undisturbed / "c.yaml", "--workdir", run, "--overwrite")
    assert outcome(run) == outcome(undisturbed / "run")


@pytest.mark.stress
def test_a_run_whose_checkpoints_are_gone_is_not_started_again_unasked(undisturbed, tmp_path):
    run = Path(shutil.copytree(undisturbed / "run", tmp_path / "run"))
    (run / "model_checkpoints" / ".lock").unlink()  # a copy may lack what is hidden
    assert "nothing is left to train" in succeed("classify", "--resume", "--workdir", run)
    before = tree(run)
    for remove in (lambda: shutil.rmtree(run / "model_checkpoints"), lambda: (run / "summary.json").unlink()):
        remove()  # with no result either, it might have been killed before its first checkpoint, but for the folder
        error = refuse("classify", "--resume", "--workdir", run)
        assert (
            f"{run} holds a run, but {run}/model_checkpoints holds none of its checkpoints; bring them back, or"
            in error
        )
        assert (run / "metrics.jsonl").read_bytes() == before["metrics.jsonl"]
    (run / "model_checkpoints").mkdir()
    (run / "model_checkpoints" / ".lock").touch()
    assert "There is nothing to resume" in succeed("classify", "--resume", "--workdir", run)
    assert outcome(run) == outcome(undisturbed / "run")


def test_a_result_without_checkpoints_is_not_replaced_unasked(undisturbed, tmp_path):
    run = Path(shutil.copytree(undisturbed / "run", tmp_path / "run"))
    shutil.rmtree(run / "model_checkpoints")
    before = tree(run)
    error = refuse("classify", "--resume", "--workdir", run, "--set", "checkpoints.save=null")
    assert (
        f"{run} holds a finished run, and checkpoints.save is null, so there is nothing to resume from; start" in error
    )
    assert tree(run) == before


@pytest.mark.stress
@pytest.mark.parametrize("arguments", [[], ["--overwrite"], ["--resume"]])
def test_nobody_touches_the_checkpoints_of_a_run_under_way(undisturbed, tmp_path, arguments):
    config, errors = write_small(tmp_path, undisturbed / "data"), []
    folder = f"checkpoints.save={tmp_path / 'run' / 'model_checkpoints'}"
    other = ["--config", str(config), "--workdir", str(tmp_path / "other"), "--set", folder, *arguments]

    def intrude():
        folder = tmp_path / "run" / "model_checkpoints"
        while not (folder / "model_checkpoint_1").exists():
            time.sleep(0.05)
        time.sleep(0.5)  # then its writer has cleaned up
        leftover = folder / f".model_checkpoint_9{atomic.WRITING}"
        leftover.mkdir()
        command = [sys.executable, "-m", "tfinpaint.classify", *other]
        errors.append(subprocess.run(command, capture_output=True, text=True).stderr)
        assert leftover.exists()

    with pytest.MonkeyPatch.context() as patches:
        at_step(8, intrude, patches)
        succeed("classify", "--config", config)
    assert f"{tmp_path / 'run' / 'model_checkpoints'}: another process is training there" in errors[0]
    assert outcome(tmp_path / "run") == outcome(undisturbed / "run")


def test_weights_that_are_not_finite_are_never_saved(undisturbed, tmp_path, monkeypatch):
    update = TrainingStep._apply

    def spoil(self, gradients):
        update(self, gradients)
        first = self._parts.whole.trainable_variables[0]
        first.assign(tf.where(self._optimizer.iterations > 3, float("inf"), first.value))
        return tf.no_op()

    monkeypatch.setattr(TrainingStep, "_apply", spoil)
    config = write_small(tmp_path, undisturbed / "data", checkpoints={"interval_steps": 1})
    assert "the weights of rank 0 are not finite" in refuse("classify", "--config", config)
    assert list_checkpoints(tmp_path / "run" / "model_checkpoints")[-1].name == "model_checkpoint_0_step_3"


@pytest.mark.stress
def test_a_disk_that_fills_while_training_goes_on_ends_it_with_the_reason(undisturbed, tmp_path, monkeypatch):
    config = write_small(tmp_path, undisturbed / "data", checkpoints={"interval_steps": 2})
    monkeypatch.setattr(store, "write_folder", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert "model_checkpoint_0_step_2: the checkpoint could not be written: No space left" in refuse(
        "classify", "--config", config
    )
