"""Restorations without training: exact where they must be, and made from the visible pixels alone."""

import functools

import numpy as np
import pytest
from skimage import data
from skimage.transform import resize

from tfinpaint.inpainting.classical import (
    BASELINES,
    MID_GREY,
    affordable_baselines,
    biharmonic,
    mean_colour,
    nearest,
    restore_by_baselines,
)

every_baseline = pytest.mark.parametrize("restore", BASELINES.values(), ids=BASELINES)


def square(height=20, width=24):
    """A hole of half the sides, in the middle."""
    hole = np.zeros((height, width), bool)
    hole[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
    return hole


def ramp(height=20, width=24):
    """float64 [height, width, 2]: darker to the right in one channel, brighter downwards in the other."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([1 - columns / (width - 1), rows / (height - 1)], axis=-1)


@functools.cache
def photo(size=32, channels=3):
    """float64 [size, size, channels]; scikit-image itself brings the photograph along."""
    return resize(data.astronaut() / 255, (size, size), anti_aliasing=True)[..., :channels]


@every_baseline
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_image_is_restored(restore, channels, dtype):
    image = np.broadcast_to(np.array([0.25, 0.5, 0.75][:channels], dtype), (20, 24, channels))
    for hole in (square(), ~square()):
        restored = restore(image, hole)
        assert restored.dtype == np.float32
        assert restored.shape == image.shape
        assert np.array_equal(restored, image.astype(np.float32))


@every_baseline
@pytest.mark.parametrize("channels", [1, 3])
def test_visible_pixels_stay_and_erased_ones_do_not_matter(restore, channels):
    image, hole = photo(channels=channels), square(32, 32)
    restored = restore(image, hole)
    assert np.array_equal(restored[~hole], image.astype(np.float32)[~hole])
    for erased in (0.0, 1.0, -1e9, np.nan, np.inf):
        other = image.copy()
        other[hole] = erased
        before = other.copy()
        assert np.array_equal(restore(other, hole), restored)
        assert np.array_equal(other, before, equal_nan=True)  # the caller's image is left alone


def test_mean_colour_by_hand():
    image = np.array([[[0.0, 0.5], [0.5, 0.5]], [[1.0, 0.25], [9.0, 9.0]]])
    hole = np.array([[False, False], [False, True]])
    assert mean_colour(image, hole)[1, 1].tolist() == pytest.approx([0.5, 1.25 / 3], rel=1e-7)


def test_nearest_by_hand():
    row = np.array([0.25, 9, 9, 9, 9, 0.5, 9, 1.0])[None, :, None]
    restored = nearest(row, row[..., 0] == 9)[0, :, 0].tolist()
    assert restored[:6] == [0.25, 0.25, 0.25, 0.5, 0.5, 0.5]
    assert restored[6] in (0.5, 1.0)  # both as near
    # Euclidean: (2, 2) is sqrt(8) = 2.8 from the dark pixel at (0, 0), but 3 from the bright one at (2, 5)
    image, hole = np.zeros((3, 6, 1)), np.ones((3, 6), bool)
    hole[0, 0] = hole[2, 5] = False
    image[2, 5] = 1
    assert nearest(image, hole)[2, 2:4, 0].tolist() == [0.0, 1.0]


def test_biharmonic_continues_a_slope():
    image, hole = ramp(), square()
    errors = {name: np.abs(restore(image, hole) - image)[hole] for name, restore in BASELINES.items()}
    assert errors["biharmonic"].max() < 1e-6
    # nearest: from a pixel in the middle, 5 rows and 6 columns from the rim
    assert 0.1 < errors["nearest"].max() < 0.3
    # mean colour: the mean of both ramps is 0.5; the hole's 12 columns lie 0.5 to 5.5 of 23 steps beside it, its 10
    # rows 0.5 to 4.5 of 19
    assert errors["mean_colour"].mean() == pytest.approx((3 / 23 + 2.5 / 19) / 2, rel=1e-6)


def test_biharmonic_of_a_photograph_is_nearest_to_it():
    image, hole = photo(64), np.zeros((64, 64), bool)
    hole[8:56:12, 8:56:12] = hole[9:56:12, 8:56:12] = True
    errors = [np.abs(restore(image, hole) - image)[hole].mean() for restore in (mean_colour, nearest, biharmonic)]
    assert errors[0] > 2 * errors[1] > 3 * errors[2]


def awkward_holes(side):
    one_visible, corner_visible = np.ones((2, side, side), bool)
    one_visible[side // 2, side // 2] = corner_visible[0, 0] = False
    column_visible = np.arange(side) > 0
    return {
        "one visible": one_visible,
        "corner visible": corner_visible,
        "column visible": np.tile(column_visible, (side, 1)),
        "all borders": ~square(side, side),
        "chessboard": np.indices((side, side)).sum(0) % 2 == 0,
        "one pixel": ~one_visible,
    }


@every_baseline
@pytest.mark.parametrize("side", [2, 5, 40])
@pytest.mark.parametrize("name", awkward_holes(4))
@pytest.mark.filterwarnings("error")  # of a singular system
def test_awkward_holes_give_values_between_the_visible_ones(restore, side, name):
    image, hole = photo(side), awkward_holes(side)[name]
    restored, visible = restore(image, hole), image[~hole].astype(np.float32)
    slack = 1e-6  # rounding
    assert (restored >= visible.min(0) - slack).all()
    assert (restored <= visible.max(0) + slack).all()


@every_baseline
@pytest.mark.filterwarnings("error")
def test_nothing_erased_and_nothing_visible(restore):
    image = photo()
    assert np.array_equal(restore(image, np.zeros((32, 32), bool)), image.astype(np.float32))
    assert (restore(image, np.ones((32, 32), bool)) == MID_GREY).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_restored_image_by_image(channels):
    images = np.stack([photo(channels=channels), photo(channels=channels)[::-1], photo(channels=channels) ** 2])
    holes = np.stack([square(32, 32), ~square(32, 32), np.zeros((32, 32), bool)])
    restored = restore_by_baselines(images.astype(np.float32), holes[..., None].astype(np.float32))
    assert list(restored) == list(BASELINES) == ["mean_colour", "nearest", "biharmonic"]
    for name, restore in BASELINES.items():
        assert restored[name].dtype == np.float32
        expected = [restore(image.astype(np.float32), hole) for image, hole in zip(images, holes, strict=True)]
        assert np.array_equal(restored[name], expected)


def test_biharmonic_inpainting_is_skipped_if_it_would_take_minutes():
    assert affordable_baselines(512, 1024) == ("mean_colour", "nearest", "biharmonic")
    assert affordable_baselines(513, 1024) == ("mean_colour", "nearest")
    images, masks = np.full((1, 513, 1024, 1), 0.25), np.zeros((1, 513, 1024, 1))
    masks[0, 5, 5] = 1
    assert list(restore_by_baselines(images, masks)) == ["mean_colour", "nearest"]
