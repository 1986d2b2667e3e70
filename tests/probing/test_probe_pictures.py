"""Pictures of a probe: calibration, neighbours, which images are shown, and the table of classes."""

import numpy as np
from PIL import Image

from tfinpaint.probing.page import class_table, confusion_of
from tfinpaint.probing.pictures import (
    PictureRow,
    draw_map,
    draw_pictures,
    draw_reliability,
    nearest_images,
    reliability,
    spread_over_classes,
)


def test_calibration_error_is_that_of_the_definition():
    # two images at 0.9 (one is right) and two at 0.6 (both are right)
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6]])
    found, error = reliability(probabilities, np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(found, [[2, 0.6, 1.0], [2, 0.9, 0.5]])
    np.testing.assert_allclose(error, 0.5 * 0.4 + 0.5 * 0.4)


def test_a_certain_prediction_is_in_the_last_interval():
    found, error = reliability(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    np.testing.assert_allclose(found, [[2, 1, 1]])
    assert error == 0


def test_neighbours_are_the_most_similar_after_centring():
    train = np.array([[1, 0], [0.9, 0.1], [-1, 0], [0, 1], [0, -1.0]], np.float32)
    near = nearest_images(train, np.array([[5, 0.1], [0, 3]], np.float32), [1, 0])
    assert near[:, 0].tolist() == [3, 0]
    assert near.shape == (2, 5)


def test_classes_take_turns():
    assert spread_over_classes(np.array([0, 0, 0, 2, 2, 5]), 5) == [0, 3, 5, 1, 4]


def test_recall_and_precision_of_each_class():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    assert class_table(confusion_of(("a", "b", "c", "d"), labels, predicted)) == [
        ["class", "test images", "recall", "precision"],
        ["a", 3, 2 / 3, 2 / 4],
        ["b", 2, 1 / 2, 1 / 2],
        ["c", 1, 0.0, ""],
        ["d", 0, "", ""],
    ]


def test_figures_are_drawn(tmp_path):
    generator = np.random.default_rng(0)
    images = generator.random((3, 200, 32, 3))
    rows = [PictureRow("a, predicted as b", images, ["x"] * 3, [False, True, False])]
    rows.append(PictureRow("", images[:1, :, :, :1], ["$"], [False]))
    draw_pictures(rows, tmp_path / "p.png")
    train, test = generator.random((30, 6)), generator.random((20, 6))
    labels = np.arange(20) % 12
    draw_map(train, test, labels, [f"class {i}" for i in range(12)], tmp_path / "m.png")
    draw_reliability(generator.dirichlet([1] * 12, 20), labels, tmp_path / "r.png")
    for name in "pmr":
        with Image.open(tmp_path / f"{name}.png") as drawn:
            assert min(drawn.size) > 300
