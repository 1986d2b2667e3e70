"""Masks: golden pixels, statelessness, exact areas, flat positions."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.transforms import MASKS, Transform
from tfinpaint.data import masks, pixel_sets
from tfinpaint.data.transforms import Keys

SIZE = {"height": 16, "width": 24}
PIXELS = 16 * 24
MANY = range(10_000)

# Every kind of mask: the step, and the least and greatest number of pixels that it may erase of 16 x 24.
CASES = {
    "patches": ({"random_patches": {"number": 3, "size": 5}}, 25, 75),
    "patches up to an area": ({"random_patches": {"area": 0.3, "size": 4}}, 16, 115),
    "patches up to a large area": ({"random_patches": {"area": 0.6, "size": 8}}, 64, 230),
    "center": ({"center": {"side": 0.5}}, 96, 96),
    "blocks": ({"random_block": {"side": [0.25, 0.5], "number": 2}}, 24, 192),
    "blocks up to an area": ({"random_block": {"side": [0.1, 0.3]}}, 4, 96),
    "region": ({"random_region": {"area": [0.2, 0.3]}}, 77, 115),
    "grid": ({"grid": {"size": 4, "ratio": 0.75}}, 288, 288),
    "grid of several ratios": ({"grid": {"size": 2, "ratio": [0.25, 0.5]}}, 96, 192),
}
RANDOM = [name for name in CASES if name != "center"]


def make_keys(examples, seed=0, epoch=0):
    return Keys(seed, tf.constant(epoch, tf.int64), tf.constant(examples, tf.int64))


def draw(section, examples=(0,), seed=0, epoch=0, **size):
    step = Transform.model_validate(section)
    return masks.draw_mask(step, make_keys(examples, seed, epoch), **(SIZE | size)).numpy()


@functools.cache
def draw_many(name):
    """The masks of 10,000 examples, drawn once for all tests."""
    return draw(CASES[name][0], MANY)


def as_rows(mask):
    return ["".join(".#"[int(value)] for value in row) for row in mask[..., 0]]


def chi_squared(counts):
    expected = counts.sum() / len(counts)
    return ((counts - expected) ** 2 / expected).sum()


def test_every_kind_is_among_the_cases():
    assert {Transform.model_validate(section).kind for section, *_ in CASES.values()} == set(MASKS)


@pytest.mark.parametrize("name", CASES)
def test_values_shape_and_area(name):
    _, least, most = CASES[name]
    mask = draw_many(name)
    assert mask.shape == (10_000, 16, 24, 1)
    assert mask.dtype == np.float32
    assert np.isin(mask, (0, 1)).all()
    area = mask.sum(axis=(1, 2, 3))
    assert least <= area.min()
    assert area.max() <= most


@pytest.mark.parametrize("name", CASES)
def test_a_mask_depends_on_seed_epoch_and_example_alone(name):
    section = CASES[name][0]
    examples = np.arange(100, 164)
    whole = draw(section, examples, seed=3, epoch=5)
    for shard in (slice(0, None, 2), slice(1, None, 2), slice(None, None, -1), slice(7, 8)):  # two ranks; others
        assert np.array_equal(whole[shard], draw(section, examples[shard], seed=3, epoch=5))
    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(examples, tf.int64)).batch(48)  # and a last batch of 16
    step = Transform.model_validate(section)
    dataset = dataset.map(lambda ids: masks.draw_mask(step, Keys(3, tf.constant(5, tf.int64), ids), **SIZE))
    assert dataset.element_spec.shape.as_list() == [None, 16, 24, 1]
    assert np.array_equal(whole, np.concatenate(list(dataset.as_numpy_iterator())))


@pytest.mark.parametrize("name", RANDOM)
def test_seed_epoch_and_example_each_count(name):
    section = CASES[name][0]
    base = draw(section, range(20))
    others = (draw(section, range(20), seed=1), draw(section, range(20), epoch=1), draw(section, range(1, 21)))
    for other in others:
        assert (base != other).any(axis=(1, 2, 3)).all()
    assert len(np.unique(base.reshape(20, -1), axis=0)) == 20


# ---- golden numbers, made by these functions on first writing: if they change, so does every experiment's mask


def test_golden_patches():
    patches = masks.draw_patches(make_keys((0, 1)), number=2, size=5, height=32, width=48).numpy()
    assert patches[..., :2].tolist() == [[[13, 9], [20, 22]], [[20, 39], [22, 7]]]
    assert (patches[..., 2:] == 5).all()


def test_golden_blocks():
    blocks = masks.draw_blocks(make_keys((0, 1)), (4, 8), (6, 12), number=2, **SIZE)
    assert blocks.numpy().tolist() == GOLDEN_BLOCKS


def test_golden_region():
    assert as_rows(draw({"random_region": {"area": [0.2, 0.3]}}, [1])[0]) == GOLDEN_REGION


def test_golden_cells():
    mask = draw({"grid": {"size": 1, "ratio": 0.5}}, (0, 1), height=3, width=4)
    assert [as_rows(one) for one in mask] == GOLDEN_CELLS


def test_golden_center():
    # 0.5 of 5 rows rounds to 2, of 6 columns to 3; (5 - 2) // 2 = 1 and (6 - 3) // 2 = 1 are left before them.
    mask = draw({"center": {"side": 0.5}}, (0, 7), height=5, width=6)
    expected = ["......", ".###..", ".###..", "......", "......"]
    assert [as_rows(one) for one in mask] == [expected, expected]


# ---- areas


@pytest.mark.parametrize(
    ("section", "limit"),
    [
        ({"random_patches": {"area": 0.3, "size": 4}}, 115),
        ({"random_patches": {"area": 0.75, "size": 2}}, 288),
        ({"random_block": {"side": [0.1, 0.5], "area": 0.4}}, 153),
    ],
)
def test_up_to_an_area_keeps_the_longest_prefix(section, limit):
    ((kind, options),) = section.items()
    if kind == "random_patches":
        drawn = masks.draw_patches(make_keys(range(100)), number=600, size=options["size"], **SIZE)
    else:
        drawn = masks.draw_blocks(make_keys(range(100)), (2, 8), (2, 12), number=600, **SIZE)
    mask = draw(section, range(100))
    for example, rectangles in enumerate(drawn.numpy()):
        expected = np.zeros([16, 24])
        for top, left, height, width in rectangles:
            more = expected.copy()
            more[top : top + height, left : left + width] = 1
            if more.sum() > limit:
                break
            expected = more
        else:
            pytest.fail("600 rectangles are not enough for this test")
        assert np.array_equal(mask[example, ..., 0], expected)


@pytest.mark.parametrize(
    ("heights", "widths", "limit"),
    [
        ((4, 4), (4, 4), 115),
        ((12, 12), (12, 12), 288),
        ((2, 2), (2, 2), 288),
        ((2, 5), (2, 7), 96),
        ((1, 14), (1, 20), 288),
    ],
)
def test_enough_rectangles_are_drawn_to_reach_an_area(heights, widths, limit):
    number = masks._sufficient_number(heights, widths, limit, **SIZE)
    drawn = masks.draw_blocks(make_keys(range(2000)), heights, widths, number=number, **SIZE)
    cover = tf.function(pixel_sets.cover, jit_compile=True, autograph=False)  # thousands of rectangles
    covered = pixel_sets.to_mask(cover(drawn, **SIZE), width=24).numpy().sum(axis=(1, 2, 3))
    assert (covered > limit).all()  # fewer than one in a million is not
    assert number < 4096  # and they are no burden


def test_area_limits_are_whole_pixels():
    # 0.29 * 100 is a little below 29 in floating point.
    assert masks._pixels_within(0.29, height=10, width=10) == 29
    assert masks._pixels_within(0.25, height=5, width=5) == 6


def test_patches_cover_the_expected_area():
    # A pixel at least `size` from the border is missed by one square with probability 1 - (8 / 25)^2, by 4
    # independent squares with its 4th power.
    mask = draw({"random_patches": {"number": 4, "size": 8}}, range(4000), height=32, width=32)
    assert abs(mask[:, 8:24, 8:24].mean() - (1 - (1 - (8 / 25) ** 2) ** 4)) < 0.005


def test_one_block_covers_the_expected_area():
    # Height uniform in 4..8 and width in 6..12: 6 * 9 = 54 on average, standard deviation
    # sqrt((36 + 2) * (81 + 4) - 54^2) = 17.7, standard error 0.18.
    area = draw({"random_block": {"side": [0.25, 0.5], "number": 1}}, MANY).sum(axis=(1, 2, 3))
    assert abs(area.mean() - 54) < 0.8
    assert {area.min(), area.max()} == {24, 96}


def test_area_of_a_region_is_uniform_in_its_limits():
    area = draw_many("region").sum(axis=(1, 2, 3)).astype(int)
    counts = np.bincount(area - 77)  # 0.2 * 384 = 76.8, 0.3 * 384 = 115.2
    assert len(counts) == 39
    assert chi_squared(counts) < 70.7  # 38 degrees of freedom, p = 0.001
    fixed = draw({"random_region": {"area": [0.25, 0.25]}}, MANY).sum(axis=(1, 2, 3))
    assert (fixed == 96).all()


def test_area_of_a_region_is_exact_where_pixels_are_equally_high(monkeypatch):
    monkeypatch.setattr(masks, "_smooth_field", lambda keys, height, width: tf.zeros([3, height, width], tf.float64))
    assert (draw({"random_region": {"area": [0.25, 0.25]}}, (0, 1, 2)).sum(axis=(1, 2, 3)) == 96).all()


@pytest.mark.parametrize(("ratio", "cells"), [(0.75, 18), (0.5, 12), (0.1, 2), (0.9, 22)])
def test_number_of_cells_is_exact(ratio, cells):
    mask = draw({"grid": {"size": 4, "ratio": ratio}}, range(1000))
    assert (mask.sum(axis=(1, 2, 3)) == cells * 16).all()
    per_cell = mask.reshape(1000, 4, 4, 6, 4).sum(axis=(2, 4))
    assert np.isin(per_cell, (0, 16)).all()  # cells are erased whole


def test_a_list_of_ratios_is_drawn_by_image_and_each_ratio_is_as_frequent():
    mask = draw({"grid": {"size": 4, "ratio": [0, 0.25, 0.75]}}, MANY)
    cells = mask.sum(axis=(1, 2, 3)) / 16
    assert chi_squared(np.array([(cells == number).sum() for number in (0, 6, 18)])) < 13.8  # p = 0.001
    assert np.isin(cells, (0, 6, 18)).all()
    # The cells of an image are the first of the same random order, whichever their number is.
    single = draw({"grid": {"size": 4, "ratio": 0.75}}, MANY)
    assert (mask[cells == 18] == single[cells == 18]).all()
    assert (mask <= single).all()


def test_the_ratio_is_drawn_apart_from_the_cells():
    # 24 cells: with the same bits for both, the place of a single erased cell would tell the ratio.
    mask = draw({"grid": {"size": 4, "ratio": [0, 0.042]}}, MANY)
    first = draw({"grid": {"size": 4, "ratio": 0.042}}, MANY).reshape(10_000, 4, 4, 6, 4)[:, :, 0, :, 0]
    chosen = first.reshape(10_000, 24).argmax(axis=1)[mask.any(axis=(1, 2, 3))]
    assert 4800 < len(chosen) < 5200  # standard deviation 50
    assert chi_squared(np.bincount(chosen, minlength=24)) < 49.7  # 23 degrees of freedom, p = 0.001


# ---- positions


def test_positions_of_patches_are_flat():
    patches = masks.draw_patches(make_keys(MANY), number=2, size=8, height=16, width=12).numpy()
    for places, possible in ((patches[..., 0], 9), (patches[..., 1], 5)):
        counts = np.bincount(places.ravel(), minlength=possible)
        assert len(counts) == possible
        assert chi_squared(counts) < 30  # p = 0.001 is 26.1 for 8 degrees of freedom


def test_a_patch_as_large_as_the_image_erases_all_of_it():
    assert draw({"random_patches": {"number": 1, "size": 32}}, (0, 1, 2), height=32, width=32).min() == 1


def test_sides_and_positions_of_blocks_are_flat():
    blocks = masks.draw_blocks(make_keys(MANY), (4, 8), (6, 12), number=2, **SIZE).numpy().reshape(-1, 4)
    for start, side, least, most, extent in ((0, 2, 4, 8, 16), (1, 3, 6, 12, 24)):
        counts = np.bincount(blocks[:, side] - least)
        assert len(counts) == most - least + 1
        assert chi_squared(counts) < 22.5  # p = 0.001 for 6 degrees of freedom
        for length in (least, most):
            counts = np.bincount(blocks[blocks[:, side] == length, start])
            assert len(counts) == extent - length + 1  # it touches both borders and passes neither
            assert chi_squared(counts) < 43  # p = 0.001 is 42.3 for 18 degrees of freedom
    # The sides of an image's first and second block are drawn apart: no correlation among the four of 10,000 images
    # passes 4.5 standard errors of 0.01.
    correlations = np.corrcoef(np.concatenate([blocks[::2, 2:], blocks[1::2, 2:]], axis=1).T) - np.eye(4)
    assert np.abs(correlations).max() < 0.045  # standard error 0.01


def test_every_pixel_is_in_a_region_equally_often():
    # How often a pixel is erased in 10,000 masks is binomial, with the masks' own shares as probabilities. Neighbours
    # go together, so this is no chi-squared of 384 pixels; but each squared deviation is 1 on average all the same, and
    # of 384 normal ones none passes 4.7 with a probability of 0.999.
    mask = draw_many("region")[..., 0]
    share = mask.mean(axis=(1, 2))
    deviations = (mask.sum(axis=0) - share.sum()) / np.sqrt((share * (1 - share)).sum())
    assert np.abs(deviations).max() < 4.7
    assert (deviations**2).mean() < 1.5
    # Whole rows and columns go together less tightly; a preference for the middle or the border would show here.
    for axis in (0, 1):
        assert np.abs(deviations.mean(axis=axis)).max() < 3.5


def test_regions_are_few_and_smooth():
    # Of independent pixels, a share of 2 * 0.25 * 0.75 = 0.375 differs from its neighbour; of one disc of a quarter of
    # 32 x 32 pixels, 2 * 18 * 32 / 32^2 / 32 = 0.035.
    mask = draw({"random_region": {"area": [0.25, 0.25]}}, range(1000), height=32, width=32)[..., 0]
    for axis in (1, 2):
        assert 0.035 < (mask != np.roll(mask, 1, axis)).mean() < 0.1


def test_every_cell_and_every_pair_of_cells_is_erased_equally_often():
    cells = draw_many("grid")[:, ::4, ::4].reshape(-1, 24)
    # 18 of 24: counts vary like binomial ones times 23 / 24, for their sum is fixed.
    deviations = (cells.sum(axis=0) - 7500) ** 2 / (10_000 * 0.75 * 0.25) * 23 / 24
    assert deviations.sum() < 49.7  # chi-squared, 23 degrees of freedom, p = 0.001
    together = (cells.T @ cells)[np.triu_indices(24, 1)]
    chance = 18 / 24 * 17 / 23
    # Of the 276 pairs none passes 4.6 standard deviations with a probability of 0.999.
    assert np.abs(together - 10_000 * chance).max() < 4.6 * np.sqrt(10_000 * chance * (1 - chance))


GOLDEN_BLOCKS = [[[7, 3, 6, 11], [1, 1, 8, 9]], [[8, 5, 8, 9], [3, 9, 7, 9]]]
GOLDEN_REGION = [
    "###########.............",
    "##########..............",
    "#########...............",
    ".########...............",
    "..#######...............",
    "....#####...............",
    "....####................",
    "....###.................",
    "....####................",
    "....####................",
    ".....###................",
    ".....###................",
    ".##.#####...............",
    ".########...............",
    ".#########..............",
    "###########.............",
]
GOLDEN_CELLS = [["#..#", "..##", ".#.#"], [".#.#", "##..", "##.."]]
