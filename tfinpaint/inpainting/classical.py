"""Classical inpainting baselines: restorations that need no training, to compare a network's with.

Each takes an image, float [height, width, channels], 0 to 1, and its hole, bool [height, width], True where pixels
are missing. It returns the restored image, float32, of the same shape, 0 to 1: visible pixels are unchanged, pixels in
the hole are computed from them alone. The content of the image inside the hole is never used. An image without visible
pixels becomes MID_GREY.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.restoration import inpaint_biharmonic

from tfinpaint.system.activity import reporting_activity

MID_GREY = 0.5
# Height times width of an image: the biharmonic baseline takes up to 6 s and 0.7 GB here (70 % erased), but more than a
# minute and several GB for four times as many pixels.
MOST_BIHARMONIC_PIXELS = 2**19

Restore = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (image, hole) -> restored


def mean_colour(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill the hole with the mean of the visible pixels, channel by channel."""
    restored = _without_hole(image, hole)
    if not hole.all():
        restored[hole] = restored[~hole].mean(axis=0)
    return restored.astype(np.float32)


def nearest(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill each pixel with the nearest visible one by Euclidean distance; if several are as near, with one of them."""
    restored = _without_hole(image, hole)
    if not hole.all():
        rows, columns = distance_transform_edt(hole, return_distances=False, return_indices=True)
        restored = restored[rows, columns]
    return restored.astype(np.float32)


def biharmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Solve the biharmonic equation in the hole, by scikit-image's `inpaint_biharmonic`.

    See Damelin and Hoang, Int. J. Math. Math. Sci. 2018, 3950312. The solution continues the slopes at the rim of the
    hole and may overshoot, so values are clipped to the range of the visible ones. The linear system is positive
    definite as soon as one pixel is visible, so the solution is always finite.
    """
    restored = _without_hole(image, hole)  # float64: with float32, errors in a hole of 112 pixels reach 0.02
    if hole.any() and not hole.all():
        restored = inpaint_biharmonic(restored, hole, channel_axis=-1)
    return restored.astype(np.float32)


BASELINES: dict[str, Restore] = {"mean_colour": mean_colour, "nearest": nearest, "biharmonic": biharmonic}


def affordable_baselines(height: int, width: int) -> tuple[str, ...]:
    """Return the names of the baselines that take seconds rather than minutes for an image of this size in pixels."""
    small = height * width <= MOST_BIHARMONIC_PIXELS
    return tuple(name for name in BASELINES if small or name != "biharmonic")


def restore_by_baselines(images: np.ndarray, masks: np.ndarray, threads: int = 1) -> dict[str, np.ndarray]:
    """Restore a batch by every affordable baseline.

    Args:
        images: float [batch, height, width, channels], 0 to 1.
        masks: [batch, height, width, 1], above 0 in the hole.
        threads: number of images that are restored at a time.

    Returns:
        Name of each of `affordable_baselines` -> float32 images of the given shape.
    """
    holes = masks[..., 0] > 0
    # Threads suffice: nearly all the time is spent in SciPy's sparse solver, which releases the GIL.
    with ThreadPoolExecutor(threads) as pool:
        pending = {name: pool.map(BASELINES[name], images, holes) for name in affordable_baselines(*images.shape[1:3])}
        return {name: np.stack(list(reporting_activity(restored))) for name, restored in pending.items()}


def _without_hole(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Return a float64 copy with MID_GREY in the hole."""
    return np.where(hole[..., None], MID_GREY, image.astype(np.float64))
