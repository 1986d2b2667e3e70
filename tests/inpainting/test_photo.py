"""Photos as they are read: upright, with what describes them."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from tfinpaint.inpainting.photo import read_photo


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.tif"])
@pytest.mark.parametrize(
    ("orientation", "expected"), [(1, (200, 100)), (3, (200, 100)), (6, (100, 200)), (8, (100, 200))]
)
def test_the_resolution_is_turned_with_the_photo(tmp_path, name, orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (32, 16)).save(tmp_path / name, dpi=(200, 100), exif=exif)
    photo = read_photo(tmp_path / name)
    assert photo.dpi == pytest.approx(expected, abs=0.1)  # PNG counts pixels per metre
    assert photo.size == ((16, 32) if orientation in (6, 8) else (32, 16))


def test_a_grey_tiff_file_of_sixteen_bits_whose_white_is_zero_is_no_negative(tmp_path):
    stored = np.array([[0, 1000], [40000, 65535]], np.uint16)
    tifffile.imwrite(tmp_path / "photo.tif", stored, photometric="miniswhite")
    photo = read_photo(tmp_path / "photo.tif")
    assert (photo.mode, photo.pixels.dtype) == ("L", np.uint16)
    assert photo.pixels.tolist() == [[65535, 64535], [25535, 0]]
