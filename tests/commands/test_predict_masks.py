"""Where a mask has its hole, and what `predict` says of the share that it erases."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from restorations import noise, refuse, succeed, write_mask

from tfinpaint.inpainting import photo as photos


def test_the_hole_is_where_the_mask_is_light_and_opaque(tmp_path):
    mask = np.zeros((4, 3, 4), np.uint8)
    mask[0] = [[255, 255, 255, 255], [255, 255, 255, 127], [255, 255, 255, 128]]
    mask[1] = [[127, 127, 127, 255], [128, 128, 128, 255], [0, 255, 0, 255]]
    mask[2] = [[255, 0, 0, 255], [255, 255, 0, 255], [255, 255, 255, 0]]
    expected = [[True, False, True], [False, True, True], [False, True, False], [False] * 3]
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert photos.read_hole(tmp_path / "mask.png", Path("photo.jpg"), (3, 4)).tolist() == expected
    upright = Image.Exif()
    upright[0x0112] = 6
    turned = np.rot90(mask)  # stored a quarter to the left, displayed upright
    Image.fromarray(turned).save(tmp_path / "turned.png", exif=upright)
    assert photos.read_hole(tmp_path / "turned.png", Path("photo.jpg"), (3, 4)).tolist() == expected


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((0, 0, 40, 49), "98.0 %"),
        ((0, 0, 1, 1), "less than 0.1 %"),
        ((0, 0, 1, 3), "0.1 %"),
        (None, "more than 99.9 %"),
    ],
)
def test_a_share_is_not_told_as_all_or_nothing(capsys, tmp_path, small_inpainter, box, share):
    Image.fromarray(noise(40, 50)).save(tmp_path / "photo.png")
    hole = write_mask(tmp_path / "mask.png", 40, 50, box or (0, 0, 40, 50))
    if box is None:
        hole[20, 20] = False
        Image.fromarray(hole).save(tmp_path / "mask.png")
    shown = succeed(capsys, small_inpainter, tmp_path / "photo.png", tmp_path / "mask.png")
    assert f"Restored {share} of photo.png" in shown


def test_a_mask_that_erases_nothing_says_what_it_has(capsys, tmp_path, small_inpainter):
    Image.fromarray(noise(40, 50)).save(tmp_path / "photo.png")
    ones = (noise(40, 50, 1) > 100).astype(np.uint8)
    Image.fromarray(ones).save(tmp_path / "mask.png")
    arguments = (small_inpainter, tmp_path / "photo.png", tmp_path / "mask.png")
    assert "erases nothing; paint the parts to restore white on black (its lightest pixel is 1 of 255)" in refuse(
        capsys, *arguments
    )
    Image.fromarray(np.dstack([255 * ones] * 3 + [0 * ones])).save(tmp_path / "mask.png")
    assert "(its light pixels are transparent)" in refuse(capsys, *arguments)


def test_a_mask_that_erases_more_than_half_is_mentioned(capsys, tmp_path, small_inpainter):
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(noise(40, 50)).save(photo)
    write_mask(mask, 40, 50, (0, 0, 30, 50))
    assert "The mask erases 75 % of the photo, because it is white there; if it was meant the other way" in succeed(
        capsys, small_inpainter, photo, mask
    )
