"""Rows of images, and the images of confused pairs, which are the same for any number of ranks."""

import numpy as np
from PIL import Image

from tfinpaint.report import confused_images
from tfinpaint.report.confused_images import confused_examples, draw_confused, merge_examples
from tfinpaint.report.confusion import Confusion
from tfinpaint.report.image_rows import MOST_IMAGES, MOST_ROWS, ImageRow, draw_image_rows


def test_rows_of_any_images_are_drawn_and_described(tmp_path):
    images = np.random.default_rng(0).random((3, 200, 32, 3))
    rows = [ImageRow("a $ predicted as b $", images, ["x"] * 3, [False, True, None])]
    rows.append(ImageRow("", images[:1, :, :, :1], ["$"], [False]))
    draw_image_rows(rows, tmp_path / "p.png", "Two rows.")
    with Image.open(tmp_path / "p.png") as drawn:
        assert min(drawn.size) > 300
        assert drawn.info["Description"] == "Two rows."
        assert drawn.info["Photos"]


def confused(images=400, classes=5):
    generator = np.random.default_rng(1)
    true, predicted = generator.integers(0, classes, (2, images))
    confidence = generator.random(images).astype(np.float32)
    counts = np.column_stack([true, predicted, np.ones(images, int)])
    return Confusion.of([f"c{i}" for i in range(classes)], [counts]), np.arange(images), true, predicted, confidence


def test_images_of_the_most_frequent_confusions_come_most_confident_first():
    counts, indices, true, predicted, confidence = confused()
    found = confused_examples(counts, indices, true, predicted, confidence)
    assert len(found) == MOST_ROWS
    for (own, other, count), images in zip(counts.confused_pairs(MOST_ROWS), found, strict=True):
        assert len(images) == min(count, MOST_IMAGES)
        assert all(true[index] == own and predicted[index] == other for index, _ in images)
        assert images[0][1] == confidence[(true == own) & (predicted == other)].max()


def test_the_images_of_several_ranks_are_those_of_one():
    counts, *arrays = confused()
    parts = [confused_examples(counts, *(each[rank::3] for each in arrays)) for rank in range(3)]
    assert merge_examples(parts) == confused_examples(counts, *arrays)


def test_rows_are_titled_with_the_pair(tmp_path, monkeypatch):
    counts, *arrays = confused(6, 2)
    drawn = []
    monkeypatch.setattr(confused_images, "draw_image_rows", lambda *arguments: drawn.append(arguments))
    read = []
    examples = confused_examples(counts, *arrays)
    draw_confused(counts, examples, lambda indices: read.append(indices) or np.zeros((len(indices), 4, 4, 3)), tmp_path)
    ((rows, _, alt),) = drawn
    assert read == [[index for images in examples for index, _ in images]]
    (own, other, count), *_ = counts.confused_pairs(1)
    assert rows[0].title == f"c{own}, predicted as c{other}: {count} image{'s' * (count > 1)}"
    assert rows[0].captions[0] == f"probability {examples[0][0][1]:.2f}"
    assert rows[0].title in alt
    right = Confusion.of(["a"], [np.array([[0, 0, 3]])])
    draw_confused(right, [], read.append, tmp_path / "none.png")
    assert len(drawn) == 1
