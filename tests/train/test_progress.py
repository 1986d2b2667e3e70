"""Plain progress lines; what a launcher's pseudo-terminal gets."""

import sys

import pytest

from tfinpaint.train import progress
from tfinpaint.train.loop import Result
from tfinpaint.train.progress import RunProgress

RESULT = Result({"loss": 0.5, "accuracy": 0.25}, images=80, seconds=4.0, images_per_second=20.0)


def test_plain_lines_tell_place_loss_and_time_left(capsys, monkeypatch):
    now = iter([0.0, 20.0, 20.0, 20.0, 40.0, 40.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    shown = RunProgress(enabled=True, first_step=2, num_epochs=3, steps_per_epoch=2)
    shown.step(2, lambda: 0.75)
    shown.epoch_end(2, RESULT, RESULT)
    assert capsys.readouterr().out.splitlines() == [
        "  epoch 2/3 step 1/2  loss 0.7500  1 min 0 s left",
        "epoch 2/3  loss 0.5000  accuracy 0.2500  test loss 0.5000  test accuracy 0.2500  20.0 images/s  2 min 0 s left",
    ]


def test_other_ranks_are_silent_and_never_read_the_loss(capsys):
    shown = RunProgress(enabled=False, first_step=0, num_epochs=1, steps_per_epoch=1)
    shown.step(1, lambda: pytest.fail("read"))
    shown.epoch_end(1, RESULT, None)
    shown.close()
    assert capsys.readouterr().out == ""


def test_no_bar_on_a_launchers_pseudo_terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for variable, bar in ((None, True), ("OMPI_COMM_WORLD_SIZE", False), ("HOROVOD_SIZE", False)):
        if variable:
            monkeypatch.setenv(variable, "1")
        shown = RunProgress(enabled=True, first_step=0, num_epochs=1, steps_per_epoch=1)
        shown.close()
        assert (shown._bar is not None) == bar
