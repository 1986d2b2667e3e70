"""Whole programs that use `tfinpaint.distributed`, each under a launcher of its own."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT
from ranks import TIMEOUT_SECONDS, environment, launch_python

pytestmark = [pytest.mark.parallel, pytest.mark.stress]

EXAMPLE = ROOT / "examples" / "keras_fit.py"
PROGRAM = Path(__file__).with_name("keras_program.py")


def test_the_example_trains_the_same_under_every_launcher(tmp_path):
    found = {}
    for launcher in ("alone", "mpi", "gloo", "mpirun"):
        (tmp_path / launcher).mkdir()
        if launcher == "alone":
            command = [sys.executable, EXAMPLE]
            options = {"capture_output": True, "text": True, "env": environment()}
            done = subprocess.run(command, cwd=tmp_path / launcher, check=False, **options)
        else:
            done = launch_python(EXAMPLE, launcher=launcher, cwd=tmp_path / launcher)
        assert done.returncode == 0, done.stdout + done.stderr
        ranks, norm = re.search(r"(\d) rank\(s\), norm of all weights ([\d.]+)", done.stdout).groups()
        assert ranks == ("1" if launcher == "alone" else "2")
        found[launcher] = float(norm), keras.models.load_model(tmp_path / launcher / "digits.keras")
    norm, model = found.pop("alone")
    for launcher, (its_norm, its_model) in found.items():
        assert its_norm == pytest.approx(norm, abs=1e-5), launcher
        for ours, theirs in zip(its_model.variables, model.variables, strict=True):
            assert np.abs(ours - theirs).max() <= 2e-6, (launcher, ours.path)
        assert int(its_model.optimizer.iterations) == int(model.optimizer.iterations)


def test_ranks_wait_for_each_other_at_the_end(tmp_path):
    done = launch_python(PROGRAM, tmp_path, "none")
    assert done.returncode == 0, done.stderr
    assert "2 rank(s) have trained 12 updates" in done.stdout
    assert (tmp_path / "weights.0").read_text() == (tmp_path / "weights.1").read_text()


@pytest.mark.parametrize("launcher", ["mpirun", "gloo"])
def test_an_error_of_one_rank_ends_all_with_its_message(tmp_path, launcher):
    done = launch_python(PROGRAM, tmp_path, "error", launcher=launcher)
    assert done.returncode != 0
    written = done.stdout + done.stderr
    assert "rank 1: Traceback" in written
    assert "ValueError: told by rank 1" in written
    # The launcher may end rank 0 before it has said why it stops.
    for line in re.findall("rank 0 stops: .*", written):
        assert re.search(r"stops: rank 1( \(.+\))? failed in epoch 2, step 1: ValueError: told by rank 1$", line)
    assert not list(tmp_path.glob("weights.*"))


def test_an_elastic_run_continues_without_its_first_rank_and_then_with_another(tmp_path):
    (tmp_path / "hosts").write_text("localhost:1\n127.0.0.1:1\n")  # names that Horovod takes for different hosts
    script = tmp_path / "discover"
    script.write_text(f"#!/bin/sh\ncat {tmp_path / 'hosts'}\n")
    script.chmod(0o755)
    done = subprocess.run(
        [shutil.which("horovodrun", path=environment()["PATH"]), "--gloo", "-np", "2", "--min-np", "1", "--max-np", "2",
         "--host-discovery-script", str(script), "--network-interfaces", "lo", sys.executable, str(PROGRAM),
         str(tmp_path), "kill"],
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment(),
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    epochs = [tuple(map(int, line.split())) for line in (tmp_path / "epochs").read_text().splitlines()]
    assert epochs == [(1, 2), (2, 2), (3, 2), (3, 1), (4, 1), (5, 2), (6, 2)], output
    assert "2 rank(s) have trained 12 updates" in output
    assert (tmp_path / "weights.0").read_text() == (tmp_path / "weights.1").read_text()
