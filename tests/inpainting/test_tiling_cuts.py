"""Long and thin holes are cut into pieces, each restored near by; what is thick stays whole; specks share windows."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from tfinpaint.inpainting.tiling import plan_tiles, restore_photo

VIEW = (32, 48)  # not square: a swapped side shows


def drawn(size: tuple[int, int], *lines: tuple[int, int, int, int, int], disc: int = 0) -> np.ndarray:
    """bool [height, width]: lines of (x, y, x, y, width) and a disc of this radius in the middle."""
    height, width = size
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    for *ends, thickness in lines:
        draw.line(ends, fill=255, width=thickness)
    if disc:
        draw.ellipse((width // 2 - disc, height // 2 - disc, width // 2 + disc, height // 2 + disc), fill=255)
    return np.asarray(image) > 0


def nearest(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """A network that takes the nearest visible pixel."""
    made = images.copy()
    for image, mask in zip(made, masks[..., 0], strict=True):
        rows, columns = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
        image[:] = image[rows, columns]
    return made


def checks(height: int, width: int) -> np.ndarray:
    """A photo of fields of 10 x 10 pixels: a view that was shrunk by more than that sees grey."""
    y, x = np.indices((height, width)) // 10
    return np.repeat(np.where((y + x) % 2, 30, 220)[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("line", [(5, 8, 590, 380, 3), (0, 200, 599, 200, 4), (300, 0, 310, 399, 5)])
def test_a_scratch_across_a_photo_is_restored_from_what_is_beside_it(line):
    hole = drawn((400, 600), line)
    plan = plan_tiles(hole, VIEW)
    assert {(rows.extent, columns.extent) for rows, columns in (window.sides for window in plan.windows)} == {VIEW}
    photo = checks(400, 600)
    restored = restore_photo(np.where(hole[..., None], 0, photo).astype(np.uint8), plan, nearest)
    assert np.array_equal(restored[~hole], photo[~hole])
    wrong = np.abs(restored.astype(int) - photo).max(axis=2)[hole] > 60
    assert wrong.mean() < 0.3  # where a field ends beside the scratch; through one window: everywhere


@pytest.mark.parametrize(("width", "most"), [(3, 1), (14, 3), (28, 6), (70, 14)])
def test_the_thicker_a_line_the_larger_its_windows(width, most):
    hole = drawn((900, 1200), (20, 100, 1180, 800, width))
    windows = plan_tiles(hole, VIEW).windows
    scales = [window.sides[0].extent / VIEW[0] for window in windows]
    assert max(scales) <= most
    assert max(scales) >= width / 20  # and no smaller: it would see the hole alone


@pytest.mark.parametrize("radius", [13, 40, 150, 230])
def test_a_disc_stays_whole(radius):
    plan = plan_tiles(drawn((500, 700), disc=radius), VIEW)
    assert (plan.labels.max(), len(plan.windows)) == (1, 1)


@pytest.mark.parametrize("box", [(0, 0, 400, 599), (30, 0, 400, 300), (100, 100, 190, 130), (0, 200, 9, 260)])
def test_rectangles_stay_whole(box):
    hole = np.zeros((400, 600), bool)
    hole[box[0] : box[2], box[1] : box[3]] = True
    assert plan_tiles(hole, VIEW).labels.max() == 1


def test_a_photo_of_one_row_is_not_cut():
    hole = np.ones((1, 5000), bool)
    hole[0, 0] = False
    assert len(plan_tiles(hole, VIEW).windows) == 1


def test_a_scratch_through_a_blob_is_cut_and_the_blob_is_not():
    hole = drawn((400, 600), (5, 8, 590, 380, 3), disc=60)
    plan = plan_tiles(hole, VIEW)
    blob = plan.labels[200, 300]
    disc = drawn((400, 600), disc=60)
    assert (plan.labels[disc] == blob).all()
    window = next(window for window in plan.windows if blob in window.regions)
    assert window.regions.tolist() == [blob]
    assert window.sides[0].extent / VIEW[0] < 9  # 7.5 for the disc; the scratch would make it 24
    others = [other.sides[0].extent for other in plan.windows if other is not window]
    assert set(others) == {VIEW[0]}


def test_blobs_that_a_scratch_joins_have_windows_of_their_own():
    hole = drawn((400, 600), (50, 200, 550, 200, 3))
    hole[150:250, 20:120] = hole[150:250, 480:580] = True
    plan = plan_tiles(hole, VIEW)
    assert plan.labels[200, 60] != plan.labels[200, 530]
    assert max(window.sides[0].extent for window in plan.windows) < 240


@pytest.mark.parametrize("seed", range(12))
def test_pieces_are_numbered_without_gaps_and_together_the_hole(seed):
    generator = np.random.default_rng(seed)
    size = tuple(generator.integers(60, 500, 2).tolist())
    strokes = [(*generator.integers(0, size[::-1]).tolist() * 2, 1) for _ in range(generator.integers(0, 60))]  # specks
    for _ in range(generator.integers(1, 12)):
        ends = generator.integers(0, [size[1], size[0], size[1], size[0]]).tolist()
        strokes.append((*ends, int(generator.integers(1, 30))))
    hole = drawn(size, *strokes, disc=int(generator.integers(0, 40)))
    view = tuple(generator.integers(3, 70, 2).tolist())
    plan = plan_tiles(hole, view)
    assert np.array_equal(plan.labels > 0, hole)
    assert sorted(set(plan.labels[hole])) == list(range(1, plan.labels.max() + 1))
    regions = sorted(label for window in plan.windows for label in window.regions.tolist())
    assert regions == list(range(1, plan.labels.max() + 1))
    for window in plan.windows:  # whatever is restored lies in the middle half, be it through a shared window
        for side, first, last in zip(window.sides, window.box[:2], window.box[2:], strict=True):
            assert side.start + side.extent // 4 <= first
            assert last <= side.start + side.extent - side.extent // 4
    photo = generator.integers(0, 256, (*size, 3), np.uint8)
    restored = restore_photo(photo, plan, lambda images, masks: np.ones_like(images) * 0.5)
    assert np.array_equal(restored[~hole], photo[~hole])


@pytest.mark.stress
def test_memory_is_bounded_for_a_scratch_across_a_huge_photo():
    hole = drawn((4000, 6000), (10, 10, 5990, 3990, 8))
    tracemalloc.start()
    try:
        plan = plan_tiles(hole, (64, 64))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(plan.windows) > 100
    assert peak < 250 * 2**20  # labels 96 MB, what is thick as bytes 24 MB a copy
