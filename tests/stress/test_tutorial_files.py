"""The four files of rmldnn's tutorial run unmodified on two ranks, with the real ResNet50 encoder."""

import json
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from ranks import LAUNCHERS, environment

pytestmark = [pytest.mark.parallel, pytest.mark.stress]

TIMEOUT_SECONDS = 600


def launch_beside(folder: Path, *arguments: str) -> str:
    """Run a command on two ranks from within a folder, as its user would."""
    done = subprocess.run(
        [*LAUNCHERS["mpi"], "2", "python", "-m", *arguments],
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment(), cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def seed_folder(natural_images, tmp_path) -> Path:
    """The tutorial's four files, and 12 + 2 of each class of its images beside them."""
    source = natural_images.parent / "seed"
    if not source.is_dir():
        pytest.skip(f"{source.name} is not beside the project")
    for path in source.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    taken: Counter[str] = Counter()
    with zipfile.ZipFile(natural_images) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
            category = Path(name).parent.name
            taken[category] += 1
            if taken[category] <= 14:
                target = tmp_path / "natural_images" / ("training" if taken[category] <= 12 else "testing") / category
                target.mkdir(parents=True, exist_ok=True)
                (target / Path(name).name).write_bytes(archive.read(name))
    return tmp_path


def test_the_tutorials_own_files_run_unmodified(seed_folder):
    short = ("--set", "num_epochs=1", "--set", "steps_per_epoch=1", "--set", "data.batch_size=8")
    launch_beside(seed_folder, "tfinpaint.pretrain", "--config", "config_inpaint_feature_extraction.json", *short)
    output = launch_beside(seed_folder, "tfinpaint.classify", "--config", "config_inpaint_classifier.json", *short)
    assert (
        "Transferred 106 layers by name; the head (dense_1) is new; 5 further layers of model_checkpoint_1 are not needed"
        in output
    )
    runs = {name: seed_folder / f"config_inpaint_{name}_run" for name in ("feature_extraction", "classifier")}
    inpainter, classifier = (json.loads((run / "summary.json").read_text()) for run in runs.values())
    assert (inpainter["parameters"], inpainter["trainable_parameters"]) == (43_121_475, 43_068_355)
    assert (classifier["parameters"], classifier["trainable_parameters"]) == (23_849_864, 23_743_624)
    assert (classifier["world_size"], classifier["test_images"]) == (2, 16)
    for name in ("feature_extraction_train", "classifier_train", "classifier_test"):
        (line,) = (seed_folder / f"out_inpaint_{name}.txt").read_text().splitlines()
        assert line.startswith("1 ")
        assert len(line.split()) == (2 if "feature" in name else 3)  # epoch, loss, accuracy
