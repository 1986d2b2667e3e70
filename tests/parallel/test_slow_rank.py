"""Two ranks, one of which is slow: the other waits as long as it works, and stops when it hangs."""

import json

import pytest
from conftest import write_config
from ranks import launch_python

pytestmark = pytest.mark.parallel

STALL_SECONDS = 6  # shorter than each of the works in all, longer than any part of one

# pretrain, where a rank takes a moment more for each part of every long work: {rank: {place: seconds}} in the first
# argument. A place is a module and what in it is to wait.
SLOW = """
import importlib, json, sys, time
from tfinpaint.pretrain import main as pretrain
from tfinpaint.distributed.environment import launched_rank

def slow(place, seconds):
    module, *owner, name = place.replace(":", ".").rsplit(".", 2 if place.partition(":")[2].count(".") else 1)
    owner = getattr(importlib.import_module(f"tfinpaint.{module}"), owner[0]) if owner else importlib.import_module(f"tfinpaint.{module}")
    quick = owner[name] if isinstance(owner, dict) else getattr(owner, name)

    def wait(*arguments, **keywords):
        time.sleep(seconds)
        return quick(*arguments, **keywords)

    owner.update({name: wait}) if isinstance(owner, dict) else setattr(owner, name, wait)

for place, seconds in json.loads(sys.argv[1]).get(str(launched_rank()), {}).items():
    slow(place, seconds)
sys.exit(pretrain(sys.argv[2:]))
"""


@pytest.mark.stress
def test_a_rank_that_works_longer_than_the_others_may_wait_is_no_hang(images, tmp_path):
    one_of_all = {
        "data.listing.check:inspect_image": 1.5,
        "data.examples:read_image": 1.5,
        "data.listing.walk:read_folder": 2.5,
        "inpainting.classical:BASELINES.nearest": 2.5,
        "train.batchnorm:StatisticsEstimator._read": 2.5,
        "report.predictions:PredictionsPart.add": 2,
    }
    first_alone = {"storage.atomic:_digest": 2, "report.predictions:_copy": 1.5}
    changes = {"num_epochs": 1, "model": {"batchnorm_batches": 3}}
    changes |= {"data__test_output_path": str(tmp_path / "predicted")}
    changes |= {"distributed": {"stall_timeout_s": STALL_SECONDS}}
    config = write_config(tmp_path / "c.yaml", "pretrain", images, **changes)
    done = launch_python("-c", SLOW, json.dumps({"0": first_alone, "1": one_of_all}), "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "summary.json").exists()
    assert (tmp_path / "predicted" / "predictions.h5").exists()
    assert "stall" not in done.stderr.lower()  # Horovod's own check reports nothing


def test_a_rank_that_hangs_while_it_checks_images_is_found(images, tmp_path):
    changes = {"distributed": {"stall_timeout_s": STALL_SECONDS}}
    config = write_config(tmp_path / "c.yaml", "pretrain", images, **changes)
    hanging = json.dumps({"1": {"data.listing.check:inspect_image": 3600}})
    done = launch_python("-c", SLOW, hanging, "--config", config, launcher="gloo")
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert "all ranks wait for rank 1" in output
    assert f"checking the images of {images / 'training'}, for {STALL_SECONDS} s" in output
    assert "tfinpaint/pretrain.py" not in output  # no traceback of ours; the launcher has its own
