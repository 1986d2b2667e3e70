"""The functions of the package: their runs are those of the commands, and the process stays as it was."""

import importlib
import inspect
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from commandline import records, succeed, summary, weights
from conftest import write_config, write_training_and_testing
from PIL import Image

import tfinpaint
from tfinpaint.errors import StoppedError, UserError
from tfinpaint.interface import probing
from tfinpaint.interface.process import one_call
from tfinpaint.runs.progress import RunProgress

TIMES = ("seconds", "images_per_second")


def state_of_process() -> tuple:
    loggers = [logging.getLogger(name) for name in (None, "tfinpaint", "tensorflow")]
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]
    logs = [(logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    return signals, logs, sys.stdout, sys.stderr, sys.excepthook, keras.config.dtype_policy().name, Path.cwd()


def without_times(history: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if key not in TIMES} for record in history]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images, and the configurations of both tasks with a network of two convolutions."""
    folder = tmp_path_factory.mktemp("interface")
    data = write_training_and_testing(folder)
    for task in ("pretrain", "classify"):
        write_config(folder / f"{task}.yaml", task, data, workdir=str(folder / task), num_epochs=1)
    return folder


@pytest.fixture(scope="module")
def pretrained(folder):
    """A run by the function, called from a mapping; the state of the process before and after it."""
    before = state_of_process()
    values = yaml.safe_load((folder / "pretrain.yaml").read_text())
    values["data"]["input_path"] = Path(values["data"]["input_path"])
    result = tfinpaint.pretrain(values, precision="float32", checkpoints={"keep": 1})
    return result, before, state_of_process()


def test_the_functions_keep_their_names_when_the_commands_are_imported():
    for name in ("pretrain", "classify", "predict", "probe"):
        assert callable(importlib.import_module(f"tfinpaint.{name}").main)
        assert inspect.isfunction(getattr(tfinpaint, name))
    with pytest.raises(AttributeError, match="module 'tfinpaint' has no attribute 'restore'"):
        tfinpaint.restore  # noqa: B018


def test_a_call_gives_the_run_of_the_command_and_leaves_the_process_as_it_was(folder, pretrained):
    result, before, after = pretrained
    assert after == before
    succeed("pretrain", "--config", folder / "pretrain.yaml", "--workdir", folder / "command")
    assert without_times(result.history) == without_times(records(folder / "command"))
    theirs = weights(folder / "command" / "model_checkpoints" / "model_checkpoint_1")
    ours = weights(result.checkpoint)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)

    assert result.folder == folder / "pretrain"
    assert result.config.checkpoints.keep == 1
    assert result.metrics == summary(result.folder)
    assert result.metrics["command"].startswith("tfinpaint.pretrain(config={'workdir': ")
    assert result.values("loss", "test") == [result.history[-1]["loss"]]
    assert result.report.exists()
    assert (result.figures / "restorations.png").exists()
    kernel = next(layer for layer in result.model.layers if isinstance(layer, keras.layers.Conv2D)).kernel
    assert any(np.array_equal(kernel, value) for value in ours.values())
    assert result.model is result.model  # loaded once


def test_a_second_call_continues_the_run_in_another_thread_and_prints_nothing(folder, pretrained, tmp_path, capfd):
    first = pretrained[0]
    with pytest.raises(UserError, match="already holds a run"):
        tfinpaint.pretrain(first.config)
    found = []

    def work() -> None:
        found.append(tfinpaint.pretrain(workdir=first.folder, resume=True, num_epochs=2, verbose=False))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (second,) = found
    assert second.history[: len(first.history)] == first.history
    assert [record["epoch"] for record in second.history] == [1, 1, 2, 2]
    assert second.checkpoint.name == "model_checkpoint_2"
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), pytest.param(signal.SIGTERM, StoppedError, marks=pytest.mark.stress)],
)
def test_a_signal_saves_the_run_and_raises(folder, tmp_path, monkeypatch, number, error):
    step, sent = RunProgress.step, []

    def interrupted(self, *arguments) -> None:
        step(self, *arguments)
        if not sent:
            sent.append(number)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(RunProgress, "step", interrupted)
    before = state_of_process()
    with pytest.raises(error, match=f"^Stopped .* as {number.name}.* asked; ") as raised:
        tfinpaint.pretrain(folder / "pretrain.yaml", workdir=tmp_path, num_epochs=2, data={"test_input_path": None})
    assert state_of_process() == before
    (saved,) = (tmp_path / "model_checkpoints").glob("model_checkpoint_*")
    assert saved.name in str(raised.value)


def test_a_classifier_tells_the_classes_of_photos_as_it_was_tested(folder):
    trained = tfinpaint.classify(folder / "classify.yaml", verbose=False)
    assert trained.classes == ("cold", "warm")
    assert trained.model.output_shape == (None, 2)
    photos = folder / "data" / "testing"
    found = tfinpaint.predict(trained.folder, [photos, folder / "nothing"], verbose=False)
    right = [Path(photo).parent.name == best for photo, best in zip(found.photos, found.best, strict=True)]
    assert len(right) == 7
    assert np.mean(right) == pytest.approx(trained.metrics["test_accuracy"])
    assert list(found.unreadable) == [str(folder / "nothing")]
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-6)
    with pytest.raises(UserError, match="is a classifier, which predicts the classes of photos: leave the mask out"):
        tfinpaint.predict(trained.folder, photos / "cold" / "000.png", mask=photos / "cold" / "001.png")


def test_an_inpainter_restores_a_photo_in_the_hole_alone(folder, pretrained, tmp_path):
    photo = next((folder / "data" / "testing" / "cold").iterdir())
    hole = np.zeros((24, 20), bool)
    hole[3:9, 4:8] = True
    Image.fromarray(np.where(hole, 255, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    options = {"mask": tmp_path / "mask.png", "verbose": False}
    restored = tfinpaint.predict(pretrained[0].folder, photo, **options, output=tmp_path / "restored.png")
    assert np.array_equal(restored.hole, hole)
    original = np.asarray(Image.open(photo))
    assert np.array_equal(restored.image[~hole], original[~hole])
    assert not np.array_equal(restored.image[hole], original[hole])
    assert np.array_equal(np.asarray(Image.open(restored.output)), restored.image)
    assert tfinpaint.predict(pretrained[0].folder, photo, **options).output is None
    with pytest.raises(UserError, match="is an inpainter, which restores a photo where a mask is white: give the mask"):
        tfinpaint.predict(pretrained[0].folder, photo)


def test_what_is_wrong_is_raised_in_one_line(folder, tmp_path):
    cases = (
        ({"num_epoch": 2}, "keyword num_epoch: unknown key num_epoch; did you mean num_epochs?"),
        ({"optimizer": {"learning_rate": "fast"}}, "keyword optimizer: optimizer.learning_rate: input should be a"),
        ({"resume": True, "overwrite": True}, "resume and overwrite: give one of them"),
        ({"allow_change": ["seed"]}, "allow_change needs resume=True"),
        ({"data": {"input_path": tmp_path / "none"}}, "data.input_path"),
    )
    for keywords, message in cases:
        with pytest.raises(UserError) as raised:
            tfinpaint.pretrain(folder / "pretrain.yaml", **keywords)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="workdir is missing: name the run folder"):
        tfinpaint.pretrain(num_epochs=1)
    with pytest.raises(UserError, match="output: is for a restored photo, and there is no mask"):
        tfinpaint.predict(folder / "pretrain", folder / "data" / "testing", output=tmp_path / "restored.png")
    with pytest.raises(UserError, match=r"shares: \[0\]: expected percentages above 0, at most 100"):
        tfinpaint.probe(folder / "pretrain", folder / "data" / "training", shares=[0])
    for wrong in ({"repeats": 2.5}, {"repeats": 0}, {"size": 64.5}, {"size": 10**6}):
        ((name, value),) = wrong.items()
        with pytest.raises(UserError, match=rf"^{name}: {value}: expected a whole number, \d+ to \d+$"):
            tfinpaint.probe(folder / "pretrain", folder / "data" / "training", **wrong)


def test_a_report_has_the_whole_call_of_a_probe(monkeypatch):
    calls = []
    monkeypatch.setattr(probing, "run_probe", lambda *_, command, **options: calls.append(command))
    tfinpaint.probe("run", "data")
    tfinpaint.probe("run", Path("data"), shares=[10, 1.0], repeats=2, compare=[Path("other")], output="here")
    assert calls == [
        "tfinpaint.probe(encoder='run', data='data')",
        "tfinpaint.probe(encoder='run', data='data', shares=[10, 1.0], repeats=2, compare=['other'], output='here')",
    ]


def test_a_quiet_call_prints_no_warning_where_nobody_has_set_up_a_log(monkeypatch, capfd):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with one_call(verbose=False):
        logging.getLogger("tfinpaint.runs.data").warning("1 image is left out")
    assert capfd.readouterr() == ("", "")
