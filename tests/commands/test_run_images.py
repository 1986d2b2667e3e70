"""`tfinpaint run` after images were added, removed or divided again: what it says, and what it refuses."""

import json
import shutil

import pytest
from commandline import refuse, succeed
from conftest import zipped
from photo_project import FEW, PROJECT
from PIL import Image

from tfinpaint.cli.options import Options
from tfinpaint.config.schema import Config
from tfinpaint.runs.folder import RunFolder
from tfinpaint.runs.known_images import other_images

ANOTHER = "tfinpaint init 'my photos' 'runs/my photos_2'"
REMOVE = "or remove 'runs/my photos/pretrain' and 'runs/my photos/classify' and 'runs/my photos/from_scratch' to train"


def add(name: str) -> None:
    Image.new("RGB", (30, 30), sum(name.encode()) % 256).save(f"my photos/{name}")


def told(shown: str) -> list[str]:
    """What is said of the images between the first two stages."""
    return shown.partition("] Prepare: done before, in runs/my photos/data\n")[2].partition("\n[2 of")[0].splitlines()


def test_images_that_were_added_or_removed_since_are_told_with_the_command_for_another_project(photos_here, pretended):
    (photos_here / "my photos" / "cat" / "damaged.jpg").write_bytes(b"\xff\xd8\xff")
    succeed("init", "my photos")
    succeed("run", PROJECT)
    assert told(succeed("run", PROJECT)) == []  # an image that was left out is not a new one
    for name in ("rare/new.png", "rare/another.png", "dog/new.png"):
        add(name)
    (photos_here / "my photos" / "cat" / "truncated.png").write_bytes(b"\x89PNG")
    (photos_here / "my photos" / "cat" / "001.png").unlink()
    add("cat/002.png")  # another image of that name
    assert told(succeed("run", PROJECT)) == [
        "  runs/my photos/data lacks 3 images of my photos (dog 1, rare 2), has 1 that is not there, has 1 of another size: "
        f"this project keeps to what it has; to use the images of my photos as they are now, make another one: {ANOTHER}"
    ]
    shutil.rmtree("my photos")
    assert told(succeed("run", PROJECT)) == []
    assert len(pretended.begun) == 3


def test_a_newer_archive_and_a_division_that_is_kept_are_compared_too(photos_here, pretended):
    (photos_here / "divided").mkdir()
    for side in ("train", "test"):
        shutil.copytree("my photos", f"divided/{side}")
    archive = zipped(photos_here / "divided", photos_here / "my photos.zip", "")
    succeed("init", archive)
    succeed("run", PROJECT)
    assert told(succeed("run", PROJECT)) == []
    shutil.copy("my photos/dog/000.png", "divided/test/cat/dog.png")
    zipped(photos_here / "divided", archive, "")
    (line,) = told(succeed("run", PROJECT))
    assert line.startswith(
        "  runs/my photos/data lacks 1 image of my photos.zip (cat 1): this project keeps to what it has"
    )


def test_what_was_removed_from_the_prepared_images_is_not_said_to_be_new(photos_here, pretended):
    succeed("init", "my photos")
    succeed("prepare", "my photos", PROJECT / "data")
    next((PROJECT / "data" / "training" / "cat").iterdir()).unlink()
    (line,) = told(succeed("run", PROJECT))
    assert line.startswith(
        "  runs/my photos/data lacks 1 image of my photos (cat 1): this project keeps to what it has;"
    )


def test_a_class_that_is_gone_since_init_is_told_when_the_images_are_prepared_and_later(photos_here, pretended):
    succeed("init", "my photos")
    (photos_here / "my photos" / "rare").rename(photos_here / "my photos" / "seldom")
    (photos_here / "my photos" / "dog").rename(photos_here / "dog")
    gone = (
        "  `tfinpaint init` found 3 classes; dog, rare are gone and seldom is new: this project trains on 2; to change "
        "that, make the folders in my photos what they should be, and make another project: " + ANOTHER
    )
    assert gone in succeed("run", PROJECT).splitlines()
    (photos_here / "dog").rename(photos_here / "my photos" / "dog")
    assert gone in told(succeed("run", PROJECT))
    note = json.loads((PROJECT / "project.json").read_text())
    assert note.pop("classes") == ["cat", "dog", "rare"]
    (PROJECT / "project.json").write_text(json.dumps(note))  # as earlier versions have written it
    assert "tfinpaint init` found" not in succeed("run", PROJECT)


def test_data_that_is_divided_again_after_trainings_is_refused_with_what_to_remove(photos_here, pretended):
    succeed("init", "my photos")
    succeed("run", PROJECT)
    shutil.rmtree(PROJECT / "data")
    succeed("run", PROJECT)  # the same images are divided in the same way
    shutil.rmtree(PROJECT / "data")
    for number in range(10):
        add(f"rare/new_{number}.png")
    message = refuse("run", PROJECT)
    assert message.startswith(
        "error: runs/my photos/pretrain: began with other images than those in runs/my photos/data: 92 training images and "
        "41 test images then, 99 training images and 44 test images now; images that are for testing now may have been "
        f"trained on; bring the former images back, {REMOVE} again"
    )
    for name in ("pretrain", "classify", "from_scratch"):
        shutil.rmtree(PROJECT / name)
    succeed("run", PROJECT)
    assert len(pretended.begun) == 6


def test_a_training_that_has_saved_nothing_begins_with_the_images_that_there_are(photos_here, pretended):
    succeed("init", "my photos")
    pretended.ending["pretrain"] = "interrupted"
    with pytest.raises(AssertionError):
        succeed("run", PROJECT)
    shutil.rmtree(PROJECT / "data")
    add("dog/new.png")
    succeed("run", PROJECT)


def test_without_classes_new_images_are_a_warning_after_a_training_and_an_error_within(photos_here, pretended):
    succeed("init", "my photos/cat", "album")
    succeed("run", "album")
    assert "other images" not in succeed("run", "album")
    add("cat/new.png")
    assert (
        "my photos/cat: pretrain was trained on other images: 65 training images then, 66 training images now; to use "
        "these, make another project: tfinpaint init 'my photos/cat' album_2\n" in succeed("run", "album")
    )
    (photos_here / "album" / "pretrain" / "summary.json").unlink()
    assert refuse("run", "album").endswith("bring the former images back, or remove album/pretrain to train again\n")


def test_a_class_of_few_images_is_told_with_how_to_add_some(photos_here, pretended):
    succeed("init", "my photos")
    how = f"To add images: put them into my photos, and make another project, because this one keeps to those that it has: {ANOTHER}"
    lines = [line.strip() for line in succeed("run", PROJECT).splitlines()]
    place = lines.index(FEW)
    assert how in lines[place : place + 4]
    assert how not in succeed("run", PROJECT)
    pretended.few = {"rare": 2}
    shutil.rmtree(PROJECT / "classify")
    lines = succeed("run", PROJECT).splitlines()
    (place,) = (number for number, line in enumerate(lines) if line.startswith("Too few training images to learn from"))
    assert lines[place + 1] == how


def test_a_real_run_in_a_project_notes_its_images_when_it_begins(photos_here):
    """The trainings above are pretended, and so are their notes."""
    data = {"input_path": str(photos_here / "my photos"), "target_type": "labels"}
    for parent, noted in (("album", True), ("elsewhere", False)):
        config = Config.model_validate({"workdir": str(photos_here / parent / "classify"), "data": data})
        (photos_here / parent).mkdir()
        if noted:
            (photos_here / parent / "project.json").write_text("{}")
        with RunFolder(config) as folder:
            folder.open("classifier", Options(config, resume=False, overwrite=False, task="classify"))
            folder.begin(None, [], communication={})
        environment = json.loads((photos_here / parent / "classify" / "environment.json").read_text())
        assert (environment.get("images", {}).get("training", {}).get("number") == 133) == noted
    assert other_images(photos_here / "album" / "classify", config) == ""
    add("dog/new.png")
    assert other_images(photos_here / "album" / "classify", config) == (
        "133 training images then, 134 training images now"
    )
