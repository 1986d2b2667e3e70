"""Labelled images: a fifth is set aside, and what cannot be probed is refused in one line."""

import shutil

import numpy as np
import pytest
from conftest import write_images

from tfinpaint.errors import UserError
from tfinpaint.probing.images import list_labelled_or_not, open_labelled


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
    assert "there is no" in refusal(tmp_path / "nothing") or "No such" in refusal(tmp_path / "nothing")
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
    (data / "a" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    assert "bad.png: " in refusal(data)
    assert "(1 of 7 images of " in refusal(data)
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
