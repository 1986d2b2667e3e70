"""Two ranks: images that go bad in the share of each, and values of one of them that are not finite."""

import os
import subprocess
import sys

import pytest
from conftest import write_config
from PIL import Image
from test_parallel import BIN, LAUNCHERS, launch

pytestmark = pytest.mark.parallel

# pretrain, where a file of each rank's share is cut as soon as all were found to be good.
CUT_AFTER_CHECK = """
import sys
from pathlib import Path
from tfinpaint import pretrain
from tfinpaint.runs import data

check = data.check_images_once

def check_then_cut(listing, shard, *rest):
    found = check(listing, shard, *rest)
    if "training" in str(listing.root):
        path = Path(listing.place(4 + shard))
        path.write_bytes(path.read_bytes()[:100])
    return found

data.check_images_once = check_then_cut
sys.exit(pretrain.main(sys.argv[1:]))
"""


def pretrain(*arguments: str) -> subprocess.CompletedProcess:
    command = [*LAUNCHERS["mpirun"], "2", sys.executable, "-c", CUT_AFTER_CHECK, *arguments]
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


def test_images_that_go_bad_are_counted_over_the_ranks_and_listed_once(images, tmp_path):
    changes = {"num_epochs": 1, "data__test_input_path": None, "data__preload": False, "data__max_bad_images": 2}
    config = write_config(tmp_path / "c.yaml", "pretrain", images, **changes)
    whole = {n: (images / "training" / "cold" / f"{n:03}.png").read_bytes() for n in (4, 5)}
    done = pretrain("--config", str(config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 images are unusable since they were checked, 0 were before, of at most 2" in done.stdout
    lines = [line.split("\t") for line in (tmp_path / "run" / "bad_images.txt").read_text().splitlines()]
    assert [line[:2] for line in lines] == [["epoch 1", f"{images}/training/cold/{number:03}.png"] for number in (4, 5)]
    for number, contents in whole.items():
        (images / "training" / "cold" / f"{number:03}.png").write_bytes(contents)
    # No rank alone has too many, but both together.
    done = pretrain("--config", str(config), "--overwrite", "--set", "data.max_bad_images=1")
    assert done.returncode == 2
    assert "2 images are unusable since they were checked, 0 were before; data.max_bad_images allows 1" in done.stderr


def test_the_batch_of_the_rank_that_was_not_finite_is_kept_and_named(images, tmp_path):
    spoiling = [{"normalize": {"mean": 0.0, "std": 1e-30}}, {"normalize": {"mean": 0.0, "std": 1e-10}}]
    config = write_config(tmp_path / "c.yaml", "pretrain", images, data__input_transforms=spoiling)
    for number, path in enumerate(sorted((images / "training").rglob("*.png"))):
        Image.new("RGB", (20, 24), (255, 255, 255) if number == 5 else (0, 0, 0)).save(path)
    done = launch("pretrain", "--config", config, launcher="mpirun")
    assert done.returncode == 2
    (kept,) = (tmp_path / "run" / "nonfinite_batches").iterdir()
    assert kept.name.endswith("_rank_1.npz")
    assert "of rank 1 are not finite" in done.stderr
    assert f"Look into {kept} with tfinpaint replay." in done.stderr
