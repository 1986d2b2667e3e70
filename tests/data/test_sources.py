"""Listings, decoding, bad files."""

import numpy as np
import pytest
from conftest import write_images
from PIL import Image

from tfinpaint.config_transforms import Transform
from tfinpaint.data import sources
from tfinpaint.errors import UserError


def resized(height: int, width: int) -> sources.Reading:
    return sources.Reading((Transform(resize=[width, height]),))


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
    assert sources.read_image(tmp_path / "step.png", resized(4, 2))[:, :, 0].tolist() == [[36, 219]] * 4
    assert sources.read_image(tmp_path / "step.png", resized(4, 4)).tolist() == pixels.tolist()


def test_reading_brings_every_mode_to_rgb(tmp_path):
    grey16 = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    Image.fromarray(grey16).save(tmp_path / "grey16.png")
    assert sources.read_image(tmp_path / "grey16.png", resized(2, 2))[:, :, 1].tolist() == [[0, 100], [200, 255]]
    for mode in ("L", "LA", "P", "RGBA", "1"):
        Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(tmp_path / f"{mode}.png")
        assert sources.read_image(tmp_path / f"{mode}.png", resized(2, 3)).tolist() == [[[255] * 3] * 3] * 2
    Image.new("CMYK", (8, 8)).save(tmp_path / "cmyk.jpg")
    assert sources.read_image(tmp_path / "cmyk.jpg", resized(8, 8)).shape == (8, 8, 3)


def test_reading_applies_exif_rotation(tmp_path):
    pixels = np.zeros((1, 2, 3), np.uint8)
    pixels[0, 0] = 255  # white left, black right
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for display: white on top
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert sources.read_image(tmp_path / "turned.png", resized(2, 1))[:, 0, 0].tolist() == [255, 0]


def test_bad_files_are_found_with_a_reason(tmp_path):
    root = write_images(tmp_path / "x", {"a": 2, "b": 1})
    whole = (root / "a" / "000.png").read_bytes()
    (root / "a" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (root / "a" / "empty.jpg").write_bytes(b"")
    (root / "b" / "text.jpg").write_text("not an image")
    listing = sources.list_class_folders(root)
    bad = sources.find_unreadable(listing, range(len(listing)), resized(32, 32))
    assert {listing.paths[i] for i in bad} == {"a/truncated.png", "a/empty.jpg", "b/text.jpg"}
    assert all(bad.values())


def test_floating_point_pixels_are_refused_not_blackened(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(sources.UnreadableImageError, match="floating-point pixels"):
        sources.read_image(tmp_path / "float.tiff", resized(4, 4))


def test_a_decompression_bomb_is_a_bad_file(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(sources.UnreadableImageError, match="exceeds limit"):
        sources.read_image(tmp_path / "big.png", resized(8, 8))


def test_reading_grey_and_cropping(tmp_path):
    # Luma of pure red, green, blue: round(255 * 0.299, 0.587, 0.114) = 76, 150, 29 (ITU-R BT.601).
    pixels = np.zeros((3, 5, 3), np.uint8)
    pixels[1, 1, 0] = pixels[1, 2, 1] = pixels[1, 3, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    middle = sources.Reading((Transform(center_crop=[3, 1]),), channels=1)
    assert middle.size == (1, 3)
    assert sources.read_image(tmp_path / "rgb.png", middle).tolist() == [[[76], [150], [29]]]
    with pytest.raises(sources.UnreadableImageError, match="5 x 3 pixels, center_crop needs 3 x 4"):
        sources.read_image(tmp_path / "rgb.png", sources.Reading((Transform(center_crop=[3, 4]),)))
    assert sources.read_image(tmp_path / "rgb.png", sources.Reading()).tolist() == pixels.tolist()
    assert sources.Reading().size is None


def test_masks_keep_their_integers(tmp_path):
    values = np.array([[0, 7], [3, 200]], np.uint8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    palette = Image.fromarray(values).convert("P")
    palette.putdata([int(v) for v in values.flat])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(np.stack([values] * 3, axis=2)).save(tmp_path / "rgb.png")
    reading = sources.Reading((Transform(resize=[4, 4]),), channels=1, is_mask=True)
    for name in ("grey", "palette", "rgb"):
        found = sources.read_image(tmp_path / f"{name}.png", reading)[..., 0]
        assert found.tolist() == np.kron(values, np.ones((2, 2), int)).tolist()  # nearest, nothing in between
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "colour.png")
    with pytest.raises(sources.UnreadableImageError, match="a mask needs one channel of 8-bit integers"):
        sources.read_image(tmp_path / "colour.png", reading)
    with pytest.raises(sources.UnreadableImageError, match="the value 200 is no class: there are 8"):
        sources.read_image(tmp_path / "grey.png", sources.Reading(channels=1, is_mask=True, classes=8))


def test_pairs_are_matched_by_name_in_the_inputs_order(tmp_path):
    inputs = sources.list_images(write_images(tmp_path / "x", {"a": 3, "b": 2}))
    write_images(tmp_path / "y", {"a": 3, "b": 4})  # more targets than inputs do no harm
    (tmp_path / "y" / "a" / "001.png").rename(tmp_path / "y" / "a" / "001.tiff")
    pairs = sources.pair_by_name(inputs, tmp_path / "y")
    assert pairs.paths == ("a/000.png", "a/001.tiff", "a/002.png", "b/000.png", "b/001.png")
    (tmp_path / "y" / "b" / "001.png").unlink()
    with pytest.raises(UserError, match=r"(?s)no image of the same name for 1 of .*/x:.b/001\.png$"):
        sources.pair_by_name(inputs, tmp_path / "y")
    write_images(tmp_path / "y", {"b": 2})
    (tmp_path / "y" / "b" / "001.gif").write_bytes(b"")
    assert sources.pair_by_name(inputs, tmp_path / "y").paths[-1] == "b/001.png"  # the very same name comes first
    (tmp_path / "y" / "b" / "001.png").rename(tmp_path / "y" / "b" / "001.bmp")
    with pytest.raises(UserError, match=r"(?s)1 names that differ in nothing but the ending:.b/001.bmp and b/001.gif$"):
        sources.pair_by_name(inputs, tmp_path / "y")


def test_a_tag_tells_where_the_class_name_is(tmp_path):
    write_images(tmp_path / "set" / "one" / "training", {"cat": 2, "dog": 1})
    write_images(tmp_path / "set" / "two" / "training", {"cat": 1})
    write_images(tmp_path / "set" / "two", {"other": 1})
    listing = sources.list_class_folders(tmp_path / "set", tag="training")
    assert listing.classes == ("cat", "dog")
    assert listing.paths == (
        "one/training/cat/000.png", "one/training/cat/001.png", "one/training/dog/000.png", "two/training/cat/000.png",
    )  # fmt: skip
    assert listing.labels == (0, 0, 1, 0)
    assert listing.stray == ("two/other/000.png",)
    assert sources.list_class_folders(tmp_path / "set" / "one" / "training", tag="training").labels == (0, 0, 1)
    with pytest.raises(UserError, match="no image lies in a folder below one named 'testing'"):
        sources.list_class_folders(tmp_path / "set", tag="testing")
