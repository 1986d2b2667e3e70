"""The handwritten digits of scikit-learn as an image folder per class: real data that needs no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_digits(dest: Path) -> Path:
    """Write the 1,797 scans of 8 x 8 pixels (Alpaydin and Kaynak, UCI, 1998) as `dest/<digit>/<number>.png`.

    Returns:
        `dest`.
    """
    from sklearn.datasets import load_digits  # slow to import

    data = load_digits()
    for number, (scan, digit) in enumerate(zip(data.images, data.target, strict=True)):
        folder = dest / str(digit)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.round(scan * (255 / 16)).astype(np.uint8)  # the scans have 17 levels, 0 to 16
        Image.fromarray(pixels).save(folder / f"{number:04}.png")
    return dest
