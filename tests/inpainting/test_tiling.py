"""Restoring photos of any size through windows: places, values, no leaks, batches, memory."""

import tracemalloc

import numpy as np
import pytest
from photos_and_holes import VIEW, Recorder, hole_at, noise, restore, white
from PIL import Image

from tfinpaint.inpainting import tiling
from tfinpaint.inpainting.tiling import Tiling, plan_tiles, restore_photo
from tfinpaint.system import progress


def ramp(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A photo that rises from 0 to 250 over its diagonal, in each channel in another direction."""
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    slopes = [(x + y) / 2, (1 - x + y) / 2, x]
    return np.rint(250 * np.stack(slopes[:channels], axis=-1)).astype(np.uint8)


def plane(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """A network that continues a ramp exactly, and like one that learned patches makes everything else black."""
    batch, height, width, _ = images.shape
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    terms = np.stack([np.ones(y.size), y.ravel(), x.ravel()], axis=1)
    made = np.zeros_like(images)
    for i in range(batch):
        visible = masks[i].ravel() == 0
        fit = np.linalg.lstsq(terms[visible], images[i].reshape(visible.size, -1)[visible], rcond=None)[0]
        made[i] = (terms @ fit).reshape(images[i].shape) * masks[i]
    return made


def plane_of_the_photo(plan: Tiling):
    """The same network where windows reach beyond the photo: what is mirrored continues the mirrored ramp."""
    windows = iter(plan.windows)

    def network(images, masks):
        made = np.zeros_like(images)
        for i in range(len(images)):
            places = []
            for side, extent, size in zip(next(windows).sides, plan.labels.shape, plan.view, strict=True):
                place = side.start + (np.arange(size) + 0.5) * side.extent / size
                places.append(np.minimum(place % (2 * extent), -place % (2 * extent)))
            y, x = np.meshgrid(*places, indexing="ij")
            terms = np.stack([np.ones(y.size), y.ravel(), x.ravel()], axis=1)
            visible = masks[i].ravel() == 0
            fit = np.linalg.lstsq(terms[visible], images[i].reshape(visible.size, -1)[visible], rcond=None)[0]
            made[i] = (terms @ fit).reshape(images[i].shape) * masks[i]
        return made

    return network


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((2, 1), (0, 0, 1, 1)),
        ((1, 200), (0, 60, 1, 190)),
        ((300, 1), (0, 0, 299, 1)),
        ((20, 30), (5, 5, 20, 30)),
        ((200, 90), (0, 0, 199, 90)),
        ((90, 200), (30, 40, 33, 44)),
        ((33, 49), (0, 0, 16, 24)),
        ((40, 2000), (10, 0, 11, 2000)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_hole_is_filled_and_the_visible_pixels_stay_bit_for_bit(size, box, channels):
    photo = noise(*size, channels)
    hole = hole_at(size, box)
    before = photo.copy()
    network = Recorder()
    restored = restore(photo, hole, network)
    assert (restored.dtype, restored.shape) == (np.uint8, photo.shape)
    assert np.array_equal(restored[~hole], photo[~hole])
    assert np.array_equal(photo, before)
    for image, mask in zip(network.images, network.masks, strict=True):
        assert (image.shape, mask.shape) == ((*VIEW, channels), (*VIEW, 1))
        assert (image.dtype, mask.dtype) == (np.float32, np.float32)
        assert np.all((image >= 0) & (image <= 1))
        assert np.all(image[mask[..., 0] == 1] == 0)
        assert set(np.unique(mask)) <= {0, 1}
    if box[2] - box[0] <= 16 and box[3] - box[1] <= 24:  # at scale 1 it is the network's alone
        assert np.all(restored[hole] == 128)


@pytest.mark.parametrize(
    ("size", "box", "most"),
    [
        ((120, 160), (50, 60, 66, 84), 1),  # as large as a window of scale 1 takes
        ((120, 160), (0, 0, 9, 9), 1),  # in the corners
        ((120, 160), (111, 151, 120, 160), 1),
        ((120, 160), (60, 150, 61, 160), 1),
        ((120, 160), (40, 30, 80, 100), 2),  # shrunk 2.9 times
        ((120, 160), (41, 31, 58, 56), 2),  # shrunk 1.06 times
        ((700, 1000), (200, 300, 500, 600), 2),  # shrunk 18.75 times
        ((700, 1000), (0, 700, 300, 1000), 4),  # in a corner, the window shifted: continued over 300 pixels
        ((1000, 700), (800, 150, 1000, 400), 3),  # a portrait; at the lower edge
    ],
)
def test_a_ramp_is_continued_at_the_right_places(size, box, most):
    photo, hole = ramp(*size), hole_at(size, box)
    plan = plan_tiles(hole, VIEW)
    hidden = np.where(hole[..., None], 255, photo).astype(np.uint8)
    restored = restore_photo(hidden, plan, plane_of_the_photo(plan))
    assert np.abs(restored.astype(int) - photo)[hole].max() <= most


def test_a_region_touching_two_sides_keeps_its_place_in_a_photo_smaller_than_the_window():
    photo = ramp(24, 300)
    hole = hole_at(photo.shape, (0, 100, 24, 130))  # the window has 60 columns, and 40 rows: 16 of them mirrored

    def columns(images, masks):
        """The mean of what is visible left and right in each column's stead: a ramp from column to column."""
        made = np.empty_like(images)
        for i, (image, mask) in enumerate(zip(images, masks[..., 0], strict=True)):
            seen = np.flatnonzero(mask.max(axis=0) == 0)
            for channel in range(image.shape[-1]):
                made[i, ..., channel] = np.interp(np.arange(mask.shape[1]), seen, image[:, seen, channel].mean(axis=0))
        return made

    restored = restore(photo, hole, columns)
    error = np.abs(restored.astype(int) - photo)[hole]
    assert error[:, 2].max() <= 2  # the channel that changes from column to column alone


@pytest.mark.parametrize("box", [(50, 60, 58, 70), (20, 20, 90, 130), (0, 0, 119, 160), (7, 0, 8, 160)])
def test_what_the_hole_hides_does_not_matter(box):
    photo = noise(120, 160)
    hole = hole_at(photo.shape, box, (100, 5, 104, 9))
    other = photo.copy()
    other[hole] = 255 - other[hole]
    networks = Recorder(), Recorder()
    restored = [restore(picture, hole, network) for picture, network in zip((photo, other), networks, strict=True)]
    assert np.array_equal(*(np.stack(network.images) for network in networks))
    assert np.array_equal(restored[0][hole], restored[1][hole])


def test_a_shrunk_hole_is_bordered_by_the_photo_and_not_by_what_the_network_makes_around_it():
    photo = np.full((400, 600, 3), 200, np.uint8)
    hole = hole_at(photo.shape, (100, 200, 260, 380))

    def black_around(images, masks):
        return np.float32(200 / 255) * masks * np.ones_like(images)

    assert np.all(restore(photo, hole, black_around) == 200)


def test_at_scale_1_the_network_sees_the_photo_itself_and_every_hole():
    photo = noise(100, 100)
    hole = hole_at(photo.shape, (40, 40, 56, 64), (50, 70, 90, 75), (0, 0, 3, 3))
    plan = plan_tiles(hole, VIEW)
    window = next(window for window in plan.windows if window.box == (40, 40, 56, 64))
    rows, columns = window.sides
    assert (rows.start, columns.start) == (32, 28)  # the region's centre (48, 52) is the window's
    network = Recorder()
    restore_photo(photo, plan, network)
    image, mask = (seen[plan.windows.index(window)] for seen in (network.images, network.masks))
    cut = np.s_[32 : 32 + VIEW[0], 28 : 28 + VIEW[1]]
    assert np.array_equal(mask[..., 0] == 1, hole[cut])
    assert np.array_equal(image, np.where(hole[cut][..., None], 0, photo[cut] / np.float32(255)))


def test_a_small_photo_is_mirrored_at_its_edges():
    photo = noise(5, 7)
    hole = hole_at(photo.shape, (2, 3, 4, 5))
    network = Recorder()
    restore(photo, hole, network)
    before = [(VIEW[side] - photo.shape[side] + 1) // 2 for side in (0, 1)]
    pads = [(before[side], VIEW[side] - photo.shape[side] - before[side]) for side in (0, 1)]
    mirrored = np.pad(hole, pads, mode="symmetric")
    assert np.array_equal(network.masks[0][..., 0] == 1, mirrored)
    expected = np.pad(photo, [*pads, (0, 0)], mode="symmetric") / np.float32(255)
    assert np.array_equal(network.images[0], np.where(mirrored[..., None], 0, expected))


@pytest.mark.parametrize(("region", "sides"), [((160, 200), (320, 480)), ((100, 130), (200, 300)), ((17, 3), (34, 51))])
def test_a_larger_window_is_shrunk_as_pillow_does_where_nothing_is_hidden(region, sides):
    photo = noise(500, 700)
    top, left = 150, 200
    hole = hole_at(photo.shape, (top, left, top + region[0], left + region[1]))
    plan = plan_tiles(hole, VIEW)
    rows, columns = plan.windows[0].sides
    assert (rows.extent, columns.extent) == sides
    network = Recorder()
    restore_photo(photo, plan, network)
    image, mask = network.images[0], network.masks[0][..., 0] == 1
    cut = np.s_[rows.start : rows.start + sides[0], columns.start : columns.start + sides[1]]
    for channel in range(3):
        whole = Image.fromarray(photo[cut][..., channel].astype(np.float32))
        shrunk = np.asarray(whole.resize((VIEW[1], VIEW[0]), Image.Resampling.BILINEAR)) / 255
        clear = ~mask  # far enough from the hole and from the window's edges, where the filters are cut off
        for side in (0, 1):
            clear &= ~np.roll(mask, 1, side) & ~np.roll(mask, -1, side)
        clear[[0, -1]] = clear[:, [0, -1]] = False
        clear &= ~np.roll(np.roll(mask, 1, 0), 1, 1) & ~np.roll(np.roll(mask, -1, 0), 1, 1)
        clear &= ~np.roll(np.roll(mask, 1, 0), -1, 1) & ~np.roll(np.roll(mask, -1, 0), -1, 1)
        assert clear.sum() > 500
        assert np.abs(image[..., channel] - shrunk)[clear].max() < 1e-5
    for y in range(VIEW[0]):  # a pixel of the view is a hole where any pixel of the hole lies in it
        for x in range(VIEW[1]):
            first = [y * sides[0] // VIEW[0], x * sides[1] // VIEW[1]]
            last = [-(-(y + 1) * sides[0] // VIEW[0]), -(-(x + 1) * sides[1] // VIEW[1])]
            assert mask[y, x] == hole[cut][first[0] : last[0], first[1] : last[1]].any()


def test_a_network_of_central_holes_restores_a_corner():
    """One that knows what is visible around the middle half, and makes black elsewhere."""
    photo = np.full((200, 300, 3), 90, np.uint8)

    def central(images, masks):
        made = np.zeros_like(images)
        middle = np.s_[:, VIEW[0] // 4 : -VIEW[0] // 4, VIEW[1] // 4 : -VIEW[1] // 4]
        visible = images.sum(axis=(1, 2), keepdims=True) / (1 - masks).sum(axis=(1, 2), keepdims=True)
        made[middle] = np.broadcast_to(visible, images.shape)[middle]
        return made

    boxes = [(0, 0, 16, 24), (184, 276, 200, 300), (0, 130, 16, 154), (100, 280, 104, 300), (5, 10, 45, 20)]
    for box in boxes:
        assert np.all(restore(photo, hole_at(photo.shape, box), central) == 90)


def test_batches_are_bounded_and_progress_is_logged(caplog, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", -1.0)
    caplog.set_level("INFO")
    hole = np.zeros((40, 2000), bool)
    hole[20, ::50] = True
    network = Recorder()
    plan = plan_tiles(hole, VIEW)
    restore_photo(noise(40, 2000), plan, network)
    assert len(plan.windows) == 40
    assert network.batches == [16, 16, 8]
    assert [line.partition(",")[0] for line in caplog.messages] == [
        f"Restoring batches of windows: {done} of 3" for done in (1, 2)
    ]


def test_nothing_erased_leaves_the_photo_as_it_is():
    photo = noise(20, 30)
    assert np.array_equal(restore(photo, np.zeros((20, 30), bool), white), photo)


def test_blocks_make_no_difference(monkeypatch):
    photo, hole = noise(200, 300), hole_at((200, 300), (20, 30, 150, 220), (190, 290, 200, 300))
    whole = restore(photo, hole, plane)
    monkeypatch.setattr(tiling, "BLOCK_PIXELS", 1000)  # three rows and a part of a fourth
    assert np.abs(restore(photo, hole, plane).astype(int) - whole).max() <= 1


@pytest.mark.stress
def test_memory_is_bounded_for_a_huge_photo():
    photo = np.full((4000, 6000, 3), 77, np.uint8)
    hole = hole_at(photo.shape, (100, 100, 140, 150), (500, 500, 3800, 5900), (3990, 5000, 4000, 6000))

    def flat(images, masks):
        return np.full_like(images, 77 / 255)

    tracemalloc.start()
    try:
        restored = restore(photo, hole, flat, (64, 64))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.all(restored == 77)
    assert peak < 250 * 2**20  # labels 96 MB, the result 72 MB; the photo as float32 alone would be 288 MB


def test_a_long_photo_of_one_row_takes_no_square_window():
    photo = np.full((1, 20000, 3), 77, np.uint8)
    hole = hole_at(photo.shape, (0, 1, 1, 20000))
    tracemalloc.start()
    try:
        restore(photo, hole, white)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * 2**20  # a window of 40000 x 26667 pixels is never made
