"""Listings, decoding, bad files."""

import numpy as np
import pytest
from conftest import write_images
from PIL import Image

from tfinpaint.data import sources
from tfinpaint.errors import UserError


def test_class_folders_are_listed_in_order_and_strays_counted(images):
    (images / "training" / "cold" / "Thumbs.db").write_bytes(b"x")
    (images / "training" / ".hidden").mkdir()
    listing = sources.list_class_folders(images / "training")
    assert listing.classes == ("cold", "warm")
    assert listing.paths == tuple(sorted(listing.paths))
    assert [listing.labels.count(i) for i in (0, 1)] == [13, 11]
    assert listing.stray == ("cold/Thumbs.db",)
    assert sources.list_images(images / "training").paths == listing.paths


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": 3, "b": 0}, r"class folder without images: b"),
        ({"a": 3}, r"at least two class folders, found 1 \(a\)"),
        ({}, r"at least two class folders, found 0"),
    ],
)
def test_folders_that_cannot_be_classified(tmp_path, counts, message):
    tmp_path.joinpath("x").mkdir()
    with pytest.raises(UserError, match=message):
        sources.list_class_folders(write_images(tmp_path / "x", counts))


def test_missing_folder_unknown_class_and_no_images(images, tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        sources.list_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match="class warm is not among the training classes: cold"):
        sources.list_class_folders(images / "testing", classes=("cold",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no images found; expected files ending in .*\.jpg"):
        sources.list_images(tmp_path / "empty")


def test_fraction_is_stratified_nested_and_seeded(images):
    listing = sources.list_class_folders(images / "training")
    half = sources.take_fraction(listing, 0.5, seed=0)
    assert [half.labels.count(i) for i in (0, 1)] == [6, 6]  # round(13 / 2) = 6 (to even), round(11 / 2) = 6
    assert set(sources.take_fraction(listing, 0.2, seed=0).paths) < set(half.paths)
    assert sources.take_fraction(listing, 0.5, seed=1).paths != half.paths
    assert sources.take_fraction(listing, 1.0, seed=0) is listing


def test_reading_resizes_with_antialiasing_to_golden_pixels(tmp_path):
    # Columns 0 0 255 255 halved by the triangle filter of support 2: with weights 3 3 1 / 7 at the left edge the
    # first pixel is (0*3 + 0*3 + 255*1) / 7 = 36.4 -> 36, the other is its mirror image, 255 - 36.4 = 218.6 -> 219.
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 2:] = 255
    Image.fromarray(pixels).save(tmp_path / "step.png")
    assert sources.read_image(tmp_path / "step.png", 4, 2)[:, :, 0].tolist() == [[36, 219]] * 4
    assert sources.read_image(tmp_path / "step.png", 4, 4).tolist() == pixels.tolist()


def test_reading_brings_every_mode_to_rgb(tmp_path):
    grey16 = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    Image.fromarray(grey16).save(tmp_path / "grey16.png")
    assert sources.read_image(tmp_path / "grey16.png", 2, 2)[:, :, 1].tolist() == [[0, 100], [200, 255]]
    for mode in ("L", "LA", "P", "RGBA", "1"):
        Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(tmp_path / f"{mode}.png")
        assert sources.read_image(tmp_path / f"{mode}.png", 2, 3).tolist() == [[[255] * 3] * 3] * 2
    Image.new("CMYK", (8, 8)).save(tmp_path / "cmyk.jpg")
    assert sources.read_image(tmp_path / "cmyk.jpg", 8, 8).shape == (8, 8, 3)


def test_reading_applies_exif_rotation(tmp_path):
    pixels = np.zeros((1, 2, 3), np.uint8)
    pixels[0, 0] = 255  # white left, black right
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for display: white on top
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert sources.read_image(tmp_path / "turned.png", 2, 1)[:, 0, 0].tolist() == [255, 0]


def test_bad_files_are_found_with_a_reason(tmp_path):
    root = write_images(tmp_path / "x", {"a": 2, "b": 1})
    whole = (root / "a" / "000.png").read_bytes()
    (root / "a" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (root / "a" / "empty.jpg").write_bytes(b"")
    (root / "b" / "text.jpg").write_text("not an image")
    listing = sources.list_class_folders(root)
    bad = sources.find_unreadable(listing, range(len(listing)), 32, 32)
    assert {listing.paths[i] for i in bad} == {"a/truncated.png", "a/empty.jpg", "b/text.jpg"}
    assert all(bad.values())


def test_floating_point_pixels_are_refused_not_blackened(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(sources.UnreadableImageError, match="floating-point pixels"):
        sources.read_image(tmp_path / "float.tiff", 4, 4)


def test_a_decompression_bomb_is_a_bad_file(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(sources.UnreadableImageError, match="exceeds limit"):
        sources.read_image(tmp_path / "big.png", 8, 8)
