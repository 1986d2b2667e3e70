"""Inputs that strangers could send, through the real commands: each is refused with a message, and nothing else happens."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.stress
def test_every_hostile_input_is_refused_with_a_message_within_bounds_and_without_a_trace(tmp_path):
    """In a process of its own: TensorFlow must not have been used before it forks."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "stress" / "hostile_inputs.py", tmp_path / "inputs", "--only", ""],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith("FAILED")]
    assert failed == [], done.stderr
    assert len([line for line in lines if line.startswith("ok ")]) >= 100, done.stderr
    assert lines[-1].endswith("written elsewhere: nothing")
