"""Lines and bar: on a clock that is not the machine's, on a pseudo-terminal, on what a launcher gives."""

import re
import sys
from typing import NamedTuple

import pytest
from terminal import Terminal

from tfinpaint.runs import progress
from tfinpaint.runs.progress import RunProgress


class Result(NamedTuple):
    """What is read of an EpochResult, whose module loads TensorFlow."""

    values: dict[str, float]
    images_per_second: float = 20.0


RESULT = Result({"loss": 0.5, "accuracy": 0.25})


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand: clock(seconds)."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, seconds)


def test_plain_lines_tell_place_loss_and_time_left(capsys, clock):
    shown = RunProgress(enabled=True, first_step=2, num_epochs=3, steps_per_epoch=2)
    shown.begin()
    clock(60.0)  # which was compilation
    shown.step(2, lambda: 0.75)
    clock(80.0)
    shown.step(2, lambda: 0.7)
    clock(90.0)
    shown.epoch_end(2, RESULT, RESULT)
    clock(110.0)
    shown.step(3, lambda: 0.6)
    clock(130.0)
    shown.step(3, lambda: 0.5)
    shown.epoch_end(3, RESULT, None)
    shown.close()
    assert capsys.readouterr().out.splitlines() == [
        "Compiling the training step (this can take a minute)...",
        "  epoch 2/3 step 1/2  loss 0.7500",
        "  epoch 2/3 step 2/2  loss 0.7000  40 s left",
        "epoch 2/3  loss 0.5000, test 0.5000  accuracy 0.250, test 0.250  40 s left",
        "  epoch 3/3 step 1/2  loss 0.6000  30 s left",
        "  epoch 3/3 step 2/2  loss 0.5000",
        "epoch 3/3  loss 0.5000  accuracy 0.250  20.0 images/s",
    ]


def test_losses_of_training_and_test_are_the_same_quantity(capsys, clock):
    """The agreement of two views is computed in training alone, so that it must not stand beside a test loss."""
    shown = RunProgress(enabled=True, first_step=0, num_epochs=10, steps_per_epoch=1, is_total=True)
    clock(20.0)
    shown.step(1, lambda: 4.5)
    train = Result({"loss": 4.0932, "reconstruction_loss": 0.9178, "agreement_loss": 3.6343})
    shown.epoch_end(1, train, Result({"loss": 0.4319, "reconstruction_loss": 0.8637}))
    shown.close()
    assert capsys.readouterr().out.splitlines() == [
        "  epoch 1/10 step 1/1  total loss 4.5000",
        "epoch 1/10  reconstruction 0.9178, test 0.8637  total loss 4.0932  20.0 images/s",
    ]


def test_a_run_that_is_at_its_end_compiles_nothing(capsys):
    shown = RunProgress(enabled=True, first_step=4, num_epochs=2, steps_per_epoch=2)
    shown.begin()
    shown.close()
    assert capsys.readouterr().out == ""


def test_other_ranks_are_silent_and_never_read_the_loss(capsys):
    shown = RunProgress(enabled=False, first_step=0, num_epochs=1, steps_per_epoch=1)
    shown.begin()
    shown.step(1, lambda: pytest.fail("read"))
    shown.epoch_end(1, RESULT, None)
    shown.close()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("variable", "value", "bar"),
    [
        ("TERM", "xterm", True),
        ("NO_COLOR", "1", True),
        ("TERM", "dumb", False),
        ("OMPI_COMM_WORLD_SIZE", "1", False),
        ("HOROVOD_SIZE", "1", False),
    ],
)
def test_a_bar_on_terminals_that_can_show_one_alone(monkeypatch, variable, value, bar):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, value)
    shown = RunProgress(enabled=True, first_step=0, num_epochs=1, steps_per_epoch=1)
    shown.close()
    assert (shown._bar is not None) == bar


# Epochs of 0.04 s, with a log line after each, as of a checkpoint; {path} is longer than a line of the terminal.
ON_A_TERMINAL = """
import logging, sys, time
from types import SimpleNamespace
from tfinpaint.cli.command import log_to_stdout
from tfinpaint.system import streams
from tfinpaint.runs import progress
streams.make_lenient()
log_to_stdout(0)
progress.BAR_INTERVAL_SECONDS = 0.0
values = {"loss": 0.5, "accuracy": 0.25}
shown = progress.RunProgress(enabled=True, first_step=0, num_epochs=3, steps_per_epoch=4)
shown.begin()
for epoch in (1, 2, 3):
    if epoch == 2:
        print("resize", flush=True)
        sys.stdin.readline()
    for step in range(4):
        time.sleep(0.01)
        shown.step(epoch, lambda: 1 / epoch)
    result = SimpleNamespace(values=values, images_per_second=208.2)
    shown.epoch_end(epoch, result, result)
    logging.getLogger("tfinpaint").info("Saved " + "/folder" * 20 + "/model_checkpoint_%d", epoch)
shown.close()
"""


def rows_of(line: str, width: int) -> list[str]:
    """Return the rows of a terminal that a line takes."""
    return [line[start : start + width] for start in range(0, len(line), width)]


@pytest.mark.parametrize(
    ("columns", "resized", "speed"), [(80, 100, "  208.2 images/s"), (100, 70, ""), (80, 80, "  208.2 images/s")]
)
def test_the_bar_of_a_terminal_survives_log_lines_resizing_and_short_epochs(columns, resized, speed):
    terminal = Terminal([sys.executable, "-c", ON_A_TERMINAL], columns)
    bars = []

    def look(rows: list[str]) -> None:
        if "resize" in rows and terminal.process.stdin:
            terminal.resize(resized)
            terminal.process.stdin.close()  # it goes on
            terminal.process.stdin = None
        bars.extend(row for row in rows if "━" in row)

    assert terminal.watch(look) == 0, terminal.rows()
    saved = "Saved " + "/folder" * 20 + "/model_checkpoint_{}"
    figures = "epoch {}/3  loss 0.5000, test 0.5000  accuracy 0.250, test 0.250"
    *lines, bar = terminal.rows()
    before = ["Compiling the training step (this can take a minute)...", figures.format(1) + "  208.2 images/s"]
    before += [*rows_of(saved.format(1), columns), "resize"]
    after = [row for epoch in (2, 3) for row in (figures.format(epoch) + speed, *rows_of(saved.format(epoch), resized))]
    assert lines == [row[:resized].rstrip() for row in before] + after  # a narrower terminal cuts what it shows
    assert re.fullmatch(r"epoch 3/3 loss 0\.5000 ━+ 12/12", bar)  # what stays is true, and there is no other bar
    assert {bar[:9] for bar in bars} == {"epoch 1/3", "epoch 2/3", "epoch 3/3"}  # in short epochs, too


@pytest.mark.parametrize(
    ("train", "test", "line"),
    [
        (
            {"loss": 0.51234},
            {"loss": 0.6, "hole_psnr_db": 14.5219, "psnr_db": 20.0},
            "epoch 12/100  loss 0.5123, validation 0.6000  validation hole_psnr_db 14.522",
        ),
        (
            {"loss": 0.5, "accuracy": 0.25, "rankme": 12.5, "probe_stage5": 0.75},
            {"loss": 0.6, "accuracy": 0.5},
            "epoch 12/100  loss 0.5000, validation 0.6000  accuracy 0.250, validation 0.500",
        ),
        ({"loss": 0.5}, None, "epoch 12/100  loss 0.5000  20.0 images/s"),
    ],
)
def test_the_line_of_an_epoch_is_never_longer_than_80_characters(capsys, train, test, line):
    shown = RunProgress(
        enabled=True, first_step=0, num_epochs=100, steps_per_epoch=1, held_out="validation", hidden=["psnr_db"]
    )
    shown.epoch_end(12, Result(train), test and Result(test))
    assert capsys.readouterr().out == line + "\n"
    assert len(line) <= 80
