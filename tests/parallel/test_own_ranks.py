"""Ranks that `tfinpaint pretrain --ranks` starts itself: plain lines, a bar on a terminal, errors once, a saved stop."""

import json
import re
import signal
import subprocess
import sys

import pytest
from conftest import write_config
from ranks import environment
from terminal import Terminal

pytestmark = pytest.mark.parallel


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tfinpaint", *map(str, arguments)]


def test_a_run_on_a_terminal_shows_plain_lines_and_a_bar_and_is_saved_at_ctrl_c(images, tmp_path):
    config = write_config(tmp_path / "c.yaml", "pretrain", images, num_epochs=10_000, figures_interval=10_000)
    terminal = Terminal(command("pretrain", "--config", config, "--ranks", 2), 80, PATH=environment()["PATH"])
    bars = []

    def look(rows: list[str]) -> None:
        shown = [row for row in rows if "━" in row]
        if shown and not bars:
            terminal.process.send_signal(signal.SIGINT)
        bars.extend(shown)

    assert terminal.watch(look) == 130
    rows = terminal.rows()
    first = rows.index("Loading TensorFlow (this can take a minute)...")
    assert not first or rows[0].startswith("2 ranks share 1 core on this host, ")
    over = re.fullmatch(r"2 ranks over (MPI|Gloo), \d+ threads? each", rows[first + 1])[1]
    assert "Compiling the training step (this can take a minute)..." in rows
    assert not [row for row in rows if row.startswith("[") or "cpu_feature_guard" in row or "prterun" in row]
    assert bars
    assert max(map(len, bars)) <= 80
    text = "".join(rows)  # a long line continues in the next row
    assert "Stopped in epoch " in text or "Stopped after epoch " in text
    assert "resume with: tfinpaint pretrain " in text
    assert list((tmp_path / "run" / "model_checkpoints").glob("model_checkpoint_*"))
    known = json.loads((tmp_path / "run" / "communication.json").read_text())
    assert (known["over"], known["HOROVOD_CACHE_CAPACITY"]) == (over, "1024")


def test_a_wrong_configuration_is_refused_once_before_any_rank_starts(images, tmp_path):
    config = write_config(tmp_path / "c.yaml", "pretrain", images, data__batch_size=9)
    done = subprocess.run(command("pretrain", "--config", config, "--ranks", 2), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "data.batch_size 9 is the batch over all ranks" in done.stderr


@pytest.mark.stress
@pytest.mark.parametrize("mpi", [True, False])
def test_an_error_of_all_ranks_is_shown_once_under_both_launchers(images, tmp_path, mpi):
    bad = images / "training" / "cold" / "001.png"
    bad.write_bytes(b"not an image")
    config = write_config(tmp_path / "c.yaml", "classify", images)
    program = command("classify", "--config", config, "--ranks", 2)
    if not mpi:
        program[1:3] = ["-c", WITHOUT_MPI]
    done = subprocess.run(program, capture_output=True, text=True, env=environment())
    assert done.returncode == 2
    assert done.stderr.count(f"{bad}: not an image") == 1
    assert "Traceback" not in done.stderr
    assert not [line for line in done.stdout.splitlines() if line.startswith("[")]


WITHOUT_MPI = """
import sys
from tfinpaint import __main__
from tfinpaint.system import installation

installation.mpi_of_horovod = lambda: None
sys.exit(__main__.main())
"""
