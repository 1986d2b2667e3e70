"""Two ranks of which one meets something wrong: all end cleanly, and one clear message names the cause."""

import pytest
from conftest import write_config, write_images
from PIL import Image
from ranks import launch, launch_python

pytestmark = pytest.mark.parallel


@pytest.mark.stress
@pytest.mark.parametrize("launcher", ["gloo", "mpi"])
def test_a_wrong_configuration_ends_every_rank_with_one_clear_line(images, tmp_path, launcher):
    config = write_config(tmp_path / "c.yaml", "pretrain", images, data__batch_size=9)
    done = launch("pretrain", "--config", config, launcher=launcher)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("data.batch_size 9 is the batch over all ranks") == 1
    assert "Traceback" not in done.stdout + done.stderr.split("error: ")[-1].split("\n")[0]


@pytest.mark.parametrize("launcher", ["mpi", pytest.param("gloo", marks=pytest.mark.stress)])
def test_a_bad_image_in_one_ranks_share_stops_all(images, tmp_path, launcher):
    bad = images / "training" / "cold" / "001.png"  # index 1: rank 1 reads it
    bad.write_bytes(b"not an image")
    config = write_config(tmp_path / "c.yaml", "pretrain", images)
    done = launch("pretrain", "--config", config, launcher=launcher)
    assert done.returncode != 0
    assert f"error: {bad}: not an image" in done.stdout + done.stderr


# pretrain, where the listing of rank 1 lacks a file.
ONE_FILE_LESS = """
import sys
from tfinpaint.pretrain import main as pretrain
from tfinpaint.distributed.environment import launched_rank
from tfinpaint.data.listing import pairing

whole = pairing.list_images
pairing.list_images = lambda *given, **named: whole(*given, **named).select(range(18 - launched_rank()))
sys.exit(pretrain(sys.argv[1:]))
"""


@pytest.mark.stress
def test_ranks_that_see_different_files_stop(tmp_path):
    write_images(tmp_path / "data" / "training", {"a": 9, "b": 9})
    config = write_config(tmp_path / "c.yaml", "pretrain", tmp_path / "data", data__test_input_path=None)
    done = launch_python("-c", ONE_FILE_LESS, "--config", config)
    assert done.returncode != 0
    assert "the ranks see different files there" in done.stdout + done.stderr


# pretrain, where a file of each rank's share is cut as soon as all images were found to be readable.
CUT_AFTER_CHECK = """
import sys
from pathlib import Path
from tfinpaint.pretrain import main as pretrain
from tfinpaint.runs import image_check

check = image_check.check_images_once

def check_then_cut(listing, rank, *rest):
    found = check(listing, rank, *rest)
    if "training" in str(listing.root):
        path = Path(listing.place(4 + rank))
        path.write_bytes(path.read_bytes()[:100])
    return found

image_check.check_images_once = check_then_cut
sys.exit(pretrain(sys.argv[1:]))
"""


@pytest.mark.stress
def test_images_that_go_bad_are_counted_over_the_ranks_and_listed_once(images, tmp_path):
    changes = {"num_epochs": 1, "data__test_input_path": None, "data__preload": False, "data__max_bad_images": 2}
    config = write_config(tmp_path / "c.yaml", "pretrain", images, **changes)
    whole = {n: (images / "training" / "cold" / f"{n:03}.png").read_bytes() for n in (4, 5)}
    done = launch_python("-c", CUT_AFTER_CHECK, "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 images failed during training (0 before; limit 2) and were replaced" in done.stdout
    lines = [line.split("\t") for line in (tmp_path / "run" / "bad_images.txt").read_text().splitlines()]
    assert [line[:2] for line in lines] == [["epoch 1", f"{images}/training/cold/{number:03}.png"] for number in (4, 5)]
    for number, contents in whole.items():
        (images / "training" / "cold" / f"{number:03}.png").write_bytes(contents)
    # No rank alone has too many, but both together.
    done = launch_python("-c", CUT_AFTER_CHECK, "--config", config, "--overwrite", "--set", "data.max_bad_images=1")
    assert done.returncode == 2
    assert "2 images failed during training (0 before); data.max_bad_images allows 1" in done.stderr


@pytest.mark.stress
def test_the_batch_of_the_rank_that_was_not_finite_is_kept_and_named(images, tmp_path):
    overflowing = [{"normalize": {"mean": 0.0, "std": 1e-30}}, {"normalize": {"mean": 0.0, "std": 1e-10}}]
    config = write_config(tmp_path / "c.yaml", "pretrain", images, data__input_transforms=overflowing)
    for number, path in enumerate(sorted((images / "training").rglob("*.png"))):
        Image.new("RGB", (20, 24), (255, 255, 255) if number == 5 else (0, 0, 0)).save(path)
    done = launch("pretrain", "--config", config, launcher="mpirun")
    assert done.returncode == 2
    (kept,) = (tmp_path / "run" / "nonfinite_batches").iterdir()
    assert kept.name.endswith("_rank_1.npz")
    assert "of rank 1 are not finite" in done.stderr
    assert f"Examine {kept} with tfinpaint replay." in done.stderr
