"""An elastic run of pretrain: of two ranks one is killed, another host comes, one is told to stop, and the run ends."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_config
from ranks import TIMEOUT_SECONDS, environment

pytestmark = [pytest.mark.parallel, pytest.mark.stress]

RANK = Path(__file__).with_name("elastic_rank.py")


def run_elastic(images: Path, folder: Path, num_epochs: int) -> tuple[str, list[tuple[int, int]]]:
    """Run pretrain of elastic_rank.py until its end; return its output, and (epoch, ranks) of each epoch."""
    # Names of this machine that Horovod takes for different hosts: the one that lost a rank is not used again.
    (folder / "hosts").write_text("localhost:1\n127.0.0.1:1\n")
    script = folder / "discover"
    script.write_text(f"#!/bin/sh\ncat {folder / 'hosts'}\n")
    script.chmod(0o755)
    changes = {"num_epochs": num_epochs, "figures_interval": num_epochs, "data__test_input_path": None}
    config = write_config(folder / "p.yaml", "pretrain", images, **changes)
    done = subprocess.run(
        ["horovodrun", "--gloo", "-np", "2", "--min-np", "1", "--max-np", "2", "--host-discovery-script", str(script),
         "--network-interfaces", "lo", sys.executable, str(RANK), str(folder), "0", "--config", str(config)],
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment(),
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert math.isfinite(records[-1]["loss"])
    return output, [(record["epoch"], record["world_size"]) for record in records]


def test_a_run_goes_on_without_the_rank_that_was_killed(images, tmp_path):
    output, epochs = run_elastic(images, tmp_path, num_epochs=3)
    assert "2 ranks are now 1: resuming from model_checkpoint_2\n" in output
    assert epochs == [(1, 2), (2, 2), (3, 1)]


def test_a_run_goes_on_without_its_first_rank_then_with_two_then_without_the_other(images, tmp_path):
    output, epochs = run_elastic(images, tmp_path, num_epochs=6)
    assert "2 ranks are now 1: resuming from model_checkpoint_2\n" in output
    assert "1 rank is now 2: resuming from model_checkpoint_3_step_2\n" in output
    assert "rank 1: This process leaves the run, as SIGTERM asked\n" in output
    assert "2 ranks are now 1: resuming from model_checkpoint_4_step_3\n" in output
    assert epochs == [(1, 2), (2, 2), (3, 1), (4, 2), (5, 1), (6, 1)]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["world_size"], summary["epochs"]) == (1, 6)
    weights = [path.read_text() for path in tmp_path.glob("weights.*")]
    assert len(weights) == 2  # of both ranks, after one of them had joined
    assert weights[0] == weights[1]
