"""Pictures of a probe: near-duplicates, neighbours, which images are shown, and the map."""

import numpy as np
import pytest
from conftest import write_images
from PIL import Image

from tfinpaint.config.transforms import Transform
from tfinpaint.data.examples import split_steps
from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.data.listing.duplicates import Copy
from tfinpaint.data.listing.listing import list_class_folders
from tfinpaint.probing import examples
from tfinpaint.probing.evaluation import FeatureSet
from tfinpaint.probing.examples import draw_duplicates, draw_neighbours, nearest_images, spread_over_classes
from tfinpaint.probing.feature_map import draw_map
from tfinpaint.probing.images import LabelledImages


def test_neighbours_are_the_most_similar_after_centring():
    train = np.array([[1, 0], [0.9, 0.1], [-1, 0], [0, 1], [0, -1.0]], np.float32)
    near = nearest_images(train, np.array([[5, 0.1], [0, 3]], np.float32), [1, 0])
    assert near[:, 0].tolist() == [3, 0]
    assert near.shape == (2, 5)


def test_classes_take_turns_and_the_choice_is_fixed():
    labels = np.array([0] * 50 + [2] * 2 + [5])
    chosen = spread_over_classes(labels, 5)
    assert labels[chosen].tolist() == [0, 2, 5, 0, 2]
    assert chosen == spread_over_classes(labels, 5)
    assert chosen[0] != 0  # the first images of a class are often alike


@pytest.fixture
def images(tmp_path):
    listing = list_class_folders(write_images(tmp_path, {"a": 12, "b": 12}))
    train, test = listing.select(np.arange(0, 24, 2)), listing.select(np.arange(1, 24, 2))
    return LabelledImages(train, test, True, [Copy(place, 11 - place, "mirrored") for place in range(10)])


@pytest.fixture
def rows(monkeypatch):
    found = []
    monkeypatch.setattr(examples, "draw_image_rows", lambda *arguments: found.append(arguments))
    return found


PICTURES = split_steps(((0, Transform.model_validate({"resize": [8, 8]})),), DecodeOptions())


def test_pairs_stand_side_by_side(images, rows, tmp_path):
    draw_duplicates(images, PICTURES, tmp_path / "x.png")
    ((drawn, _, alt),) = rows
    assert [len(row.images) for row in drawn] == [8, 8, 4]
    assert drawn[0].captions[:2] == ["test: a", "mirrored: b"]
    own, other = (
        examples.read_pictures(each, [place], PICTURES) for each, place in ((images.test, 9), (images.train, 2))
    )
    np.testing.assert_array_equal(drawn[2].images[2:], np.concatenate([own, other]))
    assert alt.startswith("10 of 10 pairs of a test image and")


def test_neighbours_are_marked_right_or_wrong(images, rows, tmp_path):
    train = np.eye(2)[images.train.labels]
    test = np.eye(2)[1 - images.test.labels]  # next to the other class
    draw_neighbours(images, FeatureSet("x", 5, train, test), PICTURES, tmp_path / "x.png")
    ((drawn, _, alt),) = rows
    assert len(drawn) == 8
    assert drawn[0].captions == ["test: a", *["b"] * 6, "a"]
    assert drawn[0].right == [None, *[False] * 6, True]
    assert "8 of these 56 neighbours have the class of the test image" in alt


def test_the_map_is_drawn(tmp_path):
    generator = np.random.default_rng(0)
    train, test = generator.random((30, 6)), generator.random((20, 6))
    draw_map(train, test, np.arange(20) % 12, [f"class {i}" for i in range(12)], tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as drawn:
        assert min(drawn.size) > 300
        assert drawn.info["Description"].startswith("Scatter plot of the 20 test images by the two main components")
