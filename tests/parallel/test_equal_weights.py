"""Two ranks end with the weights of one, with every option that could part them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_parallel import LAUNCHERS, TIMEOUT_SECONDS

pytestmark = [pytest.mark.parallel, pytest.mark.slow]

SCRIPT = Path(__file__).parents[2] / "scripts" / "equal_weights.py"
# In bfloat16 and float16 each rank rounds its own gradients, to 8 and 11 bits, before they are averaged.
BOUNDS = {"mixed_bfloat16": 2e-2, "fp16 compression": 2e-3}


@pytest.mark.parametrize("launcher", ["mpirun", "gloo"])
def test_two_ranks_end_with_the_weights_of_one(launcher):
    done = subprocess.run(
        [*LAUNCHERS[launcher], "2", sys.executable, SCRIPT], capture_output=True, text=True, timeout=2 * TIMEOUT_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") : done.stdout.rindex("}") + 1])
    assert (found["ranks"], found["steps"]) == (2, 20)
    differences = found["largest relative difference"]
    assert len(differences) == 9
    for case, difference in differences.items():
        assert difference <= BOUNDS.get(case, 1e-5), (case, differences)
