"""Kills at random moments: a short form of tests/stress/torture.py."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = ROOT / "tests" / "stress" / "torture.py"


@pytest.mark.stress
@pytest.mark.parametrize(("commands", "kills"), [(["pretrain", "classify"], 20)])
def test_kills_lose_nothing_but_the_steps_of_an_interval(tmp_path, commands, kills):
    """In a process of its own: TensorFlow must not have been used before it forks."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "--kills", str(kills), "--folder", tmp_path, "--commands", *commands],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [int(count) for count in re.findall(r"\w+: (\d+) kills, ", done.stdout)]
    assert found == [kills // len(commands)] * len(commands)
    assert done.stdout.count("unrecoverable: 0 ") == len(commands)
    assert done.stdout.count("runs that differ from the undisturbed one: 0 ") == len(commands)
