"""What each format of a restored photo keeps: pixels, depth, transparency, EXIF data, resolution and profile."""

import numpy as np
import pytest
from PIL import Image, ImageCms
from restorations import deep, noise, pixels_of, succeed, write_deep, write_mask

from tfinpaint.inpainting import photo as photos
from tfinpaint.inpainting import photo_output


@pytest.mark.parametrize(("ending", "kind"), [(".jpg", "JPEG"), (".webp", "WEBP"), (".bmp", "BMP")])
def test_formats_of_eight_bits_say_so(capsys, tmp_path, small_inpainter, ending, kind):
    write_deep(tmp_path / "photo.png", deep(3))
    hole = write_mask(tmp_path / "mask.png", 70, 40)
    output = tmp_path / f"out{ending}"
    shown = succeed(capsys, small_inpainter, tmp_path / "photo.png", tmp_path / "mask.png", "--output", output)
    assert f"{kind} holds 8 bits per channel, photo.png has 16: they are rounded; name a .png to keep them\n" in shown
    assert ("JPEG changes all pixels a little" in shown) == (kind == "JPEG")
    if kind != "JPEG":
        assert np.array_equal(pixels_of(output)[~hole], np.rint(deep(3) / 257)[~hole])


@pytest.mark.parametrize(
    ("name", "ending"),
    [("photo.jpg", ".png"), ("photo.png", ".jpg"), ("photo.tif", ".png"), ("photo.jpg", ".tif"), ("deep.png", ".png")],
)
def test_exif_resolution_and_profile_are_kept(capsys, tmp_path, small_inpainter, name, ending):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x013B] = 6, "Maker", "Artist"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8769)[0x927C] = b"a preview of what was erased"
    exif.get_ifd(0x8769)[0x829A] = 0.01
    options = {"icc_profile": profile, "exif": exif, "dpi": (300, 300)}
    if name == "deep.png":  # by our own writer, which the other cases do not use
        exif[0x0112] = 1
        photo_output.write_photo(
            tmp_path / name, photos.Photo(deep(3), "RGB", None, profile, exif.tobytes(), (300, 300)), name
        )
    else:
        Image.fromarray(noise(40, 70)).save(tmp_path / name, **options)
    write_mask(tmp_path / "mask.png", 70, 40)
    output = tmp_path / f"out{ending}"
    shown = succeed(capsys, small_inpainter, tmp_path / name, tmp_path / "mask.png", "--output", output)
    assert "dropped" not in shown
    with Image.open(output) as image:
        assert image.size == (40, 70)
        assert image.info["icc_profile"] == profile
        assert [round(float(value)) for value in image.info["dpi"]] == [300, 300]
        found = image.getexif()
        assert (found[0x010F], found[0x013B], found.get(0x0112, 1)) == ("Maker", "Artist", 1)
        if name == "photo.tif":
            return  # Pillow has written none of the parts there
        assert found.get_ifd(0x8825)[1] == "N"
        assert found.get_ifd(0x8769)[0x829A] == pytest.approx(0.01)
        assert 0x927C not in found.get_ifd(0x8769)


@pytest.mark.parametrize("ending", [".png", ".PNG", ".webp", ".tif", ".tiff"])
def test_lossless_formats_keep_pixels_transparency_and_profile(capsys, tmp_path, small_inpainter, ending):
    photo = noise(40, 50, 4)
    photo[5:9, :, 3] = 0  # the colour below full transparency is kept as well
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(photo).save(tmp_path / "photo.png", icc_profile=profile)
    hole = write_mask(tmp_path / "mask.png", 40, 50)
    output = tmp_path / f"out{ending}"
    shown = succeed(capsys, small_inpainter, tmp_path / "photo.png", tmp_path / "mask.png", "--output", output)
    assert "dropped" not in shown
    assert np.array_equal(pixels_of(output)[~hole], photo[~hole])
    with Image.open(output) as image:
        assert image.format == photo_output.FORMATS[ending.lower()]
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize(("ending", "kind", "most"), [(".jpg", "JPEG", 8), (".jpeg", "JPEG", 8), (".bmp", "BMP", 0)])
def test_formats_without_transparency_say_so(capsys, tmp_path, small_inpainter, ending, kind, most):
    photo = Image.fromarray(noise(3, 3)).resize((60, 60), Image.Resampling.BICUBIC)
    smooth = np.asarray(photo)
    photo.putalpha(100)
    photo.save(tmp_path / "photo.png")
    hole = write_mask(tmp_path / "mask.png", 60, 60)
    output = tmp_path / f"out{ending}"
    shown = succeed(capsys, small_inpainter, tmp_path / "photo.png", tmp_path / "mask.png", "--output", output)
    assert f"The transparency of photo.png is dropped: {kind} has none\n" in shown
    with Image.open(output) as image:
        assert (image.format, image.mode) == (kind, "RGB")
        difference = np.abs(np.asarray(image).astype(int) - smooth)
    assert difference[8:][~hole[8:]].max() <= most


def test_a_profile_of_another_colour_space_is_dropped(capsys, tmp_path, small_inpainter):
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"CMYK"
    Image.fromarray(noise(40, 50)).convert("CMYK").save(tmp_path / "photo.jpg", icc_profile=bytes(profile))
    write_mask(tmp_path / "mask.png", 40, 50)
    succeed(capsys, small_inpainter, tmp_path / "photo.jpg", tmp_path / "mask.png")
    with Image.open(tmp_path / "photo_restored.png") as image:
        assert "icc_profile" not in image.info
