"""Two ranks, one of which is slow: it is waited for as long as it works, and found when it hangs."""

import os
import subprocess
import sys

import pytest
from conftest import write_config
from test_parallel import BIN, LAUNCHERS

pytestmark = pytest.mark.parallel

STALL_SECONDS = 6  # shorter than each of the works in all, longer than any part of one

# pretrain, where a rank takes a moment more for each thing of every long work: {rank: [places]} in the first argument.
SLOW = """
import json, sys, time
from tfinpaint import baselines, commits, dist, hdf5_output, pretrain
from tfinpaint.data import pipeline, sources, tree
from tfinpaint.report import predictions
from tfinpaint.train import batchnorm, loop

MODULES = {module.__name__.rpartition(".")[2]: module for module in (
    baselines, batchnorm, commits, hdf5_output, loop, pipeline, predictions, sources, tree,
)}

def slow(module, name, seconds):
    *owner, name = name.split(".")
    owner = getattr(MODULES[module], owner[0]) if owner else MODULES[module]
    quick = owner[name] if isinstance(owner, dict) else getattr(owner, name)

    def wait(*arguments, **keywords):
        time.sleep(seconds)
        return quick(*arguments, **keywords)

    owner.update({name: wait}) if isinstance(owner, dict) else setattr(owner, name, wait)

for place, seconds in json.loads(sys.argv[1]).get(str(dist.launched_rank()), {}).items():
    slow(*place.split(":"), seconds)
sys.exit(pretrain.main(sys.argv[2:]))
"""


def pretrain(places: str, launcher: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [*LAUNCHERS[launcher], "2", sys.executable, "-c", SLOW, places, *arguments]
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)


def test_a_rank_that_works_longer_than_the_others_may_wait_is_no_hang(images, tmp_path):
    one_of_all = '{"sources:look_at_image": 1.5, "sources:read_image": 1.5, "tree:read_folder": 2.5, "baselines:BASELINES.nearest": 2.5, '
    one_of_all += '"batchnorm:StatisticsEstimator._read": 2.5, "predictions:PredictionsPart.add": 2}'
    first_alone = '{"commits:_digest": 2, "predictions:_copy": 1.5}'
    changes = {"num_epochs": 1, "model": {"encoder": "tiny", "batchnorm_batches": 3}}
    changes |= {"data__test_output_path": str(tmp_path / "predicted")}
    changes |= {"distributed": {"stall_timeout_s": STALL_SECONDS}}
    config = write_config(tmp_path / "c.yaml", "pretrain", images, **changes)
    done = pretrain(f'{{"0": {first_alone}, "1": {one_of_all}}}', "mpirun", "--config", str(config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "summary.json").exists()
    assert (tmp_path / "predicted" / "predictions.h5").exists()
    assert "stall" not in done.stderr.lower()  # Horovod's own check has nothing to tell


def test_a_rank_that_hangs_while_it_checks_images_is_found(images, tmp_path):
    changes = {"distributed": {"stall_timeout_s": STALL_SECONDS}}
    config = write_config(tmp_path / "c.yaml", "pretrain", images, **changes)
    done = pretrain('{"1": {"sources:look_at_image": 3600}}', "gloo", "--config", str(config))
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert "all wait for rank 1" in output
    assert f"checking the images of {images / 'training'}, for {STALL_SECONDS} s" in output
    assert "tfinpaint/pretrain.py" not in output  # no traceback of ours; the launcher has its own
