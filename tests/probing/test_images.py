"""Labelled images: a fifth is set aside, and what cannot be probed is refused in one line."""

import shutil

import numpy as np
import pytest
from conftest import write_images

from tfinpaint.data.listing.listing import list_class_folders
from tfinpaint.errors import UserError
from tfinpaint.probing.images import check_readable, list_labelled_or_not, open_labelled

BROKEN = b"\x89PNG\r\n\x1a\n nothing"


def test_a_fifth_of_each_class_is_set_aside(tmp_path):
    data = write_images(tmp_path, {"a": 40, "b": 10, "c": 3, "d": 2})
    images = open_labelled(data, None)
    assert np.bincount(images.test.labels).tolist() == [8, 2, 1, 1]
    assert np.bincount(images.train.labels).tolist() == [32, 8, 2, 1]
    assert not set(images.train.paths) & set(images.test.paths)
    assert list(open_labelled(data, None).test.paths) == list(images.test.paths)


def test_a_folder_of_test_images_is_used_as_it_is(tmp_path, caplog):
    data = write_images(tmp_path / "a", {"a": 4, "b": 1})
    test = write_images(tmp_path / "b", {"b": 3}, seed=1)
    shutil.copy(data / "a" / "001.png", test / "b" / "copy.png")
    images = open_labelled(data, test)
    assert (len(images.train), len(images.test), images.held_out) == (5, 4, False)
    assert images.test.labels.tolist() == [1] * 4
    assert "1 of 4 test images (25.0 %) is a near-duplicate of a training image (1 identical, 0 nearly" in caplog.text


def test_images_that_cannot_be_read_are_named_and_left_out(tmp_path, caplog):
    data, test = write_images(tmp_path / "x", {"a": 6, "b": 6}), write_images(tmp_path / "y", {"a": 2, "b": 2}, seed=1)
    for folder in (data, test):
        (folder / "a" / "bad.png").write_bytes(BROKEN)
    with caplog.at_level("INFO"):
        images = open_labelled(data, test)
    assert (len(images.train), len(images.test)) == (12, 4)
    assert f"Unreadable, excluded: {data}/a/bad.png: truncated: " in caplog.text
    assert "x: 12 images in 2 classes, 1 unreadable" in caplog.text
    assert "y: 4 images in 2 classes, 1 unreadable" in caplog.text
    assert len(open_labelled(data, None).train) == 10
    with pytest.raises(UserError, match=r"bad.png: .* \(1 of 13 images of .*\); repair or remove them"):
        check_readable(list_class_folders(data))  # a sweep has the same images in every run


def refusal(data, test=None) -> str:
    with pytest.raises(UserError) as error:
        open_labelled(data, test)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_probed_is_refused(tmp_path):
    data = write_images(tmp_path / "single", {"a": 4, "b": 1, "c": 1})
    assert refusal(data).endswith(
        "class b, c has a single image; without --test each class needs two, one to train and one to test on"
    )
    assert refusal(tmp_path / "nothing").endswith("nothing: no such file or folder")
    (tmp_path / "empty").mkdir()
    assert "no images found" in refusal(tmp_path / "empty") or "two class folders" in refusal(tmp_path / "empty")
    write_images(tmp_path / "one", {"a": 4})
    assert "at least two class folders, found 1 (a)" in refusal(tmp_path / "one")
    write_images(tmp_path / "split", {"training": 4, "testing": 2})
    assert refusal(tmp_path / "split").endswith(
        f"split: holds testing and training in place of class folders; name one of them, such as {tmp_path}/split/training"
    )
    other = write_images(tmp_path / "other", {"a": 2, "z": 2})
    assert "class z is not among the training classes: a, b" in refusal(data, other)
    for name in ("a", "b"):
        shutil.rmtree(data / name)
        (data / name).mkdir()
        (data / name / "bad.png").write_bytes(BROKEN)
    assert refusal(data, other).endswith(
        "single: class a, b has no image that can be read; repair one, or remove the folder"
    )
    (data / "c" / "000.png").write_bytes(BROKEN)
    assert f"{data}: none of 3 images can be read, such as {data}/a/bad.png: truncated: " in refusal(data)
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "x.docx").write_text("x")
    (tmp_path / "texts" / "b").mkdir()
    assert "class folder without images: a (1 file excluded: 1 .docx (x.docx)), b (empty)" in refusal(
        tmp_path / "texts"
    )


def test_folders_without_classes_have_no_labels(tmp_path):
    flat = write_images(tmp_path, {"only": 3})
    assert list_labelled_or_not(flat).classes == ()
    assert list_labelled_or_not(flat / "only").classes == ()
    write_images(tmp_path, {"more": 2})
    listing = list_labelled_or_not(flat)
    assert list_labelled_or_not(write_images(tmp_path / "one", {"training": 2})).classes == ()
    with pytest.raises(
        UserError, match=r"split: holds testing and training in place of class folders; name one of them"
    ):
        list_labelled_or_not(write_images(tmp_path / "split", {"training": 4, "testing": 2}))
    assert (listing.classes, listing.labels.tolist()) == (("more", "only"), [0, 0, 1, 1, 1])
