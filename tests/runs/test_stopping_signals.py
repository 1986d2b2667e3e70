"""Runs that signals stop are saved there, and continue to the same bytes."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from commandline import succeed, tfinpaint
from conftest import outcome, write_small
from stopped_runs import at_step, stopped_after

from tfinpaint.runs import signals
from tfinpaint.runs.folder import RunFolder
from tfinpaint.runs.progress import RunProgress

pytestmark = pytest.mark.usefixtures("undrawn_figures")

STRESS = pytest.mark.stress


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
    undisturbed, tmp_path, monkeypatch, number, step, stopped, going_on
):
    handlers = [signal.getsignal(each) for each in signals.SIGNALS]
    if isinstance(step, int):
        at_step(step, lambda: os.kill(os.getpid(), number), monkeypatch)
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
def test_a_signal_that_is_ignored_stays_ignored(undisturbed, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        at_step(7, lambda: os.kill(os.getpid(), signal.SIGHUP), monkeypatch)
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
def test_a_second_interrupt_ends_a_run_at_once_and_tells_what_is_saved(undisturbed, tmp_path, monkeypatch, step, saved):
    def interrupt_twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.chdir(tmp_path)
    at_step(step, interrupt_twice, monkeypatch)
    done = tfinpaint("classify", "--config", write_small(tmp_path, undisturbed / "data"))
    assert done.returncode == 130
    assert done.stderr.startswith(f"interrupted: {saved.format('run/model_checkpoints/model_checkpoint_1')}")
    assert done.stderr.endswith("--workdir run\n")


@pytest.mark.stress
def test_metrics_do_not_depend_on_how_often_an_epoch_was_cut(undisturbed, tmp_path):
    run = stopped_after(3, tmp_path, undisturbed)
    with pytest.MonkeyPatch.context() as patches:
        at_step(1, lambda: os.kill(os.getpid(), signal.SIGTERM), patches)
        output = succeed("classify", "--resume", "--workdir", run)
    assert "Stopped in epoch 1, after step 6" in output
    succeed("classify", "--resume", "--workdir", run)
    assert outcome(run) == outcome(undisturbed / "run")


@pytest.mark.stress
def test_what_goes_bad_keeps_its_number_wherever_the_run_is_cut(undisturbed, tmp_path):
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
