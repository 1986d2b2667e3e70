"""The command `init`: what it finds, writes and says, and the folders of images that it refuses."""

import re
from dataclasses import replace

import yaml
from commandline import refuse, succeed
from conftest import write_images
from photo_project import FEW, PROJECT

from tfinpaint.system.hardware import Gpu, read_hardware


def test_init_says_what_it_found_what_it_wrote_and_what_to_type(photos_here):
    shown = succeed("init", "my photos", "--for", "laptop")
    lines = shown.splitlines()
    assert lines[0].startswith("my photos: 133 images in 3 classes (cat 65, dog 65, rare 3); colour, ")
    assert FEW in lines
    assert any(re.match(r"Settings for a laptop \(this machine: .*\): resnet18, images of ", line) for line in lines)
    (time,) = [line for line in lines if re.match(r"Time: about \d+ min \(pretraining \d+ min, classifier ", line)]
    total, *parts = map(int, re.findall(r"(\d+) min", time))
    assert total == sum(parts)
    assert "Disk: up to 2.2 GB for checkpoints; `checkpoints: {keep: 1}` makes it about a third less" in lines
    assert lines[-8] == "Next, all stages with one command, which continues where it was stopped:"
    assert lines[-7] == "  tfinpaint run 'runs/my photos'"
    assert lines[-5] == "  tfinpaint prepare 'my photos' 'runs/my photos/data' --test-fraction 0.3"
    assert lines[-4] == "  tfinpaint pretrain --config 'runs/my photos/pretrain.yaml'"
    assert sorted(path.name for path in PROJECT.iterdir()) == ["classify.yaml", "pretrain.yaml", "project.json"]
    assert refuse("init", "my photos").startswith("error: runs/my photos: holds a project already; continue it with: ")
    assert "expected laptop or gpu" in refuse("init", "my photos", "--for", "phone")


def test_a_gpu_that_tensorflow_cannot_use_does_not_count(photos_here, monkeypatch):
    machine = replace(read_hardware(), gpus=(Gpu("A", 40_000, 8.0),))
    monkeypatch.setattr("tfinpaint.init.read_hardware", lambda: machine)
    for installed, kind in (("2.21", "laptop"), (None, "GPU")):
        monkeypatch.setattr("tfinpaint.system.installation.version", lambda *_, found=installed: found)
        shown = succeed("init", "my photos", installed or "gpu")
        assert f"Settings for a {kind} (this machine: " in shown
        assert ("TensorFlow is installed without support for it" in shown) == (kind == "laptop")


def test_no_comment_of_a_written_file_repeats_a_value_that_may_be_changed(photos_here):
    succeed("init", "my photos")
    for path in PROJECT.glob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        total = values["num_epochs"] * values["steps_per_epoch"]
        assert f"{total:,}" not in path.read_text()


def test_folders_of_images_that_init_cannot_use_are_told_what_to_type(photos_here):
    for year in ("2023", "2024"):
        write_images(photos_here / "nested" / year, {"cat": 12, "dog": 12}, seed=int(year))
    assert refuse("init", "nested") == (
        "error: nested: class folders at several places (2023, 2024); name one of them in place of nested, such as "
        "nested/2023\n"
    )
    write_images(photos_here / "one", {"cat": 25})
    (photos_here / "one" / "empty").mkdir()
    assert refuse("init", "one", "--skip-empty-classes") == (
        "error: one: only one class (cat) has a usable image; a classifier needs at least two. Pretraining needs no "
        "classes: tfinpaint init one/cat\n"
    )
