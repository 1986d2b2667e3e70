"""Twenty kills: the short form of tests/stress/torture.py."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = ROOT / "tests" / "stress" / "torture.py"


@pytest.mark.stress
def test_twenty_kills_lose_nothing_but_the_steps_of_an_interval(tmp_path):
    """In a process of its own: TensorFlow must not have been used before it forks."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "--kills", "20", "--folder", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kills = [int(count) for count in re.findall(r"\w+: (\d+) kills, ", done.stdout)]
    assert kills == [10, 10]
    assert done.stdout.count("unrecoverable: 0 ") == 2
    assert done.stdout.count("runs that differ from the undisturbed one: 0 ") == 2
