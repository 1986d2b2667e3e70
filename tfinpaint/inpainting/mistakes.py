"""Notice a photo and a mask that were probably given in the wrong way."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfinpaint.data.images.decode import DecodeOptions, read_image

MOST_OF_PHOTO = 0.5  # share of a photo that a mask erases; more is unusual
_NEAR = 24  # grey levels from black or white within which a pixel of a mask lies, also of one that was saved as JPEG
_MASK_SHARE = 0.98  # of the pixels of a mask that are nearly black or white


def find_mistakes(photo: np.ndarray, mask: Path, hole: np.ndarray) -> list[str]:
    """Return sentences about what is probably wrong; [] where nothing is.

    Args:
        photo: uint8 or uint16 [height, width, 1 or 3], RGB or grey.
        mask: the file of the mask, which can be read.
        hole: bool [height, width], what the mask erases.
    """
    if _looks_like_mask(photo) and not _looks_like_mask(read_image(mask, DecodeOptions(channels=1))):
        return [
            "The photo is black and white as a mask is, and the mask is not: they are probably in the wrong order; the "
            "photo comes first"
        ]
    if (share := hole.mean()) > MOST_OF_PHOTO:
        return [
            f"The mask erases {100 * share:.0f} % of the photo, because it is white there; if it was meant the other "
            "way round, invert it"
        ]
    return []


def _looks_like_mask(image: np.ndarray) -> bool:
    """Return whether nearly all pixels are black or white, and some are of each."""
    levels = image // 257 if image.dtype == np.uint16 else image
    black, white = (levels <= _NEAR).all(axis=2), (levels >= 255 - _NEAR).all(axis=2)
    return bool((black | white).mean() >= _MASK_SHARE and black.any() and white.any())
