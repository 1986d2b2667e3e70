"""Restorations that need no training, to hold a network's against.

Each takes an image, float [height, width, channels], 0 to 1, and its hole, bool [height, width], True where pixels
are missing. It returns the restored image, float32, of the image's shape, 0 to 1: the visible pixels as they are, the
hole's made from them alone. What the image holds inside the hole does not matter. Where no pixel is visible, all of the
restored image is MID_GREY.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.restoration import inpaint_biharmonic

from tfinpaint.system.activity import reporting_activity

MID_GREY = 0.5
MOST_BIHARMONIC_PIXELS = 2**19  # of an image, height times width: there it takes 6 s and 0.7 GB at worst (70 % erased),
# of four times as many pixels more than a minute and several GB

Restore = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (image, hole) -> restored


def mean_colour(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The mean of the visible pixels, by channel, everywhere in the hole."""
    restored = _without_hole(image, hole)
    if not hole.all():
        restored[hole] = restored[~hole].mean(axis=0)
    return restored.astype(np.float32)


def nearest(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The visible pixel that is nearest by Euclidean distance (of several as near, one of them)."""
    restored = _without_hole(image, hole)
    if not hole.all():
        rows, columns = distance_transform_edt(hole, return_distances=False, return_indices=True)
        restored = restored[rows, columns]
    return restored.astype(np.float32)


def biharmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The smoothest continuation, whose twofold Laplacian is zero in the hole; as scikit-image's inpaint_biharmonic.

    After Damelin and Hoang, Int. J. Math. Math. Sci. 2018, 3950312. It goes on with the slopes at the hole's rim, so it
    may overshoot: values are clipped to the range of the visible ones. A hole at an image's edge needs no rim there.
    The linear system is positive definite as soon as one pixel is visible, so its solution is always finite.
    """
    restored = _without_hole(image, hole)  # float64: by float32, a hole of 112 pixels is off by up to 0.02
    if hole.any() and not hole.all():
        restored = inpaint_biharmonic(restored, hole, channel_axis=-1)
    return restored.astype(np.float32)


BASELINES: dict[str, Restore] = {"mean_colour": mean_colour, "nearest": nearest, "biharmonic": biharmonic}


def affordable_baselines(height: int, width: int) -> tuple[str, ...]:
    """Return the names of the baselines that take seconds, not minutes, for an image of this size in pixels."""
    small = height * width <= MOST_BIHARMONIC_PIXELS
    return tuple(name for name in BASELINES if small or name != "biharmonic")


def restore_by_baselines(images: np.ndarray, masks: np.ndarray, threads: int = 1) -> dict[str, np.ndarray]:
    """Return the restorations of a batch by every baseline that is affordable.

    Args:
        images: float [batch, height, width, channels], 0 to 1.
        masks: [batch, height, width, 1], above 0 in the hole.
        threads: how many images are restored at a time.

    Returns:
        float32 by the names that `affordable` gives, each shaped as the images.
    """
    holes = masks[..., 0] > 0
    # Threads do, without processes: nearly all the time goes into SciPy's sparse solver, which lets go of the GIL.
    with ThreadPoolExecutor(threads) as pool:
        pending = {name: pool.map(BASELINES[name], images, holes) for name in affordable_baselines(*images.shape[1:3])}
        return {name: np.stack(list(reporting_activity(restored))) for name, restored in pending.items()}


def _without_hole(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """A copy in float64 with MID_GREY in the hole."""
    return np.where(hole[..., None], MID_GREY, image.astype(np.float64))
