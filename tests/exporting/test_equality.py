"""The photos on which an export is compared with its run."""

import numpy as np
import pytest
from PIL import Image

from tfinpaint.config.schema import Config
from tfinpaint.exporting.equality import choose_photos


@pytest.fixture
def large(tmp_path):
    """A folder of two class folders with a photo of 6 and a panorama of 3 million pixels."""
    for name, size in (("a", (3000, 2000)), ("b", (3000, 1000))):
        (tmp_path / name).mkdir()
        Image.new("RGB", size, "red").save(tmp_path / name / "large.png")
    return tmp_path


@pytest.mark.parametrize(
    ("steps", "sizes"),
    [
        ([{"resize": [32, 32]}], [(427, 640), (214, 640)]),
        ([{"center_crop": [900, 800]}, {"resize": [32, 32]}], [(900, 1350), (900, 2700)]),
    ],
)
def test_large_photos_are_shrunk_as_far_as_a_crop_allows(large, steps, sizes):
    config = Config.model_validate({"data": {"input_path": str(large), "transforms": steps}})
    found = choose_photos(config, (32, 32)).pixels
    assert [pixels.shape[:2] for pixels in found[:2]] == sizes
    (height, width), mirrored = sizes[0], found[-1]
    assert [pixels.shape[:2] for pixels in found[2:4]] == [(2 * height + 1, 3 * width), (3 * height, 2 * width + 1)]
    assert np.array_equal(mirrored, found[0][:, ::-1])


def test_small_photos_keep_their_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "small.png")
    config = Config.model_validate({"data": {"test_input_path": str(tmp_path)}})
    assert np.array_equal(choose_photos(config, (32, 32)).pixels[0], pixels)
