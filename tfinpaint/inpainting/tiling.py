"""Restore the hole of a photo of any size through windows, which are resized to the view: the network's image size.

Every connected region of the hole is restored through one window, so that no seam runs through it. Long and thin
regions are cut first: a window around a scratch across the photo would show the network next to nothing of the scratch.

- A part of a region is thin if no rectangle of a quarter of the view fits into it. It is cut into pieces of half the
  view, if that at least halves the window of the region. The same is repeated with pixels twice as large, and so on.
- A window has the view's aspect ratio, at least its size, and at least twice the extents of the region's bounding box,
  so that the region spans at most half of the view, as a central hole does in training. It is centred on the region,
  then shifted into the photo as far as the region stays in the middle half of the view, because many networks have
  learned to restore nothing else. Beyond its edges the photo is mirrored.
- A window that is larger than the view is shrunk by the triangle filter (bilinear, anti-aliased). Only visible pixels
  have weights, so that the content of the hole cannot leak; a pixel of the view belongs to the hole if any pixel in it
  does. The network's output is enlarged bilinearly. At the rim of the hole it is interpolated with the shrunk photo
  rather than with the output in the visible part, which may be anything (black, if only the hole was the target).
- A window of the view's size restores all regions that fit together into its middle half, so specks share windows.
- All regions are holes in all windows. The output of one window is never the input of another, so any order will do.

A window is resized by one sparse matrix per side, which also mirrors the photo: nothing is padded, and only a few rows
of the photo at a time are converted to floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse
from skimage import measure

from tfinpaint.system.progress import log_progress

Network = Callable[[np.ndarray, np.ndarray], np.ndarray]
# Per axis: whether the photo continues before the first pixel, and after the last one.
Ends = tuple[tuple[bool, bool], tuple[bool, bool]]

BATCH_WINDOWS = 16
THIN = 4  # a part is thin if no rectangle of 1 / THIN of the view fits into it
BLOCK_PIXELS = 2**20  # pixels of the photo that are converted to floating-point numbers at a time


@dataclass(frozen=True)
class Side:
    """A range of rows or columns of the photo that a window covers; it may reach beyond the photo."""

    start: int
    extent: int


@dataclass(frozen=True)
class Window:
    """A rectangle of the photo that the network sees at once, and the regions that are restored from it.

    Attributes:
        sides: its rows and its columns.
        regions: int [n], labels of the regions that it restores.
        box: top, left, bottom, right of these regions' common bounding box, in pixels; the last two are exclusive.
    """

    sides: tuple[Side, Side]
    regions: np.ndarray
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Tiling:
    """The windows through which a photo is restored.

    Attributes:
        labels: int32 [height, width], 0 outside the hole, else the number, from 1, of a connected region or a piece of
            one.
        view: height and width of the network's images in pixels.
        windows: each region is restored by exactly one of them.
    """

    labels: np.ndarray
    view: tuple[int, int]
    windows: tuple[Window, ...]


def plan_tiles(hole: np.ndarray, view: tuple[int, int]) -> Tiling:
    """Choose the windows through which a hole is restored.

    Args:
        hole: bool [height, width], True where the photo is to be restored; pixels that touch, even by a corner, belong
            to one region.
        view: height and width of the network's images in pixels.
    """
    labels = measure.label(hole, connectivity=2)
    _cut_regions(labels, view)
    return Tiling(labels, view, tuple(_windows(_boxes(labels), labels.shape, view)))


def restore_photo(photo: np.ndarray, plan: Tiling, network: Network) -> np.ndarray:
    """Return the photo with its hole restored; log the progress of work that takes longer than some seconds.

    Args:
        photo: uint8 or uint16 [height, width, channels]; its content in the hole is not used.
        plan: the tiling of the photo's hole.
        network: takes images, float32 [batch, *view, channels], 0 to 1 and 0 in the hole, and masks, float32
            [batch, *view, 1], 1 in the hole; returns float32 images of the same shape, 0 to 1. A batch has 1 to
            BATCH_WINDOWS images.

    Returns:
        An array of the photo's shape and dtype, equal to it outside the hole.
    """
    restored, windows = photo.copy(), plan.windows
    batches = [windows[first : first + BATCH_WINDOWS] for first in range(0, len(windows), BATCH_WINDOWS)]
    for batch in log_progress(batches, len(batches), "Restoring batches of windows"):
        seen = [_look(photo, plan, window) for window in batch]
        images, masks = (np.stack(parts) for parts in zip(*seen, strict=True))
        made = np.where(masks > 0, network(images, masks), images)
        for window, image in zip(batch, made, strict=True):
            _paste(restored, plan, window, image)
    return restored


def _boxes(labels: np.ndarray) -> np.ndarray:
    """Return int [n, 4]: top, left, bottom and right of each label from 1 on, the last two exclusive."""
    found = ndimage.find_objects(labels)
    sides = [[rows.start, columns.start, rows.stop, columns.stop] for rows, columns in found]
    return np.array(sides, np.int64).reshape(-1, 4)


def _cut_regions(labels: np.ndarray, view: tuple[int, int]) -> None:
    """Give every piece of a long and thin part a label of its own, in place; labels remain consecutive from 1."""
    boxes = _boxes(labels)
    number = len(boxes)
    scales = (2 * (boxes[:, 2:] - boxes[:, :2]) / view).max(axis=1, initial=0)
    for i in np.flatnonzero(scales >= 2):
        top, left, bottom, right = boxes[i].tolist()
        ends = ((top > 0, bottom < labels.shape[0]), (left > 0, right < labels.shape[1]))
        number = _cut(labels[top:bottom, left:right], int(i) + 1, number, view, scales[i], ends)


def _cut(labels: np.ndarray, label: int, number: int, view: tuple[int, int], scale: float, ends: Ends) -> int:
    """Give the pieces of one region labels of their own, in place.

    Args:
        labels: the labels in the region's bounding box.
        label: that of the region; one piece keeps it.
        number: number of labels so far.
        view: height and width of the network's images in pixels.
        scale: size of the region's window in views.
        ends: on which sides of its bounding box the photo continues.

    Returns:
        The new number of labels.
    """
    before, left = number, labels == label
    shrunk, factor = left, 1
    while 2 * factor <= scale and shrunk.any():
        thick = _thick(shrunk, view, ends)
        kept = left & thick.repeat(factor, 0)[: left.shape[0]].repeat(factor, 1)[:, : left.shape[1]]
        rows, columns = np.nonzero(left & ~kept)
        cells = rows // (factor * view[0] // 2) * left.shape[1] + columns // (factor * view[1] // 2)
        used, cell = np.unique(cells, return_inverse=True)
        labels[rows, columns] = number + 1 + cell
        number += len(used)
        left, shrunk, factor = kept, _halved(thick), 2 * factor
    if number == before:
        return number
    if not left.any():
        labels[labels == number] = label
        return number - 1
    whole, parts = measure.label(
        left, connectivity=2, return_num=True
    )  # parts that thin ones connected are now separate
    labels[left] = np.where(whole == 1, label, number + whole - 1)[left]
    return number + parts - 1


def _thick(mask: np.ndarray, view: tuple[int, int], ends: Ends) -> np.ndarray:
    """Return the parts of a mask into which a rectangle of 1 / THIN of the view fits, with their surroundings.

    Without the surroundings, the rim of every round region would be thin.
    """
    (top, bottom), (left, right) = ends
    # At the photo's edge the mask is extended without end, because the network sees nothing there.
    near = np.pad(mask.astype(np.uint8), [(int(top), int(bottom)), (int(left), int(right))])
    reaches = [extent // (2 * THIN) for extent in view]
    for axis, reach in enumerate(reaches):
        near = ndimage.minimum_filter1d(near, 2 * reach + 1, axis, mode="nearest")
    for axis, reach in enumerate(reaches):
        near = ndimage.maximum_filter1d(near, 4 * reach + 1, axis, mode="nearest")
    near = near[int(top) :, int(left) :][: mask.shape[0], : mask.shape[1]]
    return mask & (near > 0)


def _halved(mask: np.ndarray) -> np.ndarray:
    """Return a mask with pixels twice as large: True if any of the four pixels is."""
    even = np.pad(mask, [(0, extent % 2) for extent in mask.shape])
    return np.asarray(even.reshape(even.shape[0] // 2, 2, -1, 2).any(axis=(1, 3)))


def _windows(boxes: np.ndarray, photo: tuple[int, ...], view: tuple[int, int]) -> Iterator[Window]:
    """Yield the windows for regions with these bounding boxes, int [n, 4]; the region of box i has the label i + 1."""
    order = np.lexsort((boxes[:, 1], boxes[:, 0]))  # regions that may share a window are neighbours
    boxes, labels = boxes[order], order + 1
    extents = boxes[:, 2:] - boxes[:, :2]
    scales = np.maximum(1, (2 * extents / view).max(axis=1, initial=0))
    alone = scales > 1  # another region in the window would be shrunk more than necessary
    sharing = ~alone
    for i, (start, scale) in enumerate(zip(boxes[:, :2], scales, strict=True)):
        if not (alone[i] or sharing[i]):
            continue
        halves = (Side(int(start[side]), view[side] // 2) for side in (0, 1))
        chosen = np.array([i]) if alone[i] else _inside(boxes, sharing, *halves)
        sharing[chosen] = False
        top, left = boxes[chosen, :2].min(axis=0).tolist()
        bottom, right = boxes[chosen, 2:].max(axis=0).tolist()
        rows = _place(top, bottom - top, round(scale * view[0]), photo[0])
        columns = _place(left, right - left, round(scale * view[1]), photo[1])
        yield Window((rows, columns), labels[chosen], (top, left, bottom, right))


def _inside(boxes: np.ndarray, chosen: np.ndarray, rows: Side, columns: Side) -> np.ndarray:
    """Return the indices of the chosen boxes within these rows and columns; the boxes are sorted by their tops."""
    ends = [rows.start + rows.extent, columns.start + columns.extent]
    first, last = np.searchsorted(boxes[:, 0], [rows.start, ends[0]])
    near = boxes[first:last]
    inside = (near[:, 1] >= columns.start) & (near[:, 2:] <= ends).all(axis=1)
    return first + np.flatnonzero(inside & chosen[first:last])


def _place(start: int, extent: int, window: int, photo: int) -> Side:
    """Place a side of a window within the photo, or centred on a smaller photo, with the region in its middle half."""
    centred, quarter = start + (extent - window) // 2, window // 4
    place = (photo - window) // 2 if window >= photo else np.clip(centred, 0, photo - window)
    return Side(int(np.clip(place, start + extent - (window - quarter), start - quarter)), window)


def _look(photo: np.ndarray, plan: Tiling, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Return a window's image, 0 in the hole, and its mask, as the network sees them: float32 [*view, ...], 0 to 1."""
    (rows, row_weights, row_touches), (columns, column_weights, column_touches) = (
        _shrinking(side, extent, size)
        for side, extent, size in zip(window.sides, plan.labels.shape, plan.view, strict=True)
    )
    width, channels = columns.stop - columns.start, photo.shape[2]
    seen = np.zeros((plan.view[0], width, channels + 1), np.float32)  # the last channel: the visible share
    touched = np.zeros((plan.view[0], width), np.float32)
    for part, block in _blocks(rows, width):
        hole = plan.labels[block, columns] > 0
        values = np.ones((*hole.shape, channels + 1), np.float32)
        values[..., :channels] = photo[block, columns]
        values[hole] = 0
        seen += _along_rows(row_weights[part].T, values)
        touched += row_touches[part].T @ hole.astype(np.float32)
    seen = _along_columns(column_weights.T, seen)
    mask = (column_touches.T @ touched.T).T[..., None] > 0
    visible = np.where(mask, 1, seen[..., channels:])
    return np.where(mask, 0, seen[..., :channels] / (np.iinfo(photo.dtype).max * visible)), mask.astype(np.float32)


def _paste(restored: np.ndarray, plan: Tiling, window: Window, image: np.ndarray) -> None:
    """Enlarge a window's restored view, float32 [*view, channels], 0 to 1, and copy it into the window's regions."""
    top, left, bottom, right = window.box
    rows, columns = window.sides
    wide = _along_columns(_stretching(columns, np.arange(left, right) - columns.start, plan.view[1]), image)
    weights = _stretching(rows, np.arange(top, bottom) - rows.start, plan.view[0])
    for part, block in _blocks(slice(top, bottom), right - left):
        chosen = np.isin(plan.labels[block, left:right], window.regions)
        values = _along_rows(weights[part], wide)[chosen]
        most = np.iinfo(restored.dtype).max
        restored[block, left:right][chosen] = np.rint(most * np.clip(values, 0, 1)).astype(restored.dtype)


def _shrinking(side: Side, photo: int, size: int) -> tuple[slice, sparse.csr_array, sparse.csr_array]:
    """Return how the `size` pixels of the view are computed from one side of a window, mirrored into the photo.

    Returns:
        The range of the photo's pixels in the window; float32 [pixels, size], the weight of each pixel in each pixel
        of the view; and a matrix of the same shape, at least 1 where the two overlap.
    """
    pixels = np.arange(side.extent)
    period = (side.start + pixels) % (2 * photo)
    mirrored = np.minimum(period, 2 * photo - 1 - period)
    first, last = int(mirrored.min()), int(mirrored.max())
    fold = _matrix([mirrored - first, pixels], np.ones(side.extent), (last + 1 - first, side.extent))
    cells = np.concatenate([pixels * size // side.extent, ((pixels + 1) * size - 1) // side.extent])
    touches = _matrix([np.tile(pixels, 2), cells], np.ones(2 * side.extent), (side.extent, size))
    return slice(first, last + 1), fold @ _stretching(side, pixels, size), fold @ touches


def _stretching(side: Side, pixels: np.ndarray, size: int) -> sparse.csr_array:
    """Return float32 [len(pixels), size]: the weights that interpolate pixels of a window in the view, bilinearly.

    The transposed matrix is the triangle filter that shrinks, flat beyond the centres of the view's outermost pixels.
    """
    place = np.clip((pixels + 0.5) * size / side.extent - 0.5, 0, size - 1)
    below = np.minimum(place.astype(int), size - 1)
    above = np.minimum(below + 1, size - 1)
    rows, columns = np.tile(np.arange(len(pixels)), 2), np.concatenate([below, above])
    return _matrix([rows, columns], np.concatenate([1 - (place - below), place - below]), (len(pixels), size))


def _matrix(places: list[np.ndarray], values: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    """Return a float32 matrix with values at the given rows and columns; values at the same place are added."""
    return sparse.csr_array((values.astype(np.float32), tuple(places)), shape)


def _along_rows(matrix: sparse.csr_array, image: np.ndarray) -> np.ndarray:
    return (matrix @ image.reshape(len(image), -1)).reshape(-1, *image.shape[1:])


def _along_columns(matrix: sparse.csr_array, image: np.ndarray) -> np.ndarray:
    return _along_rows(matrix, image.swapaxes(0, 1)).swapaxes(0, 1)


def _blocks(rows: slice, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of about BLOCK_PIXELS: their rows counted from the first row, and their rows in the photo."""
    height = max(1, BLOCK_PIXELS // width)
    for start in range(rows.start, rows.stop, height):
        stop = min(start + height, rows.stop)
        yield slice(start - rows.start, stop - rows.start), slice(start, stop)
