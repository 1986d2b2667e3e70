"""Photos of every kind of pixels that `predict` restores: modes, palettes, 16 bits, grey, several in a file."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from restorations import deep, noise, pixels_of, read_deep, refuse, succeed, write_deep, write_mask


def odd_images(folder: Path) -> dict[str, Path]:
    """Photos of odd kinds, by name, all 40 wide and 70 high as displayed."""
    palette = Image.fromarray(noise(70, 40)).quantize(16)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # turn by a quarter to the right for display
    images = {
        "rgba.png": (Image.fromarray(noise(70, 40, 4)), {}),
        "palette.png": (palette, {"transparency": 3}),
        "grey_alpha.png": (Image.fromarray(noise(70, 40, 4)).convert("LA"), {}),
        "deep.png": (Image.fromarray(noise(70, 40, 1).astype(np.uint16) * 257), {}),
        "cmyk.jpg": (Image.fromarray(noise(70, 40)).convert("CMYK"), {}),
        "grey.jpg": (Image.fromarray(noise(70, 40, 1)), {}),
        "bilevel.png": (Image.fromarray(noise(70, 40, 1) > 127), {}),
        "rotated.jpg": (Image.fromarray(noise(40, 70)), {"exif": rotated}),
    }
    for name, (image, options) in images.items():
        image.save(folder / name, **options)
    return {name: folder / name for name in images}


@pytest.mark.parametrize(
    "name",
    ["rgba.png", "palette.png", "grey_alpha.png", "deep.png", "cmyk.jpg", "grey.jpg", "bilevel.png", "rotated.jpg"],
)
def test_odd_photos(capsys, tmp_path, small_inpainter, name):
    photo = odd_images(tmp_path)[name]
    hole = write_mask(tmp_path / "mask.png", 70, 40, (50, 2, 60, 30))
    ending = ".tif" if name == "cmyk.jpg" else ".png"
    shown = succeed(capsys, small_inpainter, photo, tmp_path / "mask.png", "--output", tmp_path / f"out{ending}")
    assert "(40 x 70)" in shown
    assert "dropped" not in shown
    assert " become" not in shown
    with Image.open(photo) as file, Image.open(tmp_path / f"out{ending}") as image:
        upright = ImageOps.exif_transpose(file)
        assert image.mode == file.mode
        before, after = np.asarray(upright), np.asarray(image)
        assert np.array_equal(np.asarray(image.convert("RGBA"))[~hole], np.asarray(upright.convert("RGBA"))[~hole])
        if upright.has_transparency_data:
            assert np.array_equal(*(np.asarray(each.convert("RGBA"))[..., 3] for each in (image, upright)))
        assert image.getexif().get(0x0112, 1) == 1  # what was turned is not turned again
    assert (after.dtype, after.shape) == (before.dtype, before.shape)
    assert np.array_equal(after[~hole], before[~hole])
    assert not np.array_equal(after[hole], before[hole])


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize(
    ("name", "channels", "options"),
    [
        ("grey.png", 1, {}),
        ("grey_alpha.png", 2, {}),
        ("rgb.png", 3, {}),
        ("rgba.png", 4, {}),
        ("grey.tif", 1, {"byteorder": ">"}),
        ("rgb.tif", 3, {}),
        ("big_endian.tif", 3, {"byteorder": ">"}),
        ("rgba.tif", 4, {"compression": "zlib", "predictor": True}),
        ("tiles.tif", 3, {"compression": "zlib", "tile": (16, 16), "byteorder": ">"}),
    ],
)
def test_sixteen_bits_stay_sixteen(capsys, tmp_path, small_inpainter, name, channels, options, ending):
    photo, output = deep(channels), tmp_path / f"out{ending}"
    write_deep(tmp_path / name, photo, **options)
    hole = write_mask(tmp_path / "mask.png", 70, 40, (50, 2, 60, 30))
    shown = succeed(capsys, small_inpainter, tmp_path / name, tmp_path / "mask.png", "--output", output)
    if (channels, ending) == (2, ".tif"):
        assert "TIFF holds 8 bits per channel, grey_alpha.png has 16: they are rounded; name a .png" in shown
        restored, photo = pixels_of(output), np.rint(photo / 257).astype(np.uint8)
    else:
        assert "become" not in shown
        restored = read_deep(output)
    assert (restored.dtype, restored.shape) == (photo.dtype, photo.shape)
    assert np.array_equal(restored[~hole], photo[~hole])
    if channels in (2, 4):
        assert np.array_equal(restored[..., -1], photo[..., -1])
    assert restored.dtype == np.uint8 or len(np.unique(restored[hole] % 257)) > 20  # and not 8 bits made 16


def test_what_is_restored_is_the_same_in_either_depth(capsys, tmp_path, small_inpainter):
    photo = noise(40, 50)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    write_deep(tmp_path / "deep.png", photo.astype(np.uint16) * 257)
    hole = write_mask(tmp_path / "mask.png", 40, 50, (10, 10, 26, 30))
    for name in ("photo", "deep"):
        succeed(capsys, small_inpainter, tmp_path / f"{name}.png", tmp_path / "mask.png")
    shallow, fine = pixels_of(tmp_path / "photo_restored.png"), read_deep(tmp_path / "deep_restored.png")
    assert np.abs(fine / 257.0 - shallow)[hole].max() < 0.51


def test_separate_planes_of_sixteen_bits_are_refused(capsys, tmp_path, small_inpainter):
    write_mask(tmp_path / "mask.png", 70, 40)
    planes = np.moveaxis(deep(3), 2, 0)
    tifffile.imwrite(tmp_path / "photo.tif", planes, photometric="rgb", planarconfig="separate")
    assert f"{tmp_path}/photo.tif: unsupported: 16-bit channels in separate planes; save it with interleaved" in refuse(
        capsys, small_inpainter, tmp_path / "photo.tif", tmp_path / "mask.png"
    )


def test_a_palette_and_a_bilevel_photo_restore_with_what_they_have(capsys, tmp_path, small_inpainter):
    colours = Image.fromarray(noise(70, 40)).quantize(16)
    colours.save(tmp_path / "palette.png", transparency=3)
    (Image.fromarray(noise(70, 40, 1)).convert("1")).save(tmp_path / "bilevel.png")
    hole = write_mask(tmp_path / "mask.png", 70, 40, (50, 2, 60, 30))
    for name, words in (
        ("palette", "have the nearest of the 16 colours of the photo's palette"),
        ("bilevel", "are black or white"),
    ):
        assert words in succeed(capsys, small_inpainter, tmp_path / f"{name}.png", tmp_path / "mask.png")
        before, after = pixels_of(tmp_path / f"{name}.png"), pixels_of(tmp_path / f"{name}_restored.png")
        assert np.array_equal(after[~hole], before[~hole])
        if name == "palette":
            assert np.array_equal(after == 3, before == 3)  # what is transparent stays so, and nothing becomes so


def test_cmyk_becomes_rgb_where_the_format_has_none(capsys, tmp_path, small_inpainter):
    Image.fromarray(noise(40, 50)).convert("CMYK").save(tmp_path / "photo.tif")
    hole = write_mask(tmp_path / "mask.png", 40, 50)
    shown = succeed(capsys, small_inpainter, tmp_path / "photo.tif", tmp_path / "mask.png")
    assert "The CMYK colours of photo.tif are converted to RGB: PNG holds no CMYK; name a .tif to keep them\n" in shown
    assert np.array_equal(pixels_of(tmp_path / "photo_restored.png")[~hole], noise(40, 50)[~hole])


@pytest.mark.parametrize("size", [(1, 2), (2, 1), (1, 90), (90, 1)])
def test_the_smallest_photos(capsys, tmp_path, small_inpainter, size):
    Image.fromarray(noise(*size)).save(tmp_path / "photo.png")
    hole = write_mask(tmp_path / "mask.png", *size, (0, 0, 1, 1))
    succeed(capsys, small_inpainter, tmp_path / "photo.png", tmp_path / "mask.png")
    restored = pixels_of(tmp_path / "photo_restored.png")
    assert np.array_equal(restored[~hole], noise(*size)[~hole])


@pytest.mark.parametrize(
    ("name", "options"),
    [("photo.gif", {}), ("photo.png", {}), ("photo.webp", {"lossless": True}), ("photo.tif", {})],
)
def test_of_several_images_in_a_file_the_first_is_restored(capsys, tmp_path, small_inpainter, name, options):
    first, second = (Image.fromarray(noise(40, 50)).rotate(angle).quantize(64).convert("RGB") for angle in (0, 180))
    first.save(tmp_path / name, save_all=True, append_images=[second], **options)
    first.save(tmp_path / "alone.png")
    hole = write_mask(tmp_path / "mask.png", 40, 50, (10, 10, 20, 20))
    output = tmp_path / "out.png"
    shown = succeed(capsys, small_inpainter, tmp_path / name, tmp_path / "mask.png", "--output", output)
    assert f"Only the first image of {name} was restored, because it holds several\n" in shown
    with Image.open(output) as image:
        assert np.array_equal(np.asarray(image.convert("RGB"))[~hole], np.asarray(first)[~hole])
    assert "Only" not in succeed(capsys, small_inpainter, tmp_path / "alone.png", tmp_path / "mask.png")


def test_a_grey_photo_stays_grey(capsys, tmp_path, small_inpainter):
    photo = np.repeat(noise(40, 50, 1)[..., None], 3, axis=2)
    hole = write_mask(tmp_path / "mask.png", 40, 50, (10, 10, 26, 30))
    photo[15, 15] = (255, 0, 0)  # what the hole hides does not count
    output = tmp_path / "photo_restored.png"
    for kind in ("grey", "nearly grey"):
        Image.fromarray(photo).save(tmp_path / "photo.png")
        succeed(capsys, small_inpainter, tmp_path / "photo.png", tmp_path / "mask.png", "--overwrite")
        restored = pixels_of(output)
        assert np.array_equal(restored[~hole], photo[~hole])
        assert (np.ptp(restored[hole], axis=1) > 0).any() == (kind == "nearly grey")
        photo[0, 0] = (1, 2, 3)
