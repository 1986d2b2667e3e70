"""What strangers could send, through the real commands: none of it gets further than a message."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.stress
def test_every_hostile_input_is_refused_in_words_within_bounds_and_without_a_trace(tmp_path):
    """In a process of its own: TensorFlow must not have been used before it forks."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "stress" / "hostile_inputs.py", tmp_path / "inputs"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith("FAILED")]
    assert failed == [], done.stderr
    assert len([line for line in lines if line.startswith("ok ")]) >= 100
    assert lines[-1].endswith("written elsewhere: nothing")
