"""Draw docs/masks.png: what each kind of mask erases of photographs that come with scikit-image.

usage: python scripts/masks_picture.py
"""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from skimage import data
from skimage.transform import resize

from tfinpaint.config.transforms import Transform
from tfinpaint.data import masks
from tfinpaint.data.masks import fill_hole
from tfinpaint.data.transforms import Keys
from tfinpaint.report.figures import draw_grid

PICTURE = Path(__file__).parents[1] / "docs" / "masks.png"
SIDE = 128
SHOWN = {
    "original": None,
    "random_patches\nnumber: 16": {"random_patches": {"number": 16, "size": 16}},
    "random_patches\narea: 0.5": {"random_patches": {"size": 16, "area": 0.5, "fill": "noise"}},
    "center": {"center": {"fill": "mean"}},
    "random_block": {"random_block": {}},
    "random_region": {"random_region": {}},
    "grid": {"grid": {}},
}


def erased(images: np.ndarray, section: dict | None) -> np.ndarray:
    if section is None:
        return images
    step = Transform.model_validate(section)
    keys = Keys(0, tf.constant(0, tf.int64), tf.range(len(images), dtype=tf.int64))
    mask = masks.draw_mask(step, keys, height=SIDE, width=SIDE)
    return fill_hole(tf.constant(images), mask, step.section.fill, keys).numpy()


def main() -> None:
    photos = (data.astronaut(), data.chelsea()[:, 75:375], data.coffee()[:, 100:500])  # public domain, CC0, CC0
    images = np.stack([resize(photo, (SIDE, SIDE), anti_aliasing=True) for photo in photos]).astype(np.float32)
    columns = {name: erased(images, section) for name, section in SHOWN.items()}
    draw_grid(columns, "one draw of each kind of mask", PICTURE)


if __name__ == "__main__":
    main()
