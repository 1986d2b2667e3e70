"""The pixels of decoded images: every mode to RGB, rotation, resizing, masks, the first of several pictures."""

import struct
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from readings import reason, resized

from tfinpaint.config.transforms import Transform
from tfinpaint.data.images import decode
from tfinpaint.data.images.decode import CHECK_OPTIONS, DecodeOptions, inspect_image
from tfinpaint.data.images.unreadable import UnreadableImageError


def test_reading_resizes_with_antialiasing_to_golden_pixels(tmp_path):
    # Columns 0 0 255 255 halved by the triangle filter of support 2: with weights 3 3 1 / 7 at the left edge the
    # first pixel is (0*3 + 0*3 + 255*1) / 7 = 36.4 -> 36, the other is its mirror image, 255 - 36.4 = 218.6 -> 219.
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 2:] = 255
    Image.fromarray(pixels).save(tmp_path / "step.png")
    assert decode.read_image(tmp_path / "step.png", resized(4, 2))[:, :, 0].tolist() == [[36, 219]] * 4
    assert decode.read_image(tmp_path / "step.png", resized(4, 4)).tolist() == pixels.tolist()


def test_a_large_jpeg_is_decoded_smaller_unless_that_is_turned_off(tmp_path):
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (32, 48, 3), np.uint8))
    coarse.resize((768, 512), Image.Resampling.BICUBIC).save(tmp_path / "x.jpg", quality=90)
    # the width that is wanted -> the size that is decoded
    sizes = {96: (192, 128), 129: (384, 256), 200: (384, 256), 400: (768, 512)}
    for width, size in sizes.items():
        step = Transform(resize=[width, width * 2 // 3])
        with Image.open(tmp_path / "x.jpg") as file:
            whole = np.asarray(file.convert("RGB").resize(step.resize, Image.Resampling.BILINEAR))
        with Image.open(tmp_path / "x.jpg") as file:
            file.draft("RGB", size)
            assert file.size == size
            scaled = np.asarray(file.resize(step.resize, Image.Resampling.BILINEAR))
        assert np.array_equal(decode.read_image(tmp_path / "x.jpg", DecodeOptions((step,))), scaled)
        off = DecodeOptions((step,), jpeg_scaling=False)
        assert np.array_equal(decode.read_image(tmp_path / "x.jpg", off), whole)
        difference = np.abs(scaled.astype(int) - whole)
        assert difference.mean() < 2  # of 255
        assert (difference.max() == 0) == (width == 400)  # it is not large enough to be decoded smaller


def test_a_jpeg_that_is_turned_is_decoded_large_enough_for_both_of_its_sides(tmp_path):
    generator, exif = np.random.default_rng(0), Image.Exif()
    exif[0x0112] = 6  # 1024 x 256 pixels in the file, 256 x 1024 for display
    Image.fromarray(generator.integers(0, 256, (16, 64, 3), np.uint8)).resize((1024, 256)).save(
        tmp_path / "turned.jpg", quality=95, exif=exif
    )
    for size in ([32, 128], [128, 32]):  # at 1/4; and whole, because a quarter of 256 is less than 1.5 * 128
        scaled, whole = (
            decode.read_image(tmp_path / "turned.jpg", DecodeOptions((Transform(resize=size),), jpeg_scaling=scaling))
            for scaling in (True, False)
        )
        difference = np.abs(scaled.astype(int) - whole)
        assert difference.mean() < 2  # of 255
        assert (difference.max() == 0) == (size == [128, 32])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_whose_size_is_no_multiple_is_not_shifted_by_decoding_it_smaller(tmp_path, orientation):
    # At 1/8, 521 x 361 pixels become 66 x 46, of which the photo covers 65.125 x 45.125. Resizing all of them changes
    # this photo by 14 of 255; resizing a part of that size at the wrong corner, by 9 or more.
    across, down = np.arange(521) / 521, np.arange(361)[:, None] / 361
    pixels = np.stack([0.5 + 0.25 * (np.cos(9 * across + c) + np.cos(7 * down + c)) for c in range(3)], axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = Image.fromarray(np.rint(255 * pixels).astype(np.uint8))
    photo.save(tmp_path / "x.jpg", quality=100, subsampling=0, exif=exif)
    for channels, steps in ((3, []), (1, []), (3, [{"center_crop": [20, 24]}])):
        reading = DecodeOptions(tuple(Transform(**step) for step in ({"resize": [24, 30]}, *steps)), channels)
        scaled, whole = (
            decode.read_image(tmp_path / "x.jpg", replace(reading, jpeg_scaling=scaling)).astype(int)
            for scaling in (True, False)
        )
        assert 0 < np.abs(scaled - whole).max() <= 4  # of 255


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


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey_tiff_files_are_no_negatives_whichever_value_is_white(tmp_path, photometric, depth):
    stored = (np.array([[0, 64], [128, 255]]) * (np.iinfo(depth).max // 255)).astype(depth)
    tifffile.imwrite(tmp_path / "grey.tif", stored, photometric=photometric)
    grey = decode.read_image(tmp_path / "grey.tif", DecodeOptions(channels=1))[..., 0].tolist()
    assert grey == ([[0, 64], [128, 255]] if photometric == "minisblack" else [[255, 191], [127, 0]])


def test_planes_of_sixteen_bits_are_refused_not_misread(tmp_path):
    planes = np.arange(3 * 8 * 8, dtype=np.uint16).reshape(3, 8, 8) * 300
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(UnreadableImageError, match=r"^unsupported: 16-bit channels in separate planes; save it"):
        decode.read_image(tmp_path / "planes.tif", DecodeOptions())
    tifffile.imwrite(tmp_path / "planes.tif", planes.astype(np.uint8), photometric="rgb", planarconfig="separate")
    assert np.array_equal(decode.read_image(tmp_path / "planes.tif", DecodeOptions()).transpose(2, 0, 1), planes % 256)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_grey_is_shrunk_before_it_becomes_rgb_and_the_pixels_are_the_same(tmp_path, mode, channels):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 4), np.uint8))
    (noise if mode in ("LA", "RGBA") else noise.convert("RGB")).convert(mode).save(tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as image:
        whole = image.convert("RGB").convert("L" if channels == 1 else "RGB")
    expected = np.asarray(whole.resize((11, 13), Image.Resampling.BILINEAR)).reshape(13, 11, channels)
    reading = DecodeOptions((Transform(resize=[11, 13]),), channels)
    assert decode.read_image(tmp_path / "x.tif", reading).tolist() == expected.tolist()
    unresized = decode.read_image(tmp_path / "x.tif", DecodeOptions(channels=channels))
    assert unresized.tolist() == np.asarray(whole).reshape(37, 53, channels).tolist()


def test_an_image_under_another_images_ending_is_read_as_what_it_is(tmp_path):
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "x.jpg", "PNG")
    assert decode.read_image(tmp_path / "x.jpg", resized(8, 8)).tolist() == [[[1, 2, 3]] * 8] * 8


def test_binary_pnm_files_are_read_and_16_bits_are_scaled(tmp_path):
    (tmp_path / "x.ppm").write_bytes(b"P6 # by hand\n# two lines\n2 1\n255\n" + bytes([1, 2, 3, 4, 5, 6]))
    assert decode.read_image(tmp_path / "x.ppm", DecodeOptions()).tolist() == [[[1, 2, 3], [4, 5, 6]]]
    (tmp_path / "x.pgm").write_bytes(b"P5\n2 1\n65535\n" + struct.pack(">HH", 257 * 100, 65535))
    assert decode.read_image(tmp_path / "x.pgm", DecodeOptions(channels=1)).tolist() == [[[100], [255]]]
    (tmp_path / "x.pbm").write_bytes(b"P4\n2 1\n\x40")  # a one is black
    assert decode.read_image(tmp_path / "x.pbm", DecodeOptions(channels=1)).tolist() == [[[255], [0]]]
    (tmp_path / "x.ppm").write_bytes(b"P6\n40 40\n255\n" + bytes(90))
    assert reason(tmp_path / "x.ppm").startswith("truncated")


def test_reading_grey_and_cropping(tmp_path):
    # Luma of pure red, green, blue: round(255 * 0.299, 0.587, 0.114) = 76, 150, 29 (ITU-R BT.601).
    pixels = np.zeros((3, 5, 3), np.uint8)
    pixels[1, 1, 0] = pixels[1, 2, 1] = pixels[1, 3, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    middle = DecodeOptions((Transform(center_crop=[3, 1]),), channels=1)
    assert middle.size == (1, 3)
    assert decode.read_image(tmp_path / "rgb.png", middle).tolist() == [[[76], [150], [29]]]
    with pytest.raises(UnreadableImageError, match="5 x 3 pixels, center_crop needs 3 x 4"):
        decode.read_image(tmp_path / "rgb.png", DecodeOptions((Transform(center_crop=[3, 4]),)))
    assert decode.read_image(tmp_path / "rgb.png", DecodeOptions()).tolist() == pixels.tolist()
    assert DecodeOptions().size is None


def test_masks_keep_their_integers(tmp_path):
    values = np.array([[0, 7], [3, 200]], np.uint8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    palette = Image.fromarray(values).convert("P")
    palette.putdata([int(v) for v in values.flat])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(np.stack([values] * 3, axis=2)).save(tmp_path / "rgb.png")
    reading = DecodeOptions((Transform(resize=[4, 4]),), channels=1, is_label_map=True)
    for name in ("grey", "palette", "rgb"):
        found = decode.read_image(tmp_path / f"{name}.png", reading)[..., 0]
        assert found.tolist() == np.kron(values, np.ones((2, 2), int)).tolist()  # nearest, nothing in between
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "colour.png")
    with pytest.raises(UnreadableImageError, match="a label map needs one channel of 8-bit integers"):
        decode.read_image(tmp_path / "colour.png", reading)
    with pytest.raises(UnreadableImageError, match="the value 200 is not a class; expected 0 to 7"):
        decode.read_image(tmp_path / "grey.png", DecodeOptions(channels=1, is_label_map=True, classes=8))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_pictures_the_first_is_taken_and_that_is_told(tmp_path, kind):
    first, *rest = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    first.save(
        tmp_path / "x", kind, save_all=True, append_images=rest, **({"lossless": True} if kind == "WEBP" else {})
    )
    assert inspect_image(tmp_path / "x", CHECK_OPTIONS).has_more
    assert decode.read_image(tmp_path / "x", DecodeOptions())[0, 0].tolist() == [255, 0, 0]
    first.save(tmp_path / "x", kind)
    assert not inspect_image(tmp_path / "x", CHECK_OPTIONS).has_more


def test_what_cameras_put_beside_a_photo_is_no_further_picture_and_no_label_map(tmp_path):
    photo = Image.new("RGB", (8, 8), (200, 10, 10))
    photo.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert not inspect_image(tmp_path / "x.jpg", CHECK_OPTIONS).has_more
    assert reason(tmp_path / "x.jpg", DecodeOptions(channels=1, is_label_map=True)).startswith(
        "label maps must be lossless"
    )


def test_a_thumbnail_is_of_the_whole_image_whatever_is_cut_from_it(tmp_path):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 32:] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    readings = [(), [{"center_crop": [8, 8]}], [{"resize": [64, 64]}, {"center_crop": [8, 8]}], [{"resize": [32, 32]}]]
    for steps in readings:
        reading = DecodeOptions(tuple(Transform(**step) for step in steps))
        thumbnail = inspect_image(tmp_path / "x.png", reading).thumbnail
        assert thumbnail[:, 14].tolist() + thumbnail[:, 17].tolist() == [0] * 32 + [255] * 32


def test_columns_are_resized_before_rows_whatever_the_version_of_pillow(tmp_path):
    # A high image, of which some versions of Pillow resize the rows first, which rounds in another way.
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "high.png")
    between = image.resize((16, 40), Image.Resampling.BILINEAR)
    expected = np.asarray(between.resize((16, 20), Image.Resampling.BILINEAR))
    assert np.array_equal(decode.read_image(tmp_path / "high.png", resized(20, 16)), expected)
