"""Where the windows over the holes of a photo lie: how many, how large, and how far beyond the photo."""

import numpy as np
import pytest
from photos_and_holes import VIEW, hole_at, noise, restore, white

from tfinpaint.inpainting.tiling import plan_tiles, restore_photo


def test_regions_share_windows_where_they_are_small():
    grid = np.zeros((320, 480), bool)
    grid[::8, ::8] = True  # 2400 specks; the middle half of a window holds 2 x 3 of them
    plan = plan_tiles(grid, VIEW)
    assert len(plan.windows) == 400
    assert sorted(np.concatenate([window.regions for window in plan.windows])) == list(range(1, 2401))
    assert np.all(restore(noise(320, 480), grid, white)[grid] == 255)
    one = hole_at((100, 100), (40, 40, 50, 50), (41, 60, 42, 61), (55, 41, 56, 42))
    assert len(plan_tiles(one, VIEW).windows) == 1
    apart = hole_at((100, 100), (0, 0, 2, 2), (90, 90, 92, 92))
    assert len(plan_tiles(apart, VIEW).windows) == 2


def test_a_large_region_has_a_window_of_its_own_and_touching_corners_make_one_region():
    hole = hole_at((200, 200), (50, 50, 90, 90), (100, 100, 101, 101), (102, 102, 103, 103))
    windows = plan_tiles(hole, VIEW).windows
    assert [len(window.regions) for window in windows] == [1, 2]
    assert windows[0].sides[0].extent == 80
    touching = hole_at((200, 200), (50, 50, 90, 90), (90, 90, 91, 91))
    assert len(plan_tiles(touching, VIEW).windows) == 1


@pytest.mark.parametrize("seed", range(20))
def test_every_window_is_large_enough_and_in_the_photo_where_it_can_be(seed):
    generator = np.random.default_rng(seed)
    size = tuple(generator.integers(1, 150, 2).tolist())
    view = tuple(generator.integers(4, 40, 2).tolist())
    hole = generator.random(size) < generator.choice([0.005, 0.05, 0.2])
    plan = plan_tiles(hole, view)
    regions = [label for window in plan.windows for label in window.regions.tolist()]
    assert sorted(regions) == list(range(1, plan.labels.max() + 1))
    for window in plan.windows:
        scales = [side.extent / least for side, least in zip(window.sides, view, strict=True)]
        assert min(scales) >= 1
        assert abs(scales[0] - scales[1]) <= 1 / min(view)  # the aspect ratio, but for rounding to whole pixels
        for label in window.regions:
            for side, places, extent in zip(window.sides, np.nonzero(plan.labels == label), size, strict=True):
                first, last = places.min(), places.max() + 1
                assert side.start <= first
                assert last <= side.start + side.extent
                assert side.extent >= 2 * (last - first) or len(window.regions) > 1
                outside = side.extent // 4
                places = sorted([0, extent - side.extent])
                assert places[0] - outside <= side.start <= places[1] + outside
    photo = noise(*size)
    restored = restore_photo(photo, plan, white)
    assert np.array_equal(restored[~hole], photo[~hole])
    assert np.all(restored[hole] >= photo.min())


@pytest.mark.parametrize("size", [(300, 400), (40, 50), (33, 49), (25, 40), (9, 9)])
@pytest.mark.parametrize("extent", [(1, 1), (8, 8), (9, 5), (8, 9)])
def test_a_region_stays_in_the_middle_half_of_its_window_also_in_a_corner(size, extent):
    for top in (0, (size[0] - extent[0]) // 2, size[0] - extent[0]):
        for left in (0, (size[1] - extent[1]) // 2, size[1] - extent[1]):
            hole = hole_at(size, (top, left, top + extent[0], left + extent[1]))
            (window,) = plan_tiles(hole, VIEW).windows
            for side, first, length in zip(window.sides, (top, left), extent, strict=True):
                assert side.start + side.extent // 4 <= first
                assert first + length <= side.start + side.extent - side.extent // 4


def test_a_window_reaches_no_farther_beyond_the_photo_than_the_middle_half_asks_for():
    hole = hole_at((200, 300), (6, 4, 12, 8))
    (window,) = plan_tiles(hole, VIEW).windows
    assert [side.start for side in window.sides] == [6 - VIEW[0] // 4, 4 - VIEW[1] // 4]
    whole = hole_at(VIEW, (9, 14, 12, 36))  # a photo of the network's size is seen as it is
    (window,) = plan_tiles(whole, VIEW).windows
    assert [side.start for side in window.sides] == [0, 0]
