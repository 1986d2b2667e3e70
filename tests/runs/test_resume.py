"""Runs that were stopped, killed or damaged, and go on: with small networks, in this process."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
import yaml
from commandline import records, refuse, succeed, tfinpaint
from conftest import outcome, tree, write_small, write_training_and_testing

from tfinpaint.checkpoint import store
from tfinpaint.checkpoint.find import list_checkpoints
from tfinpaint.config import checks
from tfinpaint.errors import UserError
from tfinpaint.report import trackers
from tfinpaint.runs import signals
from tfinpaint.runs.folder import RunFolder
from tfinpaint.runs.progress import RunProgress
from tfinpaint.storage import atomic
from tfinpaint.storage.atomic import write_folder
from tfinpaint.train.step import TrainingStep
from tfinpaint.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("undrawn_figures")

STRESS = pytest.mark.stress


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """(folder with data and run) of a run that nothing has happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    succeed("classify", "--config", write_small(folder, write_training_and_testing(folder)))
    return folder


@pytest.fixture
def at_step(monkeypatch):
    """Call something after a step, counted in this process."""

    def arrange(step: int, act, patches=monkeypatch) -> None:
        taken = RunProgress.step
        count = 0

        def counted(self, epoch, read_loss):
            nonlocal count
            taken(self, epoch, read_loss)
            count += 1
            if count == step:
                act()

        patches.setattr(RunProgress, "step", counted)

    return arrange


@pytest.mark.parametrize(
    ("number", "step", "stopped", "going_on"),
    [
        # The step after is the one in which all ranks are told, and the one after that when they know.
        (signal.SIGINT, 9, "in epoch 2, after step 5", "1 of 4, step 5 of 6 in the next epoch"),
        (signal.SIGTERM, "evaluation 2", "after epoch 2", "2 of 4"),
        *(
            pytest.param(*case, marks=STRESS)
            for case in [
                (signal.SIGTERM, 8, "in epoch 2, after step 4", "1 of 4, step 4 of 6 in the next epoch"),
                (signal.SIGUSR1, 5, "in epoch 1, after step 6", "0 of 4, step 6 of 6 in the next epoch"),
                # After the last one of an epoch it comes before the evaluation, which may take long.
                (signal.SIGUSR1, 12, "in epoch 2, after step 6", "1 of 4, step 6 of 6 in the next epoch"),
                (signal.SIGHUP, 7, "in epoch 2, after step 3", "1 of 4, step 3 of 6 in the next epoch"),
            ]
        ),
    ],
)
def test_a_run_that_is_told_to_stop_is_saved_there_and_goes_on_to_the_same_bytes(
    undisturbed, tmp_path, at_step, monkeypatch, number, step, stopped, going_on
):
    handlers = [signal.getsignal(each) for each in signals.SIGNALS]
    if isinstance(step, int):
        at_step(step, lambda: os.kill(os.getpid(), number))
    else:
        epoch_end = RunProgress.epoch_end

        def ended(self, epoch, *results):
            if epoch == 2:
                os.kill(os.getpid(), number)
            epoch_end(self, epoch, *results)

        monkeypatch.setattr(RunProgress, "epoch_end", ended)
    config = write_small(tmp_path, undisturbed / "data")
    done = tfinpaint("classify", "--config", config)
    assert done.returncode == (130 if number == signal.SIGINT else 0), done.stderr
    form = r"Stopped (.*), as (\w+)( \(Ctrl-C\))? asked; everything is saved in (.*); resume with: (.*)\n"
    where = re.search(form, done.stdout)
    epoch, within = re.match(r"(\d) of 4(?:, step (\d))?", going_on).groups()
    name = f"model_checkpoint_{epoch}" + (f"_step_{within}" if within else "")
    assert where.groups() == (
        *(stopped, signal.Signals(number).name, " (Ctrl-C)" if number == signal.SIGINT else None),
        str(tmp_path / "run" / "model_checkpoints" / name),
        f"tfinpaint classify --resume --workdir {tmp_path / 'run'}",
    )
    assert [signal.getsignal(each) for each in signals.SIGNALS] == handlers
    assert not (tmp_path / "run" / "summary.json").exists()  # a sign that the run is not at its end
    output = succeed("classify", "--resume", "--workdir", tmp_path / "run")
    assert f"Resuming from epoch {going_on} in " in output
    assert outcome(tmp_path / "run") == outcome(undisturbed / "run")
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.stress
def test_a_signal_that_is_ignored_stays_ignored(undisturbed, tmp_path, at_step):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        at_step(7, lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert "Stopped" not in succeed("classify", "--config", write_small(tmp_path, undisturbed / "data"))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert outcome(tmp_path / "run") == outcome(undisturbed / "run")


@pytest.mark.parametrize(
    ("step", "saved"),
    [
        pytest.param(
            5, "nothing has been saved yet; start the run again with: tfinpaint classify --resume ", marks=STRESS
        ),
        (9, "the newest checkpoint is {}; resume with: tfinpaint classify --resume "),
    ],
)
def test_a_second_interrupt_ends_a_run_at_once_and_tells_what_is_saved(
    undisturbed, tmp_path, at_step, monkeypatch, step, saved
):
    def interrupt_twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.chdir(tmp_path)
    at_step(step, interrupt_twice)
    done = tfinpaint("classify", "--config", write_small(tmp_path, undisturbed / "data"))
    assert done.returncode == 130
    assert done.stderr.startswith(f"interrupted: {saved.format('run/model_checkpoints/model_checkpoint_1')}")
    assert done.stderr.endswith("--workdir run\n")


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


def stopped_after(step: int, folder: Path, undisturbed: Path, at_step, **changes) -> Path:
    """A run that was told to stop two steps before."""
    with pytest.MonkeyPatch.context() as patches:
        at_step(step - 2, lambda: os.kill(os.getpid(), signal.SIGTERM), patches)
        output = succeed("classify", "--config", write_small(folder, undisturbed / "data", **changes))
    assert f"after step {(step - 1) % 6 + 1}, as SIGTERM asked" in output
    return folder / "run"


@pytest.mark.stress
def test_a_change_is_asked_about_once_and_counts_where_it_is_not_saved_yet(undisturbed, tmp_path, at_step):
    run = stopped_after(10, tmp_path, undisturbed, at_step)
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


@pytest.mark.stress
@pytest.mark.parametrize("arguments", [[], ["--overwrite"], ["--resume"]])
def test_nobody_touches_the_checkpoints_of_a_run_under_way(undisturbed, tmp_path, at_step, arguments):
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


@pytest.mark.stress
def test_the_configuration_of_a_run_is_good_for_another_one(undisturbed, tmp_path):
    resolved = undisturbed / "run" / "config.resolved.yaml"
    before = tree(undisturbed / "run")
    succeed("classify", "--config", resolved, "--workdir", tmp_path / "again")
    assert outcome(tmp_path / "again") == outcome(undisturbed / "run")
    assert tree(undisturbed / "run") == before


@pytest.mark.stress
@pytest.mark.parametrize(("stopped", "then"), [(12, "epoch 3, after step 2"), (10, "epoch 2, after step 2")])
def test_fewer_steps_in_an_epoch_and_what_was_summed_up(undisturbed, tmp_path, at_step, stopped, then):
    run = stopped_after(stopped, tmp_path, undisturbed, at_step, checkpoints={"interval_steps": 1})
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
def test_metrics_do_not_depend_on_how_often_an_epoch_was_cut(undisturbed, tmp_path, at_step):
    run = stopped_after(3, tmp_path, undisturbed, at_step)
    with pytest.MonkeyPatch.context() as patches:
        at_step(1, lambda: os.kill(os.getpid(), signal.SIGTERM), patches)
        output = succeed("classify", "--resume", "--workdir", run)
    assert "Stopped in epoch 1, after step 6" in output
    succeed("classify", "--resume", "--workdir", run)
    assert outcome(run) == outcome(undisturbed / "run")


@pytest.mark.stress
def test_a_run_made_shorter_ends_with_a_model_that_is_ready(undisturbed, tmp_path, at_step):
    flat = {"optimizer": {"type": "Adam", "learning_rate": 0.01}}
    run = stopped_after(16, tmp_path, undisturbed, at_step, **flat)
    output = succeed("classify", "--resume", "--workdir", run, "--set", "num_epochs=2")
    assert "Resuming from epoch 2 of 2" in output
    assert json.loads((run / "summary.json").read_text())["test_loss"] == records(run)[-1]["loss"]
    output = succeed("classify", "--resume", "--workdir", run, "--set", "num_epochs=3")
    assert "Resuming from epoch 2 of 3, step 4 of 6 in the next epoch" in output


def test_a_run_made_shorter_than_its_only_checkpoint_is_not_started_again_unasked(undisturbed, tmp_path, at_step):
    flat = {"optimizer": {"type": "Adam", "learning_rate": 0.01}, "checkpoints": {"interval": 5}}
    run = stopped_after(16, tmp_path, undisturbed, at_step, **flat)
    before = tree(run)
    error = refuse("classify", "--resume", "--workdir", run, "--set", "num_epochs=2")
    assert f"{run}/model_checkpoints/model_checkpoint_2_step_4: is within epoch 3, and num_epochs is 2" in error
    assert tree(run) == before


def test_a_result_without_checkpoints_is_not_replaced_unasked(undisturbed, tmp_path):
    run = Path(shutil.copytree(undisturbed / "run", tmp_path / "run"))
    shutil.rmtree(run / "model_checkpoints")
    before = tree(run)
    error = refuse("classify", "--resume", "--workdir", run, "--set", "checkpoints.save=null")
    assert (
        f"{run} holds a finished run, and checkpoints.save is null, so there is nothing to resume from; start" in error
    )
    assert tree(run) == before


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
def test_what_goes_bad_keeps_its_number_wherever_the_run_is_cut(undisturbed, tmp_path, at_step):
    found = []
    for cut in (None, 3, 9):
        folder = tmp_path / str(cut)
        training = Path(shutil.copytree(undisturbed / "data", folder / "data")) / "training"
        (training / "cold" / "001.png").write_bytes(b"")
        config = write_small(folder, folder / "data")
        config.write_text(yaml.safe_dump(merged(yaml.safe_load(config.read_text()), {"data": {"max_bad_images": 4}})))

        def begin_badly(self, resumed, bad, begin=RunFolder.begin, training=training) -> None:
            begin(self, resumed, bad)
            (training / "warm" / "002.png").write_bytes(b"")  # after it was checked

        with pytest.MonkeyPatch.context() as patches:
            patches.setattr(RunFolder, "begin", begin_badly)
            if cut:
                at_step(cut - 2, lambda: os.kill(os.getpid(), signal.SIGTERM), patches)
            succeed("classify", "--config", config)
        succeed("classify", "--config", config, "--resume")
        found.append(outcome(folder / "run"))
        lines = (folder / "run" / "bad_images.txt").read_text().splitlines()
        assert sorted(line.split("/")[-1].split("\t")[0] for line in lines) == ["001.png", "002.png"]
    assert found[1] == found[0]
    assert found[2] == found[0]


def merged(config, changes):
    return {**config, **{name: {**config[name], **section} for name, section in changes.items()}}


@pytest.mark.stress
def test_a_disk_that_fills_while_training_goes_on_ends_it_with_the_reason(undisturbed, tmp_path, monkeypatch):
    config = write_small(tmp_path, undisturbed / "data", checkpoints={"interval_steps": 2})
    monkeypatch.setattr(store, "write_folder", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert "model_checkpoint_0_step_2: the checkpoint could not be written: No space left" in refuse(
        "classify", "--config", config
    )


def rewrite_progress(run: Path, *left_out: str) -> None:
    """Let the newest checkpoint be one of an older version, which did not record these."""
    newest = list_checkpoints(run / "model_checkpoints")[-1]
    progress = json.loads((newest / "progress.json").read_text())
    (newest / "progress.json").write_text(json.dumps({k: v for k, v in progress.items() if k not in left_out}))
    (newest / atomic.MANIFEST).unlink()
    atomic._write_manifest(newest)


def weights_of(run: Path) -> dict[str, bytes]:
    return {name: value for name, value in outcome(run).items() if name.startswith("layers/")}


@pytest.mark.stress
def test_layers_are_unfrozen_and_frozen_again_within_an_epoch(undisturbed, tmp_path, at_step):
    head = {"trainable": ["dense*"], "batchnorm_batches": 0}
    run = stopped_after(10, tmp_path / "new", undisturbed, at_step, model=head)
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
