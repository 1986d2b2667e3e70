"""Images of 16 bits: that they are recognised, and that those which use a small part of their range are reported."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from restorations import write_deep

from tfinpaint.data.images.decode import CHECK_OPTIONS, inspect_image
from tfinpaint.data.images.depth import low_range_message
from tfinpaint.data.ingest.copy import prepare
from tfinpaint.data.listing.check import check_images
from tfinpaint.data.listing.listing import list_images
from tfinpaint.project.survey import describe, survey_images

TWELVE_BITS = "24 images of 16 bits with no pixel brighter than 4,095 of 65,535: divided by 257, at most 16 of 256 grey levels are "


def values(most: int, channels: int = 1) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, most + 1, (40, 44, channels)).astype(np.uint16)
    pixels[3, 5, 0] = most
    return pixels[..., 0] if channels == 1 else pixels


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize(("channels", "alpha"), [(1, False), (2, True), (3, False), (4, True)])
def test_the_brightest_pixel_is_known_whatever_the_channels(tmp_path, kind, channels, alpha):
    if kind == "tif" and channels == 2:
        pytest.skip("Pillow does not read it")
    pixels = values(4095, channels)
    if alpha:
        pixels[..., -1] = 65535
    write_deep(tmp_path / f"x.{kind}", pixels)
    assert inspect_image(tmp_path / f"x.{kind}", CHECK_OPTIONS).brightest == 4095  # 4095 is a full low byte


def test_of_grey_images_the_value_is_exact_and_black_is_0(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", values(3000), photometric="minisblack")
    assert inspect_image(tmp_path / "x.tif", CHECK_OPTIONS).brightest == 3000
    tifffile.imwrite(tmp_path / "x.tif", 65535 - values(3000), photometric="miniswhite")
    assert inspect_image(tmp_path / "x.tif", CHECK_OPTIONS).brightest == 3000
    (tmp_path / "x.pgm").write_bytes(b"P5\n44 40\n65535\n" + values(3000).astype(">u2").tobytes())
    assert inspect_image(tmp_path / "x.pgm", CHECK_OPTIONS).brightest == 3000


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
def test_images_of_8_bits_have_no_such_value(tmp_path, mode):
    Image.new("RGB", (8, 8), (9, 8, 7)).convert(mode).save(tmp_path / "x.tif")
    assert inspect_image(tmp_path / "x.tif", CHECK_OPTIONS).brightest is None


def test_the_message_is_for_images_that_are_all_dark():
    assert low_range_message([]) == low_range_message([100, 16384]) == ""
    assert "1 image of 16 bits with no pixel brighter than 16,383 of 65,535" in low_range_message([16383])
    assert "at most 64 of 256" in low_range_message([16383, 5])


@pytest.fixture(params=["grey", "colour"])
def microscope(tmp_path, request):
    """Two classes of twelve images of 12 bits; a few of 8 bits do not matter."""
    generator = np.random.default_rng(0)
    for name in ("thin", "thick"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 4096, (40, 44, 3)).astype(np.uint16)
            pixels[0, 0] = 4095
            write_deep(
                tmp_path / "images" / name / f"{number}.tif", pixels if request.param == "colour" else pixels[..., 0]
            )
        Image.new("RGB", (40, 40), "white").save(tmp_path / "images" / name / "shallow.png")
    return tmp_path / "images"


def test_init_and_prepare_and_runs_say_that_a_small_part_of_the_range_is_used(microscope, tmp_path):
    found = survey_images(microscope)
    assert [line for line in describe(found) if line.startswith(TWELVE_BITS)] == list(found.notes)
    assert prepare(microscope, tmp_path / "data").lines()[0].startswith(TWELVE_BITS)
    listing = list_images(microscope)
    checked = check_images(listing, range(len(listing)), CHECK_OPTIONS)
    assert checked.brightest == [4095] * 24
    for path in (microscope / "thick").iterdir():
        path.rename(microscope / "thin" / f"thick_{path.name}")
    (microscope / "thick").rmdir()
    assert survey_images(microscope / "thin").notes[0].startswith(TWELVE_BITS)  # without classes


def test_images_that_use_their_range_are_not_mentioned(microscope, tmp_path):
    write_deep(microscope / "thin" / "bright.png", values(16384))
    assert survey_images(microscope).notes == ()
