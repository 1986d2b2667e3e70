"""Two ranks end with the weights of one: the cases of tests/stress/equal_weights.py in which the most comes together."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from test_parallel import LAUNCHERS, TIMEOUT_SECONDS

pytestmark = pytest.mark.parallel

SCRIPT = ROOT / "tests" / "stress" / "equal_weights.py"
LARGEST = {
    "accumulation, clipping, masked loss": 1e-5,
    "sync_batchnorm": 5e-4,  # dividing by deviations makes rounding errors grow from step to step
    "mixed_bfloat16": 5e-3,  # each rank rounds its own gradients, to 8 bits, before they are averaged
}


def test_two_ranks_end_with_the_weights_of_one():
    done = subprocess.run(
        [*LAUNCHERS["gloo"], "2", sys.executable, SCRIPT, "--cases", *LARGEST],
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") : done.stdout.rindex("}") + 1])
    assert (found["ranks"], found["steps"]) == (2, 20)
    assert found["largest relative difference"].keys() == LARGEST.keys()
    for case, difference in found["largest relative difference"].items():
        assert difference <= LARGEST[case], found
