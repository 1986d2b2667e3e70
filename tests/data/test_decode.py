"""Decoding: every mode to RGB, rotation, resizing, masks, bad files."""

import numpy as np
import pytest
from PIL import Image

from tfinpaint.config_transforms import Transform
from tfinpaint.data import decode


def resized(height: int, width: int) -> decode.Reading:
    return decode.Reading((Transform(resize=[width, height]),))


def test_reading_resizes_with_antialiasing_to_golden_pixels(tmp_path):
    # Columns 0 0 255 255 halved by the triangle filter of support 2: with weights 3 3 1 / 7 at the left edge the
    # first pixel is (0*3 + 0*3 + 255*1) / 7 = 36.4 -> 36, the other is its mirror image, 255 - 36.4 = 218.6 -> 219.
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 2:] = 255
    Image.fromarray(pixels).save(tmp_path / "step.png")
    assert decode.read_image(tmp_path / "step.png", resized(4, 2))[:, :, 0].tolist() == [[36, 219]] * 4
    assert decode.read_image(tmp_path / "step.png", resized(4, 4)).tolist() == pixels.tolist()


def test_reading_brings_every_mode_to_rgb(tmp_path):
    grey16 = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    Image.fromarray(grey16).save(tmp_path / "grey16.png")
    assert decode.read_image(tmp_path / "grey16.png", resized(2, 2))[:, :, 1].tolist() == [[0, 100], [200, 255]]
    for mode in ("L", "LA", "P", "RGBA", "1"):
        Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(tmp_path / f"{mode}.png")
        assert decode.read_image(tmp_path / f"{mode}.png", resized(2, 3)).tolist() == [[[255] * 3] * 3] * 2
    Image.new("CMYK", (8, 8)).save(tmp_path / "cmyk.jpg")
    assert decode.read_image(tmp_path / "cmyk.jpg", resized(8, 8)).shape == (8, 8, 3)


def test_reading_applies_exif_rotation(tmp_path):
    pixels = np.zeros((1, 2, 3), np.uint8)
    pixels[0, 0] = 255  # white left, black right
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for display: white on top
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert decode.read_image(tmp_path / "turned.png", resized(2, 1))[:, 0, 0].tolist() == [255, 0]


def test_floating_point_pixels_are_refused_not_blackened(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(decode.UnreadableImageError, match="floating-point pixels"):
        decode.read_image(tmp_path / "float.tiff", resized(4, 4))


def test_a_decompression_bomb_is_a_bad_file(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(decode.UnreadableImageError, match="exceeds limit"):
        decode.read_image(tmp_path / "big.png", resized(8, 8))


def test_reading_grey_and_cropping(tmp_path):
    # Luma of pure red, green, blue: round(255 * 0.299, 0.587, 0.114) = 76, 150, 29 (ITU-R BT.601).
    pixels = np.zeros((3, 5, 3), np.uint8)
    pixels[1, 1, 0] = pixels[1, 2, 1] = pixels[1, 3, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    middle = decode.Reading((Transform(center_crop=[3, 1]),), channels=1)
    assert middle.size == (1, 3)
    assert decode.read_image(tmp_path / "rgb.png", middle).tolist() == [[[76], [150], [29]]]
    with pytest.raises(decode.UnreadableImageError, match="5 x 3 pixels, center_crop needs 3 x 4"):
        decode.read_image(tmp_path / "rgb.png", decode.Reading((Transform(center_crop=[3, 4]),)))
    assert decode.read_image(tmp_path / "rgb.png", decode.Reading()).tolist() == pixels.tolist()
    assert decode.Reading().size is None


def test_masks_keep_their_integers(tmp_path):
    values = np.array([[0, 7], [3, 200]], np.uint8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    palette = Image.fromarray(values).convert("P")
    palette.putdata([int(v) for v in values.flat])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(np.stack([values] * 3, axis=2)).save(tmp_path / "rgb.png")
    reading = decode.Reading((Transform(resize=[4, 4]),), channels=1, is_mask=True)
    for name in ("grey", "palette", "rgb"):
        found = decode.read_image(tmp_path / f"{name}.png", reading)[..., 0]
        assert found.tolist() == np.kron(values, np.ones((2, 2), int)).tolist()  # nearest, nothing in between
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "colour.png")
    with pytest.raises(decode.UnreadableImageError, match="a mask needs one channel of 8-bit integers"):
        decode.read_image(tmp_path / "colour.png", reading)
    with pytest.raises(decode.UnreadableImageError, match="the value 200 is no class: there are 8"):
        decode.read_image(tmp_path / "grey.png", decode.Reading(channels=1, is_mask=True, classes=8))
