"""Photos, holes and networks for the tests of restoring through windows."""

import numpy as np

from tfinpaint.inpainting.tiling import plan_tiles, restore_photo

VIEW = (32, 48)  # not square: a swapped side shows


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def hole_at(shape: tuple[int, ...], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """bool [height, width], true in these boxes: top, left, bottom, right."""
    hole = np.zeros(shape[:2], bool)
    for top, left, bottom, right in boxes:
        hole[top:bottom, left:right] = True
    return hole


def white(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    return np.ones_like(images)


class Recorder:
    """A network that keeps what it is given and makes grey of it."""

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []
        self.masks: list[np.ndarray] = []
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        self.images += list(images)
        self.masks += list(masks)
        self.batches.append(len(images))
        return np.full_like(images, 0.5)


def restore(photo, hole, network, view=VIEW):
    return restore_photo(photo, plan_tiles(hole, view), network)
