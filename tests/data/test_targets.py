"""Targets and the weights of their pixels: numbers worked out by hand, and an independent numpy formula."""

import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.loss import Loss
from tfinpaint.data import targets


def mask_of(*pictures):
    """float32 [batch, height, width, 1], 1 at every "#"."""
    return tf.constant([[[float(pixel == "#") for pixel in row] for row in rows] for rows in pictures])[..., None]


def weights_of(picture, overlap, target="masked", overlap_weight=10.0):
    """Rows of "0", "1" and, for the border, "x"."""
    loss = Loss(target=target, overlap=overlap, overlap_weight=overlap_weight)
    weights = targets.pixel_weights(mask_of(picture), loss)
    assert weights.dtype == tf.float32
    assert weights.shape == (1, len(picture), len(picture[0]), 1)
    return ["".join({0.0: "0", 1.0: "1", overlap_weight: "x"}[value] for value in row) for row in weights.numpy()[0, ..., 0].tolist()]  # fmt: skip


# ---- what is compared


def test_patches_are_cut_out_on_black_and_other_targets_are_whole():
    images = tf.constant([[[[0.1, 0.2], [0.3, 0.4]]], [[[0.5, 0.6], [0.7, 0.8]]]])  # two of 1 x 2 pixels, two channels
    mask = mask_of([".#"], ["##"])
    cut = targets.make_targets(images, mask, Loss(target="patches")).numpy()
    assert np.array_equal(cut, np.float32([[[[0, 0], [0.3, 0.4]]], [[[0.5, 0.6], [0.7, 0.8]]]]))
    assert np.array_equal(targets.make_targets(images, mask, Loss(target="image")), images)
    assert np.array_equal(targets.make_targets(images, mask, Loss(target="masked")), images)


# ---- how much a pixel counts


def test_without_an_overlap_the_hole_counts_or_all_of_the_image():
    hole = ["....", ".##.", "...#"]
    assert weights_of(hole, 0) == ["0000", "0110", "0001"]
    assert weights_of(hole, 0, "image") == ["1111", "1111", "1111"]


@pytest.mark.parametrize("weight", [10.0, 0.5])
def test_the_overlap_is_a_ring_around_the_hole(weight):
    hole = [".......", ".......", "...#...", ".......", "......."]
    ring = ["0000000", "00xxx00", "00x1x00", "00xxx00", "0000000"]
    wide = ["0xxxxx0", "0xxxxx0", "0xx1xx0", "0xxxxx0", "0xxxxx0"]
    assert weights_of(hole, 1, overlap_weight=weight) == ring
    assert weights_of(hole, 2, overlap_weight=weight) == wide
    assert weights_of(hole, 1, "image", weight) == [row.replace("0", "1") for row in ring]
    assert weights_of(hole, 2, "image", weight) == [row.replace("0", "1") for row in wide]


def test_the_overlap_of_a_hole_at_the_edge_ends_there():
    # It comes in again neither on the other side nor in the next row.
    hole = ["##....", "##....", "......", "......", ".....#"]
    assert weights_of(hole, 1) == ["11x000", "11x000", "xxx000", "0000xx", "0000x1"]
    assert weights_of(hole, 2) == ["11xx00", "11xx00", "xxxxxx", "xxxxxx", "000xx1"]
    assert weights_of(hole, 9) == ["11xxxx", "11xxxx", "xxxxxx", "xxxxxx", "xxxxx1"]


def test_an_island_in_the_hole_and_gaps_between_holes_are_overlap():
    hole = ["#####...", "#...#...", "#...#..#", "#...#...", "#####..."]
    assert weights_of(hole, 1) == ["11111x00", "1xxx1xxx", "1x0x1xx1", "1xxx1xxx", "11111x00"]
    assert weights_of(hole, 2)[2] == "1xxx1xx1"


def test_the_overlaps_of_a_batch_are_its_own():
    masks = mask_of(["#...", "...."], ["....", "...."], ["....", "...#"])
    weights = targets.pixel_weights(masks, Loss(target="masked", overlap=1, overlap_weight=3.0))
    rows = [[[1, 3, 0, 0], [3, 3, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]], [[0, 0, 3, 3], [0, 0, 3, 1]]]
    assert weights[..., 0].numpy().tolist() == rows


# ---- normalised cells


def normalized(images, size):
    return targets.normalize_cells(tf.constant(images, tf.float32), size).numpy()


def test_cells_by_hand():
    # Two cells of 2 x 2 pixels: 0, 1, 1, 0 has mean 0.5 and deviation 0.5; of 0.2, 0.2, 0.2, 0.6 the mean is 0.3, the
    # variance (3 * 0.01 + 0.09) / 4 = 0.03, so that -0.1 becomes -1 / sqrt(3) and 0.3 sqrt(3). The other order of rows
    # and columns would mix the two.
    image = np.array([[0, 1, 0.2, 0.2], [1, 0, 0.2, 0.6]])[None, ..., None]
    low, high = -1 / np.sqrt(3), np.sqrt(3)
    expected = [[-1, 1, low, low], [1, -1, low, high]]
    assert np.allclose(normalized(image, 2)[0, ..., 0], expected, atol=1e-4)
    # The floor of the variance is 1e-6: 0.001 / sqrt(1e-6 + 1e-6) in a cell of 0.5 +- 0.001.
    faint = 0.5 + 0.001 * np.array([[-1, 1], [1, -1]])[None, ..., None]
    assert np.allclose(normalized(faint, 2)[0, ..., 0], [[-(0.5**0.5), 0.5**0.5], [0.5**0.5, -(0.5**0.5)]], atol=1e-3)


def test_channels_of_a_cell_share_mean_and_variance():
    # Red 1, green 0 everywhere: each channel alone has no variance, together they have mean 0.5, deviation 0.5.
    image = np.zeros([1, 2, 2, 2])
    image[..., 0] = 1
    assert np.allclose(normalized(image, 2), 2 * image - 1, atol=1e-4)


@pytest.mark.parametrize(("size", "channels"), [(4, 3), (2, 1), (4, 1)])
def test_cells_against_their_formula(size, channels):
    images = np.random.default_rng(0).random((3, 8, 12, channels))
    found = normalized(images, size)
    assert found.dtype == np.float32
    assert found.shape == images.shape
    for top in range(0, 8, size):
        for left in range(0, 12, size):
            for image, result in zip(images, found, strict=True):
                cell = image[top : top + size, left : left + size]
                out = result[top : top + size, left : left + size].astype(np.float64)
                assert np.allclose(out, (cell - cell.mean()) / np.sqrt(cell.var() + 1e-6), atol=1e-5)
                assert abs(out.mean()) < 1e-6
                assert abs(out.var() - 1) < 1e-3  # but for the floor: 1e-6 beside about 1 / 12


def test_a_cell_of_one_colour_becomes_zero():
    colours = np.random.default_rng(1).random(200)
    colours[:2] = 0, 1
    images = np.broadcast_to(colours[:, None, None, None], (200, 16, 16, 3))
    found = normalized(images, 16)
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 1e-3  # a mean is rounded, and what is left is divided by the floor's root, 1e-3
    # Beside a cell that has a variance of its own.
    images = np.concatenate([np.zeros([1, 4, 4, 3]), np.random.default_rng(2).random((1, 4, 4, 3))], axis=2)
    assert np.array_equal(normalized(images, 4)[:, :, :4], np.zeros([1, 4, 4, 3]))


def test_shapes_are_known_where_the_batch_is_not():
    def make(images: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return targets.normalize_cells(images, 4), targets.pixel_weights(mask, Loss(target="masked", overlap=2))

    data = tf.data.Dataset.from_tensor_slices((tf.zeros([3, 8, 12, 3]), tf.zeros([3, 8, 12, 1]))).batch(2).map(make)
    assert [spec.shape.as_list() for spec in data.element_spec] == [[None, 8, 12, 3], [None, 8, 12, 1]]


def test_denormalised_cells_have_mean_and_contrast_of_the_images():
    images = tf.constant(np.random.default_rng(0).uniform(size=[2, 8, 12, 3]), tf.float32)
    back = targets.denormalize_cells(targets.normalize_cells(images, 4), images, 4)
    assert np.allclose(back, images, atol=1e-6)
    # An output of 0 is the mean of each cell: 0.5 and 0.3 in these two.
    image = tf.constant(np.array([[0, 1, 0.2, 0.2], [1, 0, 0.2, 0.6]])[None, ..., None], tf.float32)
    flat = targets.denormalize_cells(tf.zeros_like(image), image, 2)
    assert np.allclose(flat[0, ..., 0], [[0.5, 0.5, 0.3, 0.3]] * 2)
