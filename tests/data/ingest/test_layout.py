"""Sources that are divided into training and testing already stay so; class folders that cannot be told are refused."""

import shutil
from pathlib import Path

import pytest
from conftest import tree, write_images, zipped
from PIL import Image

from tfinpaint.data.ingest.copy import prepare
from tfinpaint.data.ingest.pack import pack, prepare_records
from tfinpaint.errors import UserError


def write_sides(root: Path, *sides: str) -> Path:
    """A source with these sides, each of 3 + 2 images of its own."""
    for number, side in enumerate(sides):
        write_images(root / side, {"cat": 3, "dog": 2}, seed=number)
    return root


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        (("train", "test"), ("training", "testing")),
        (("Training", "Testing"), ("training", "testing")),
        (("train", "val"), ("training", "testing")),
        (("training", "validation"), ("training", "testing")),
        (("train", "test", "val"), ("training", "testing", "validation")),
    ],
)
def test_divided_sources_stay_so(tmp_path, sides, expected):
    source = write_sides(tmp_path / "set", *sides)
    for origin in (source, zipped(source, tmp_path / "x.zip", "deep/set/")):
        report = prepare(origin, tmp_path / "dest")
        assert report.counts == {"cat": (3,) * len(sides), "dog": (2,) * len(sides)}
        begin = "" if origin == source else "deep/set/"
        kept = ", ".join(f"{begin}{side} for {name}" for side, name in zip(sides, expected, strict=True))
        assert report.notes == (f"{origin} is already divided, and its division is kept: {kept}",)
        for side, name in zip(sides, expected, strict=True):
            assert tree(tmp_path / "dest" / name) == tree(source / side)
        shutil.rmtree(tmp_path / "dest")
    assert prepare_records(source, tmp_path / "records").lines()[:-1] == report.lines()[:-1] or origin != source


def test_the_summary_of_three_sides(tmp_path):
    lines = prepare(write_sides(tmp_path / "set", "train", "test", "val"), tmp_path / "dest").lines()
    assert lines[-3] == "             dog       2 training      2 testing      2 validation"
    assert lines[-2].startswith(
        "Too few images to learn or to test a class: cat (3 training, 3 testing, 3 validation), dog ("
    )
    assert lines[-1].endswith(": 5 training, 5 testing and 5 validation images in 2 classes, 0 unreadable")


def test_unlabelled_test_images_are_left_out_and_the_rest_is_divided(tmp_path):
    source = write_sides(tmp_path / "set", "train")
    write_images(source, {"test": 4})
    report = prepare(source, tmp_path / "dest")
    assert report.notes == ("test: 4 images without class folders, excluded",)
    assert report.counts == {"cat": (2, 1), "dog": (1, 1)}
    write_sides(source, "val")
    report = prepare(source, tmp_path / "dest2")
    assert report.notes[0] == "test: 4 images without class folders, excluded"
    assert report.counts == {"cat": (3, 3), "dog": (2, 2)}


def test_folders_that_are_no_classes_are_told(tmp_path):
    for call in (prepare, prepare_records):
        with pytest.raises(
            UserError, match="test and train contain images but no class folders; expected set/<class>/<imag"
        ):
            call(write_images(tmp_path / "set", {"train": 3, "test": 3}), tmp_path / "dest")
    source = write_images(tmp_path / "inverse" / "cat", {"train": 3, "test": 3})
    write_images(source.parent / "dog", {"train": 3, "test": 2})
    with pytest.raises(UserError, match=r"class folders at several places \(cat, dog\)"):
        prepare(source.parent, tmp_path / "dest")
    both = write_sides(tmp_path / "both", "train", "training")
    with pytest.raises(UserError, match="train and training are both for training; remove one of them"):
        prepare(both, tmp_path / "dest")
    with pytest.raises(UserError, match="found test and val, but no training folder"):
        prepare(write_sides(tmp_path / "untrained", "test", "val"), tmp_path / "dest")
    mixed = write_images(write_sides(tmp_path / "mixed", "train", "test"), {"cat": 2, "dog": 2})
    with pytest.raises(UserError, match=r"class folders at several places \(\., "):
        prepare(mixed, tmp_path / "dest")


def test_the_same_names_with_other_contents_are_no_copies(tmp_path):
    for number, year in enumerate(("2019", "2020")):
        write_images(tmp_path / "set" / year, {"cat": 3, "dog": 3}, seed=number)
    with pytest.raises(UserError, match=r"class folders at several places \(2019, 2020\)"):
        prepare(tmp_path / "set", tmp_path / "dest")
    shutil.rmtree(tmp_path / "set" / "2020")
    shutil.copytree(tmp_path / "set" / "2019", tmp_path / "set" / "copy")
    report = prepare(tmp_path / "set", tmp_path / "dest")
    assert report.notes == ("The same images are at 2 places (2019, copy); they are used once",)
    assert report.counts == {"cat": (2, 1), "dog": (2, 1)}


def test_a_divided_source_twice_in_an_archive_is_taken_once(tmp_path):
    source = write_sides(tmp_path / "chest", "train", "test")
    shutil.copytree(source, source / "chest" / "inner")
    (source / "__MACOSX").mkdir()
    report = prepare(source, tmp_path / "dest", skip_empty_classes=False)
    assert report.counts == {"cat": (3, 3), "dog": (2, 2)}
    assert report.notes[0] == "The same images are at 2 places (., chest/inner); they are used once"


def test_classes_of_one_image_are_trained_on_and_told(tmp_path):
    source = write_images(tmp_path / "set", {"a": 5, "b": 1, "c": 2})
    (source / "c" / "001.png").write_bytes((source / "c" / "000.png").read_bytes())
    report = prepare(source, tmp_path / "dest")
    assert report.counts == {"a": (4, 1), "b": (1, 0), "c": (2, 0)}
    assert report.notes == ("No test image of class b, c: a single image, or copies of one, which are for training",)


def test_classes_of_a_divided_source_that_lack_a_side(tmp_path):
    source = write_sides(tmp_path / "set", "train", "test")
    shutil.rmtree(source / "test" / "dog")
    assert prepare(source, tmp_path / "dest").notes[1] == "No test image of class dog"
    write_images(source / "test", {"bird": 2})
    with pytest.raises(UserError, match="no training image of class bird, which the other sides have; add some"):
        prepare(source, tmp_path / "dest2")
    (source / "test" / "dog").mkdir()
    with pytest.raises(UserError, match=r"without a usable image: test/dog \(empty\)"):
        prepare(source, tmp_path / "dest2")


def test_an_image_that_is_lost_after_the_check_is_counted_and_named(tmp_path, monkeypatch):
    from tfinpaint.data.ingest import source as origin

    source = write_images(tmp_path / "set", {"a": 4, "b": 4})
    whole = origin.check_size
    sizes = []

    def fail_late(size):
        sizes.append(size)
        if len(sizes) in (9, 10):
            raise OSError(5, "Input/output error")
        whole(size)

    for call in (prepare, prepare_records):
        sizes.clear()
        monkeypatch.setattr(origin, "check_size", fail_late)
        report = call(source, tmp_path / call.__name__)
        assert [path.partition("/")[0] for path, _ in report.bad] == [report.bad[0][0][0]] * 2
        assert "Input/output error" in report.bad[0][1]
        assert sum(map(sum, report.counts.values())) == 6
        assert report.lines()[-1].endswith("images in 2 classes, 2 unreadable")
    assert len(tree(tmp_path / "prepare")) == 6


def test_files_of_several_pictures_are_told_once(tmp_path, caplog):
    source = write_images(tmp_path / "set", {"a": 4, "b": 4})
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green")]
    for name in "mn":
        frames[0].save(source / "b" / f"{name}.gif", save_all=True, append_images=frames[1:])
    note = "2 files contain several pictures (pages or frames); only the first is used, such as b/m.gif"
    assert note in prepare(source, tmp_path / "dest").notes
    assert note in prepare_records(source, tmp_path / "records").notes
    caplog.set_level("INFO")
    pack(source, tmp_path / "packed")
    assert caplog.messages.count(note) == 1
