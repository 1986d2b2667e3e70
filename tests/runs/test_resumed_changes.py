"""Stopped and finished runs that continue with another configuration: data, epochs, frozen layers, test images."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from commandline import records, refuse, succeed
from conftest import outcome, tree, write_small
from stopped_runs import at_step, rewrite_progress, stopped_after

from tfinpaint.config import checks
from tfinpaint.errors import UserError
from tfinpaint.report import trackers
from tfinpaint.train.step import TrainingStep
from tfinpaint.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.mark.stress
def test_a_change_is_asked_about_once_and_counts_where_it_is_not_saved_yet(undisturbed, tmp_path):
    run = stopped_after(10, tmp_path, undisturbed)
    shutil.copytree(undisturbed / "data" / "testing", tmp_path / "others")
    other = ["--set", f"data.input_path={tmp_path / 'others'}"]
    allowed = ["--allow-change", "data.input_path"]
    error = refuse("classify", "--resume", "--workdir", run, *other)
    assert f"data.input_path: {undisturbed / 'data' / 'training'} -> {tmp_path / 'others'}" in error
    assert "--allow-change data.path: there is no such key" in refuse(
        "classify", "--resume", "--workdir", run, *other, *allowed, "--allow-change", "data.path"
    )
    # Ended before anything was saved; the second time the folder's own configuration has it.
    for arguments in ([*other, *allowed], []):
        with pytest.MonkeyPatch.context() as patches:
            at_step(1, lambda: (_ for _ in ()).throw(UserError("a disaster")), patches)
            assert "a disaster" in refuse("classify", "--resume", "--workdir", run, *arguments)
    original = ["--config", tmp_path / "c.yaml", "--workdir", run]  # what the checkpoint was made with is no change
    (run / "config.resolved.yaml").write_text("")  # what a power cut may leave of a file
    output = succeed("classify", *original, "--resume")
    assert "Changed since" not in output
    assert "Resuming from epoch 1 of 4, step 4 of 6 in the next epoch" in output
    assert outcome(run) == outcome(undisturbed / "run")


@pytest.mark.stress
def test_the_configuration_of_a_run_is_good_for_another_one(undisturbed, tmp_path):
    resolved = undisturbed / "run" / "config.resolved.yaml"
    before = tree(undisturbed / "run")
    succeed("classify", "--config", resolved, "--workdir", tmp_path / "again")
    assert outcome(tmp_path / "again") == outcome(undisturbed / "run")
    assert tree(undisturbed / "run") == before


@pytest.mark.stress
@pytest.mark.parametrize(("stopped", "then"), [(12, "epoch 3, after step 2"), (10, "epoch 2, after step 2")])
def test_fewer_steps_in_an_epoch_and_what_was_summed_up(undisturbed, tmp_path, stopped, then):
    run = stopped_after(stopped, tmp_path, undisturbed, checkpoints={"interval_steps": 1})
    larger = ["--set", "data.batch_size=12", "--allow-change", "data.batch_size"]  # 2 steps, 2 or 1 of which are done
    with pytest.MonkeyPatch.context() as patches:
        at_step(1, lambda: os.kill(os.getpid(), signal.SIGTERM), patches)
        output = succeed("classify", "--resume", "--workdir", run, *larger)
    assert f"Stopped in {then}" in output
    # None of the checkpoints of longer epochs is taken for a later one.
    output = succeed("classify", "--resume", "--workdir", run, *larger)
    assert f"Resuming from epoch {int(then[6]) - 1} of 4, step 2 of 2 in the next epoch" in output
    trained, expected = ([r for r in records(folder) if r["phase"] == "train"] for folder in (run, undisturbed / "run"))
    assert [record["epoch"] for record in trained] == [1, 2, 3, 4]
    if stopped == 12:
        assert (trained[1]["loss"], trained[1]["accuracy"]) == (expected[1]["loss"], expected[1]["accuracy"])
    else:  # 4 steps of 4 images and one of 12
        hits = trained[1]["accuracy"] * 28
        assert hits == pytest.approx(round(hits), abs=1e-5)


@pytest.mark.stress
def test_a_run_made_shorter_ends_with_a_model_that_is_ready(undisturbed, tmp_path):
    flat = {"optimizer": {"type": "Adam", "learning_rate": 0.01}}
    run = stopped_after(16, tmp_path, undisturbed, **flat)
    output = succeed("classify", "--resume", "--workdir", run, "--set", "num_epochs=2")
    assert "Resuming from epoch 2 of 2" in output
    assert json.loads((run / "summary.json").read_text())["test_loss"] == records(run)[-1]["loss"]
    output = succeed("classify", "--resume", "--workdir", run, "--set", "num_epochs=3")
    assert "Resuming from epoch 2 of 3, step 4 of 6 in the next epoch" in output


def weights_of(run: Path) -> dict[str, bytes]:
    return {name: value for name, value in outcome(run).items() if name.startswith("layers/")}


@pytest.mark.stress
def test_a_run_made_shorter_than_its_only_checkpoint_is_not_started_again_unasked(undisturbed, tmp_path):
    flat = {"optimizer": {"type": "Adam", "learning_rate": 0.01}, "checkpoints": {"interval": 5}}
    run = stopped_after(16, tmp_path, undisturbed, **flat)
    before = tree(run)
    error = refuse("classify", "--resume", "--workdir", run, "--set", "num_epochs=2")
    assert f"{run}/model_checkpoints/model_checkpoint_2_step_4: is within epoch 3, and num_epochs is 2" in error
    assert tree(run) == before


def test_layers_are_unfrozen_and_frozen_again_within_an_epoch(undisturbed, tmp_path):
    head = {"trainable": ["dense*"], "batchnorm_batches": 0}
    run = stopped_after(10, tmp_path / "new", undisturbed, model=head)
    resume = ("classify", "--resume", "--workdir", run, "--set", "model.trainable=all")
    assert "resume with the new values: --allow-change model.trainable" in refuse(*resume)
    old = Path(shutil.copytree(run, tmp_path / "old" / "run"))
    rewrite_progress(old, "trained", "own_names")
    arguments = ("--set", "model.trainable=all", "--allow-change", "model.trainable")
    kept = (
        "Optimizer state: kept for 2 weights, new for 4 that were not trained before, dropped for 0 that are frozen now"
    )
    output = succeed(*resume, "--allow-change", "model")
    assert kept in output
    assert "Resuming from epoch 1 of 4, step 4 of 6 in the next epoch" in output
    assert kept in succeed("classify", "--resume", "--workdir", old, *arguments)
    assert weights_of(old) == weights_of(run)  # the older checkpoint's order is that of its configuration
    before = weights_of(run)
    frozen = json.dumps(["conv*"])
    longer = ("--set", "num_epochs=5", "--allow-change", "num_epochs", "--allow-change", "model.trainable")
    output = succeed("classify", "--resume", "--workdir", run, "--set", f"model.trainable={frozen}", *longer)
    assert "kept for 2 weights, new for 0 that were not trained before, dropped for 4 that are frozen now" in output
    changed = {name for name, value in weights_of(run).items() if value != before[name]}
    assert {name.split("/")[1] for name in changed} == {"conv2d"}
    assert len(changed) == 2


@pytest.mark.stress
def test_a_finished_run_is_evaluated_on_a_new_test_set(undisturbed, tmp_path):
    config = write_small(tmp_path, undisturbed / "data", num_epochs=1)
    succeed("classify", "--config", config, "--set", "data.test_input_path=null")
    never_tested, tested = tmp_path / "run", Path(shutil.copytree(undisturbed / "run", tmp_path / "tested"))
    new = ["--set", f"data.test_input_path={undisturbed / 'data' / 'training'}", "--allow-change", "data"]
    for run, epoch in ((never_tested, 1), (tested, 4)):
        other = records(run)[:-1] if run == tested else records(run)
        output = succeed("classify", "--resume", "--workdir", run, *new)
        assert re.search(r"\ntest loss \d\.\d+  test accuracy ", output)
        summary = json.loads((run / "summary.json").read_text())
        assert records(run)[:-1] == other  # the last epoch's is replaced, as is that of another test set
        assert (records(run)[-1]["phase"], records(run)[-1]["epoch"]) == ("test", epoch)
        assert summary["test_loss"] == records(run)[-1]["loss"]
        assert summary["test_accuracy"] == pytest.approx(records(run)[-1]["accuracy"])
        assert summary["test_images"] == 24
    before = (tested / "metrics.jsonl").read_bytes()
    assert "\ntest loss " in succeed("classify", "--resume", "--workdir", tested)  # not saved: it is done once more
    assert [{**r, "seconds": 0, "images_per_second": 0} for r in records(tested)] == [
        {**json.loads(line), "seconds": 0, "images_per_second": 0} for line in before.splitlines()
    ]


@pytest.mark.stress
def test_a_resumed_run_still_tells_what_it_began_with(undisturbed, tmp_path):
    source = Path(shutil.copytree(undisturbed / "run", tmp_path / "source"))
    config = write_small(tmp_path, undisturbed / "data", num_epochs=1, checkpoints={"load": str(source)})
    succeed("classify", "--config", config)
    shutil.rmtree(source)  # a run that goes on from its own checkpoints does not need it any more
    for _ in range(2):
        report = (tmp_path / "run" / "report.html").read_text()
        assert "Transferred 3 layers by name, all of the model" in report
        succeed("classify", "--resume", "--workdir", tmp_path / "run")
    rewrite_progress(tmp_path / "run", "transferred")
    succeed("classify", "--resume", "--workdir", tmp_path / "run")
    assert f"From {source}, when the run began" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.stress
def test_a_run_and_its_continuation_trace_each_step_once(undisturbed, tmp_path, monkeypatch):
    traced = []
    for owner, name in ((TrainingStep, "_take"), (Trainer, "_test")):
        function = getattr(owner, name)

        def noted(self, batch, name=name, function=function):
            traced.append((name, batch["targets"].shape[0]))
            return function(self, batch)

        monkeypatch.setattr(owner, name, noted)
    config = write_small(tmp_path, undisturbed / "data", num_epochs=3)
    # The last of the two batches of held-out images has 3 of them, and any number from the second trace on.
    once = [("_take", 4), ("_test", 4), ("_test", None)]
    succeed("classify", "--config", config)
    assert traced == once
    traced.clear()
    succeed(
        "classify", "--resume", "--workdir", tmp_path / "run", "--set", "num_epochs=5", "--allow-change", "num_epochs"
    )
    assert traced == once


def test_a_resumed_run_is_tracked_under_its_name(undisturbed, tmp_path, monkeypatch):
    asked = []

    class Ignored:
        knows_past, run_id = True, "a1"

        def __init__(self, *given: object) -> None:
            asked.append(given[-1])

        def __getattr__(self, name: str) -> object:
            return lambda *_: None

    monkeypatch.setattr(trackers, "_open", lambda *given: Ignored(*given))
    monkeypatch.setattr(checks, "check_trackers", lambda config: None)  # the package need not be installed
    run = Path(shutil.copytree(undisturbed / "run", tmp_path / "run"))
    for _ in range(2):
        succeed("classify", "--resume", "--workdir", run, "--set", "trackers=[mlflow]")
    assert asked == [None, "a1"]
    none = ["--set", "trackers=[]", "--set", "num_epochs=1"]
    succeed("classify", "--config", run / "config.resolved.yaml", "--overwrite", *none)
    assert not (run / "trackers.json").exists()  # the new run has no name
