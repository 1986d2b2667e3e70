"""Lines and bar: on a clock that is not the machine's, on a pseudo-terminal, on what a launcher gives."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios

import pytest
from conftest import ROOT

from tfinpaint.runs import progress
from tfinpaint.runs.progress import RunProgress
from tfinpaint.train.totals import EpochResult

RESULT = EpochResult({"loss": 0.5, "accuracy": 0.25}, images=80, seconds=4.0, images_per_second=20.0)


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
        "epoch 2/3  loss 0.5000  accuracy 0.2500  test loss 0.5000  test accuracy 0.2500  20.0 images/s  40 s left",
        "  epoch 3/3 step 1/2  loss 0.6000  30 s left",
        "  epoch 3/3 step 2/2  loss 0.5000",
        "epoch 3/3  loss 0.5000  accuracy 0.2500  20.0 images/s",
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
from tfinpaint.cli.command import log_to_stdout
from tfinpaint.system import streams
from tfinpaint.runs import progress
from tfinpaint.train.totals import EpochResult
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
    shown.epoch_end(epoch, EpochResult(values, 8, 1.0, 208.2), EpochResult(values, 8, 1.0, 208.2))
    logging.getLogger("tfinpaint").info("Saved " + "/folder" * 20 + "/model_checkpoint_%d", epoch)
shown.close()
"""


def set_width(terminal: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def test_the_bar_of_a_terminal_survives_log_lines_resizing_and_short_epochs():
    ours, theirs = os.openpty()
    set_width(theirs, 80)
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL], stdin=subprocess.PIPE, stdout=theirs, stderr=theirs,
        env=environment | {"TERM": "xterm-256color"}, cwd=ROOT,
    )  # fmt: skip
    os.close(theirs)
    received = b""
    while True:
        try:
            received += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if b"resize" in received and process.stdin:
            set_width(ours, 60)
            process.stdin.write(b"go on\n")
            process.stdin.close()
            process.stdin = None
    assert process.wait() == 0, received
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", received.decode())
    # What is left on the screen of each line: what was written after the last return to its beginning.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    saved = [line for line in lines if "Saved" in line]
    assert saved == ["Saved " + "/folder" * 20 + f"/model_checkpoint_{epoch}" for epoch in (1, 2, 3)]
    assert "Compiling the training step (this can take a minute)..." in lines
    figures = [line for line in lines if line.startswith("epoch ") and "━" not in line]
    begin = "epoch {}/3  loss 0.5000  accuracy 0.2500  test loss 0.5000"
    assert figures == [begin.format(1) + "  test accuracy 0.2500", begin.format(2), begin.format(3)]
    assert lines[lines.index(figures[1]) + 1] == "  test accuracy 0.2500  208.2 images/s"
    assert max(map(len, figures)) <= 80
    bars = [frame for frame in re.split(r"[\r\n]+", text) if "━" in frame]
    narrow = [frame for frame in bars if frame.startswith(("epoch 2", "epoch 3"))]
    assert max(map(len, bars)) <= 80
    assert max(map(len, narrow)) <= 60
    assert {frame[:9] for frame in bars} == {"epoch 1/3", "epoch 2/3", "epoch 3/3"}  # in short epochs, too
    assert re.fullmatch(r"epoch 3/3 loss 0\.5000 ━+ 12/12 *", bars[-1])  # what stays is true
