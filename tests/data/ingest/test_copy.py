"""Preparation: the split, files that are excluded, bad images, refusals; and the digits."""

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import tree, write_images, zipped
from PIL import Image

from tfinpaint.data.ingest.copy import prepare
from tfinpaint.data.ingest.pack import prepare_records
from tfinpaint.errors import UserError
from tfinpaint.system.paths import display_path


def test_split_is_stratified_complete_and_the_files_are_copied_as_they_are(tmp_path):
    source = write_images(tmp_path / "source", {"a": 30, "b": 14})
    (source / "a" / "notes.db").write_bytes(b"x")
    (source / "a" / "Thumbs.db").write_bytes(b"x")
    report = prepare(source, tmp_path / "dest")
    assert report.counts == {"a": (27, 3), "b": (13, 1)}
    made = tree(tmp_path / "dest")
    assert len(made) == 44
    by_name = {name.split("/", 1)[1]: contents for name, contents in made.items()}
    assert by_name == {name: c for name, c in tree(source).items() if not name.endswith(".db")}  # none on both sides
    assert (
        report.lines()[-1]
        == f"{display_path(tmp_path / 'dest')}: 40 training and 4 testing images in 2 classes, 0 unreadable; 1 file excluded: 1 .db "
        "(a/notes.db); 1 hidden or system file ignored"
    )


def test_the_folder_is_named_as_it_is_typed(tmp_path, monkeypatch):
    write_images(tmp_path / "source", {"a": 4, "b": 4})
    monkeypatch.chdir(tmp_path)
    assert prepare(tmp_path / "source", tmp_path / "dest").lines()[-1].startswith("dest: 6 training and 2 testing")


def test_split_is_reproducible_and_the_same_from_a_zip_at_any_depth(tmp_path):
    source = write_images(tmp_path / "source", {"a": 20, "b": 20})
    prepare(source, tmp_path / "one", seed=5)
    prepare(zipped(source, tmp_path / "x.zip", "data/natural_images/"), tmp_path / "two", seed=5)
    prepare(source, tmp_path / "three", seed=6)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert set(tree(tmp_path / "one")) != set(tree(tmp_path / "three"))


def test_the_same_data_twice_in_an_archive_is_taken_once(tmp_path):
    source = write_images(tmp_path / "source", {"a": 4, "b": 4})
    archive = zipped(source, tmp_path / "x.zip", "natural_images/")
    with zipfile.ZipFile(archive, "a") as file:
        for name, contents in tree(source).items():
            file.writestr(f"data/natural_images/{name}", contents)
    assert prepare(archive, tmp_path / "dest").counts == {"a": (3, 1), "b": (3, 1)}


def test_copies_of_one_file_stay_on_one_side(tmp_path):
    source = write_images(tmp_path / "source", {"a": 6, "b": 6})
    for i in range(10):
        (source / "a" / f"copy{i}.png").write_bytes((source / "a" / "000.png").read_bytes())
    for seed in range(8):
        prepare(source, tmp_path / f"dest{seed}", test_fraction=0.3, seed=seed)
        sides = [set(tree(tmp_path / f"dest{seed}" / side / "a").values()) for side in ("training", "testing")]
        assert not sides[0] & sides[1]


def test_bad_images_are_named_and_left_out(tmp_path):
    source = write_images(tmp_path / "source", {"a": 5, "b": 5})
    (source / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    report = prepare(source, tmp_path / "dest")
    assert [path for path, _ in report.bad] == ["b/broken.jpg"]
    assert report.lines()[0].startswith("Unreadable, excluded: b/broken.jpg: ")
    assert not list((tmp_path / "dest").rglob("broken.jpg"))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            {"a": 5},
            r"only one class \(a\) has a usable image; .* at least two. Pretraining needs no classes: tfinpaint init .*/a$",
        ),
        ({}, r"source: no images in it; expected source/<class>/<image>$"),
        ({"a": 1, "b": 1}, "no class has two different images; nothing is left for testing"),
        (
            {"a": 3, "b": 0},
            r"class folder without a usable image: b \(empty\); fill it, remove it, or exclude it with",
        ),
    ],
)
def test_sources_that_cannot_be_split(tmp_path, counts, message):
    (tmp_path / "source").mkdir()
    with pytest.raises(UserError, match=message):
        prepare(write_images(tmp_path / "source", counts), tmp_path / "dest")
    assert not (tmp_path / "dest").exists()
    assert not list(tmp_path.glob(".dest*"))


def test_images_without_class_folders_need_no_preparation(tmp_path):
    flat = write_images(tmp_path, {"flat": 2}) / "flat"
    with pytest.raises(UserError) as refusal:
        prepare(flat, tmp_path / "dest")
    assert str(refusal.value) == (
        f"{flat}: 2 images, but no class folders; expected flat/<class>/<image>. Pretraining needs neither classes nor "
        f"`prepare`: set data.input_path: {flat}"
    )


def test_wrong_arguments(tmp_path):
    source = write_images(tmp_path / "source", {"a": 2, "b": 2})
    (tmp_path / "file.txt").write_text("x")
    for arguments, message in (
        ((tmp_path / "nowhere", tmp_path / "d"), "no such folder or archive"),
        ((tmp_path / "file.txt", tmp_path / "d"), "expected a folder, or a zip or tar file .* this is text"),
        ((source, source), "already exists"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(*arguments)
    with pytest.raises(UserError, match="between 0 and 1"):
        prepare(source, tmp_path / "d", test_fraction=1.0)


def test_different_class_roots_are_refused_with_their_names(tmp_path):
    write_images(tmp_path / "source" / "cats", {"a": 2, "b": 2})
    write_images(tmp_path / "source" / "cars", {"a": 3, "c": 2})
    with pytest.raises(UserError, match=r"several places \(cars, cats\)"):
        prepare(tmp_path / "source", tmp_path / "dest")


def test_pipes_and_devices_in_a_folder_are_no_images(tmp_path):
    source = write_images(tmp_path / "source", {"a": 4, "b": 4})
    os.mkfifo(source / "a" / "pipe.png")
    (source / "a" / "zero.png").symlink_to("/dev/zero")
    assert prepare(source, tmp_path / "dest").bad == (
        ("a/pipe.png", "not a regular file"),
        ("a/zero.png", "not a regular file"),
    )


def test_a_pipe_as_the_source_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "images.zip")
    with pytest.raises(UserError, match=r"images\.zip: is a pipe or a device; expected a folder or an archive"):
        prepare(tmp_path / "images.zip", tmp_path / "dest")


@pytest.mark.parametrize("start", [prepare, prepare_records])
def test_links_to_nothing_are_named_and_left_out(tmp_path, start):
    source = write_images(tmp_path / "source", {"a": 4, "b": 4})
    (source / "a" / "gone.png").symlink_to("nowhere")
    assert start(source, tmp_path / "dest").bad == (("a/gone.png", "missing: no such file"),)


@pytest.mark.parametrize("name", ["ev\nil", "e\x1b[31mred"])
def test_names_of_classes_that_would_change_a_terminal_are_refused(tmp_path, name):
    source = write_images(tmp_path / "source", {"a": 4, name: 4})
    with pytest.raises(UserError, match=r"expected a name in UTF-8 without control characters; rename it") as refused:
        prepare(source, tmp_path / "dest")
    assert str(refused.value).isprintable()


def test_names_of_copies_stay_in_their_lines(tmp_path):
    source = write_images(tmp_path / "source", {"training/a": 3, "training/b": 3, "testing/a": 1, "testing/b": 1})
    (source / "testing" / "a" / "two\nlines.png").write_bytes((source / "training" / "a" / "001.png").read_bytes())
    assert any("two?lines.png is training/a/001.png" in line for line in prepare(source, tmp_path / "dest").lines())


def test_digits_are_the_1797_scans(tmp_path):
    report = prepare(Path("digits"), tmp_path / "dest", test_fraction=0.5)
    assert report.images == sum(map(sum, report.counts.values())) == 1797
    assert sum(test for _, test in report.counts.values()) == 898
    # Digits of 8 x 8 pixels are very similar: a few ones differ in single pixels only, and none are equal.
    assert report.notes[0].startswith(
        "4 of 898 test images (0.4 %) are near-duplicates of training images (0 identical, "
    )
    assert all(re.fullmatch(r"  1/\d+\.png is nearly 1/\d+\.png", pair) for pair in report.notes[1:])
    # The first scan of scikit-learn's set is a zero whose first row is 0 0 5 13 9 1 0 0, of 16.
    first = next((tmp_path / "dest").rglob("0/0000.png"))
    assert np.asarray(Image.open(first))[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


@pytest.mark.stress
def test_natural_images_as_kaggle_packs_them(natural_images, tmp_path):
    report = prepare(natural_images, tmp_path / "dest")
    assert sum(map(sum, report.counts.values())) == 6899
    assert (len(report.counts), len(report.excluded), report.excluded.hidden, report.bad) == (8, 0, 2, ())


def test_a_class_of_bad_images_only_is_refused_and_they_are_named(tmp_path):
    source = write_images(tmp_path / "source", {"a": 3, "b": 3})
    for path in (source / "b").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(
        UserError, match=r"without a usable image: b \(3 unreadable: b/000.png: not an image: text\); fill"
    ):
        prepare(source, tmp_path / "dest")


def test_an_image_beside_the_class_folders_is_skipped(tmp_path):
    source = write_images(tmp_path / "photos" / "set", {"a": 4, "b": 4})
    (source / "cover.png").write_bytes((source / "a" / "000.png").read_bytes())
    excluded = prepare(tmp_path / "photos", tmp_path / "dest").excluded
    assert excluded.summary() == "1 file excluded: 1 .png (set/cover.png: beside the class folders)"


def test_folders_reached_by_links_are_taken(tmp_path):
    source = write_images(tmp_path / "source", {"a": 3})
    write_images(tmp_path / "elsewhere", {"b": 3})
    (source / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (source / "loop").symlink_to(source)
    assert prepare(source, tmp_path / "dest").counts == {"a": (2, 1), "b": (2, 1)}
