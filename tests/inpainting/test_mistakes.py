"""Photos and masks that were given in the wrong way, and those that only look like it."""

import numpy as np
import pytest
from PIL import Image

from tfinpaint.inpainting.mistakes import find_mistakes

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (40, 50, 3), np.uint8)
MASK = np.zeros((40, 50), np.uint8)
MASK[10:20, 10:30] = 255
SWAPPED = [
    "The photo is black and white as a mask is, and the mask is not: they are probably in the wrong order; the photo "
    "comes first"
]


def found(photo, mask, tmp_path, kind="png") -> list[str]:
    """The mistakes in a photo, and in a mask that is read from a file."""
    path = tmp_path / f"mask.{kind}"
    Image.fromarray(mask).save(path)
    light = np.asarray(Image.open(path).convert("L"))
    return find_mistakes(photo, path, light >= 128)


def test_a_photo_and_its_mask_are_right(tmp_path):
    assert found(PHOTO, MASK, tmp_path) == []
    assert found(PHOTO.astype(np.uint16) * 257, MASK, tmp_path) == []


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_photo_and_a_mask_in_the_wrong_order(tmp_path, depth):
    scale = np.iinfo(depth).max // 255
    for channels in (1, 3):
        mask = np.repeat(MASK[..., None], channels, axis=2).astype(depth) * scale
        assert found(mask, PHOTO, tmp_path) == SWAPPED
    Image.fromarray(MASK).save(tmp_path / "m.jpg", quality=75)
    assert found(np.asarray(Image.open(tmp_path / "m.jpg"))[..., None], PHOTO, tmp_path) == SWAPPED


def test_a_page_in_black_and_white_is_a_photo(tmp_path):
    assert found(MASK[..., None], MASK.T.copy().reshape(40, 50), tmp_path, "jpg") == []
    black = np.zeros((40, 50, 3), np.uint8)
    assert found(black, PHOTO, tmp_path)[:1] != SWAPPED


def test_a_mask_that_is_more_than_half_white(tmp_path):
    half = np.zeros((40, 50), np.uint8)
    half[:20] = 255
    assert found(PHOTO, half, tmp_path) == []
    assert found(PHOTO, 255 - MASK, tmp_path) == [
        "The mask erases 90 % of the photo, because it is white there; if it was meant the other way round, invert it"
    ]
