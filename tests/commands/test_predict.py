"""The command that restores a user's photo: odd images, masks, formats, refusals, and the network's part in it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import commandline
import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from conftest import write_config
from PIL import Image, ImageCms, ImageOps

from tfinpaint.checkpoint import store
from tfinpaint.checkpoint.header import Header, InputSpec, RankState, SavedProgress
from tfinpaint.checkpoint.reader import read_header, weight_file
from tfinpaint.checkpoint.store import TrainingState, save_checkpoint
from tfinpaint.config.transforms import Transform
from tfinpaint.data.images.decode import DecodeOptions, read_image
from tfinpaint.errors import UserError
from tfinpaint.inpainting import photo as photos
from tfinpaint.inpainting import photo_output
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.decoder import build_inpainter
from tfinpaint.models.encoder import build_encoder
from tfinpaint.predict import main as predict
from tfinpaint.runs import photo_restoration
from tfinpaint.storage import safe_hdf5

SIZE = 32  # of the network


def write_checkpoint(
    folder: Path, epoch: int = 1, channels: int = 3, target_channels: int = 3, **changes
) -> keras.Model:
    """A tiny context encoder of random weights, as checkpoint `model_checkpoint_<epoch>` of this folder."""
    keras.utils.set_random_seed(epoch)
    encoder = build_encoder("tiny", "before_add", SIZE, SIZE, channels)
    kind = changes.get("kind", "inpainter")
    model = build_inpainter(encoder, target_channels) if kind == "inpainter" else build_classifier(encoder, 2)
    if kind == "inpainter":  # random weights make nearly one grey: let what the network sees show in what it makes
        made = model(np.random.default_rng(1).random((1, SIZE, SIZE, channels), np.float32), training=False)
        last = model.get_layer("decoder_layer_5").kernel
        last.assign(last / (4 * np.ptp(made)))
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    fields = {"kind": kind, "epoch": epoch, "step": 10 * epoch, "encoder": "tiny", "encoder_output": "before_add"}
    fields |= {"batch_size": 8, "steps_per_epoch": 10, "height": SIZE, "width": SIZE, "channels": channels}
    fields |= {"target_channels": target_channels, "restoration": InputSpec(fill="black")} | changes
    ranks = RankState(np.zeros((1, 0)), np.zeros((1, 0, 0)), np.zeros((1, 0), np.int64))
    save_checkpoint(folder, Header(**fields), SavedProgress(), ranks, TrainingState(model, optimizer, None), None)
    return model


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder of two checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    for epoch in (2, 10):
        write_checkpoint(folder / "model_checkpoints", epoch)
    return folder


@pytest.fixture(autouse=True, scope="module")
def networks_loaded_once():
    """Load and trace each checkpoint once for all tests here; those in a process of their own do it again."""
    loaded, load = {}, photo_restoration.load_network

    def load_once(path: Path):
        file = weight_file(path)
        key = path, file.stat().st_mtime_ns if file.exists() else None
        if key not in loaded:
            loaded[key] = load(path)
        return loaded[key]

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(photo_restoration, "load_network", load_once)
        yield


@pytest.fixture
def scans(monkeypatch) -> list[str]:
    """A list that gets the name of each HDF5 file that is scanned."""
    found, scan = [], safe_hdf5._scan

    def counted(file, *arguments):
        found.append(Path(file.filename).name)
        return scan(file, *arguments)

    monkeypatch.setattr(safe_hdf5, "_scan", counted)
    return found


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    return pixels if channels > 1 else pixels[..., 0]


def write_mask(path: Path, height: int, width: int, box: tuple[int, int, int, int] = (0, 0, 1, 2)) -> np.ndarray:
    """White in the box (top, left, bottom, right), black elsewhere; returned as bool."""
    hole = np.zeros((height, width), bool)
    hole[box[0] : box[2], box[1] : box[3]] = True
    Image.fromarray(np.where(hole, 255, 0).astype(np.uint8)).save(path)
    return hole


def succeed(capsys, *arguments: object) -> str:
    assert predict([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refuse(capsys, *arguments: object) -> str:
    """The one line of a command that must fail cleanly."""
    assert predict([str(argument) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    return shown.err.strip()


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_photo_is_restored_beside_itself_by_the_newest_checkpoint(capsys, tmp_path, run, scans):
    photo = noise(SIZE, SIZE)
    Image.fromarray(photo).save(tmp_path / "my photo.bmp")
    hole = write_mask(tmp_path / "mask.png", SIZE, SIZE, (8, 12, 24, 20))
    shown = succeed(capsys, run, tmp_path / "my photo.bmp", tmp_path / "mask.png")
    output = tmp_path / "my photo_restored.png"
    assert shown == (
        f"Using model_checkpoint_10, the newest of {run}\n"
        f"Restored 12.5 % of my photo.bmp (32 x 32) in 1 window: {output}\n"
    )
    assert scans == ["model.weights.h5"]
    restored = pixels_of(output)
    assert np.array_equal(restored[~hole], photo[~hole])
    model = write_checkpoint(tmp_path / "same_weights", 10)
    seen = np.where(hole[..., None], 0, photo / np.float32(255))[None]
    made = np.rint(255 * model(seen, training=False).numpy()[0])
    assert np.abs(restored.astype(int) - made)[hole].max() <= 1  # eager and compiled may round differently
    assert np.ptp(made[hole]) > 5  # and not one colour that any mistake would give
    kept = run / "model_checkpoints"
    for place in (kept, kept / "model_checkpoint_10", kept / "model_checkpoint_10" / "model.weights.h5"):
        succeed(capsys, place, tmp_path / "my photo.bmp", tmp_path / "mask.png", "--overwrite")
        assert np.array_equal(pixels_of(output), restored)
    succeed(capsys, kept / "model_checkpoint_2", tmp_path / "my photo.bmp", tmp_path / "mask.png", "--overwrite")
    assert not np.array_equal(pixels_of(output), restored)


@pytest.mark.parametrize(
    ("fill", "transforms", "channels"),
    [
        ("mean", [{"normalize": {"mean": 0.5, "std": 0.25}}], 3),
        *(
            pytest.param(*case, marks=pytest.mark.stress)
            for case in [("noise", [], 3), ("black", [{"grayscale": True}], 1)]
        ),
    ],
)
def test_the_network_sees_what_it_saw_in_training(capsys, tmp_path, fill, transforms, channels):
    steps = tuple(Transform.model_validate(step) for step in transforms)
    trained = InputSpec(fill=fill, input_transforms=steps)
    model = write_checkpoint(tmp_path, 1, channels, restoration=trained)
    photo = noise(SIZE, SIZE)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    hole = write_mask(tmp_path / "mask.png", SIZE, SIZE, (8, 8, 24, 24))
    succeed(capsys, tmp_path / "model_checkpoint_1", tmp_path / "photo.png", tmp_path / "mask.png")
    restored = pixels_of(tmp_path / "photo_restored.png").astype(int)
    scaled = photo / np.float32(255)
    filling = scaled[~hole].mean(axis=0) if fill == "mean" else 0
    seen = np.where(hole[..., None], filling, scaled)
    if transforms:
        seen = (seen - 0.5) / 0.25 if channels == 3 else seen @ np.array([[0.2989], [0.5870], [0.1140]])
    difference = np.abs(restored - np.rint(255 * model(seen[None].astype(np.float32), training=False).numpy()[0]))[hole]
    if fill == "noise":
        assert difference.max() > 1  # something else than black
        succeed(capsys, tmp_path, tmp_path / "photo.png", tmp_path / "mask.png", "--overwrite")
        assert np.array_equal(pixels_of(tmp_path / "photo_restored.png"), restored)  # and always the same
    else:
        assert difference.max() <= 1


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
def test_odd_photos(capsys, tmp_path, run, name):
    photo = odd_images(tmp_path)[name]
    hole = write_mask(tmp_path / "mask.png", 70, 40, (50, 2, 60, 30))
    ending = ".tif" if name == "cmyk.jpg" else ".png"
    shown = succeed(capsys, run, photo, tmp_path / "mask.png", "--output", tmp_path / f"out{ending}")
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


def deep(channels, height=70, width=40):
    pixels = np.random.default_rng(1).integers(0, 2**16, (height, width, channels), np.uint16)
    return pixels[..., 0] if channels == 1 else pixels


def write_deep(path, pixels, **options):
    """A file of 16 bits per channel, by other programs than ours."""
    if path.suffix == ".tif":
        options |= {"extrasamples": ["unassalpha"]} if pixels.shape[-1] == 4 else {}
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **options)
    else:
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        path.write_bytes(tf.io.encode_png(pixels).numpy())


def read_deep(path):
    if path.suffix == ".tif":
        return tifffile.imread(path)
    pixels = tf.io.decode_png(path.read_bytes(), dtype=tf.uint16).numpy()
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


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
def test_sixteen_bits_stay_sixteen(capsys, tmp_path, run, name, channels, options, ending):
    photo, output = deep(channels), tmp_path / f"out{ending}"
    write_deep(tmp_path / name, photo, **options)
    hole = write_mask(tmp_path / "mask.png", 70, 40, (50, 2, 60, 30))
    shown = succeed(capsys, run, tmp_path / name, tmp_path / "mask.png", "--output", output)
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


def test_what_is_restored_is_the_same_in_either_depth(capsys, tmp_path, run):
    photo = noise(40, 50)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    write_deep(tmp_path / "deep.png", photo.astype(np.uint16) * 257)
    hole = write_mask(tmp_path / "mask.png", 40, 50, (10, 10, 26, 30))
    for name in ("photo", "deep"):
        succeed(capsys, run, tmp_path / f"{name}.png", tmp_path / "mask.png")
    shallow, fine = pixels_of(tmp_path / "photo_restored.png"), read_deep(tmp_path / "deep_restored.png")
    assert np.abs(fine / 257.0 - shallow)[hole].max() < 0.51


@pytest.mark.parametrize(("ending", "kind"), [(".jpg", "JPEG"), (".webp", "WEBP"), (".bmp", "BMP")])
def test_formats_of_eight_bits_say_so(capsys, tmp_path, run, ending, kind):
    write_deep(tmp_path / "photo.png", deep(3))
    hole = write_mask(tmp_path / "mask.png", 70, 40)
    output = tmp_path / f"out{ending}"
    shown = succeed(capsys, run, tmp_path / "photo.png", tmp_path / "mask.png", "--output", output)
    assert f"{kind} holds 8 bits per channel, photo.png has 16: they are rounded; name a .png to keep them\n" in shown
    assert ("JPEG changes all pixels a little" in shown) == (kind == "JPEG")
    if kind != "JPEG":
        assert np.array_equal(pixels_of(output)[~hole], np.rint(deep(3) / 257)[~hole])


def test_separate_planes_of_sixteen_bits_are_refused(capsys, tmp_path, run):
    write_mask(tmp_path / "mask.png", 70, 40)
    planes = np.moveaxis(deep(3), 2, 0)
    tifffile.imwrite(tmp_path / "photo.tif", planes, photometric="rgb", planarconfig="separate")
    assert f"{tmp_path}/photo.tif: unsupported: 16-bit channels in separate planes; save it with interleaved" in refuse(
        capsys, run, tmp_path / "photo.tif", tmp_path / "mask.png"
    )


@pytest.mark.parametrize(
    ("name", "ending"),
    [("photo.jpg", ".png"), ("photo.png", ".jpg"), ("photo.tif", ".png"), ("photo.jpg", ".tif"), ("deep.png", ".png")],
)
def test_exif_resolution_and_profile_are_kept(capsys, tmp_path, run, name, ending):
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
    shown = succeed(capsys, run, tmp_path / name, tmp_path / "mask.png", "--output", output)
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


def test_a_palette_and_a_bilevel_photo_restore_with_what_they_have(capsys, tmp_path, run):
    colours = Image.fromarray(noise(70, 40)).quantize(16)
    colours.save(tmp_path / "palette.png", transparency=3)
    (Image.fromarray(noise(70, 40, 1)).convert("1")).save(tmp_path / "bilevel.png")
    hole = write_mask(tmp_path / "mask.png", 70, 40, (50, 2, 60, 30))
    for name, words in (
        ("palette", "have the nearest of the 16 colours of the photo's palette"),
        ("bilevel", "are black or white"),
    ):
        assert words in succeed(capsys, run, tmp_path / f"{name}.png", tmp_path / "mask.png")
        before, after = pixels_of(tmp_path / f"{name}.png"), pixels_of(tmp_path / f"{name}_restored.png")
        assert np.array_equal(after[~hole], before[~hole])
        if name == "palette":
            assert np.array_equal(after == 3, before == 3)  # what is transparent stays so, and nothing becomes so


def test_cmyk_becomes_rgb_where_the_format_has_none(capsys, tmp_path, run):
    Image.fromarray(noise(40, 50)).convert("CMYK").save(tmp_path / "photo.tif")
    hole = write_mask(tmp_path / "mask.png", 40, 50)
    shown = succeed(capsys, run, tmp_path / "photo.tif", tmp_path / "mask.png")
    assert "The CMYK colours of photo.tif are converted to RGB: PNG holds no CMYK; name a .tif to keep them\n" in shown
    assert np.array_equal(pixels_of(tmp_path / "photo_restored.png")[~hole], noise(40, 50)[~hole])


@pytest.mark.parametrize("size", [(1, 2), (2, 1), (1, 90), (90, 1)])
def test_the_smallest_photos(capsys, tmp_path, run, size):
    Image.fromarray(noise(*size)).save(tmp_path / "photo.png")
    hole = write_mask(tmp_path / "mask.png", *size, (0, 0, 1, 1))
    succeed(capsys, run, tmp_path / "photo.png", tmp_path / "mask.png")
    restored = pixels_of(tmp_path / "photo_restored.png")
    assert np.array_equal(restored[~hole], noise(*size)[~hole])


@pytest.mark.parametrize("ending", [".png", ".PNG", ".webp", ".tif", ".tiff"])
def test_lossless_formats_keep_pixels_transparency_and_profile(capsys, tmp_path, run, ending):
    photo = noise(40, 50, 4)
    photo[5:9, :, 3] = 0  # the colour below full transparency is kept as well
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(photo).save(tmp_path / "photo.png", icc_profile=profile)
    hole = write_mask(tmp_path / "mask.png", 40, 50)
    output = tmp_path / f"out{ending}"
    shown = succeed(capsys, run, tmp_path / "photo.png", tmp_path / "mask.png", "--output", output)
    assert "dropped" not in shown
    assert np.array_equal(pixels_of(output)[~hole], photo[~hole])
    with Image.open(output) as image:
        assert image.format == photo_output.FORMATS[ending.lower()]
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize(("ending", "kind", "most"), [(".jpg", "JPEG", 8), (".jpeg", "JPEG", 8), (".bmp", "BMP", 0)])
def test_formats_without_transparency_say_so(capsys, tmp_path, run, ending, kind, most):
    photo = Image.fromarray(noise(3, 3)).resize((60, 60), Image.Resampling.BICUBIC)
    smooth = np.asarray(photo)
    photo.putalpha(100)
    photo.save(tmp_path / "photo.png")
    hole = write_mask(tmp_path / "mask.png", 60, 60)
    output = tmp_path / f"out{ending}"
    shown = succeed(capsys, run, tmp_path / "photo.png", tmp_path / "mask.png", "--output", output)
    assert f"The transparency of photo.png is dropped: {kind} has none\n" in shown
    with Image.open(output) as image:
        assert (image.format, image.mode) == (kind, "RGB")
        difference = np.abs(np.asarray(image).astype(int) - smooth)
    assert difference[8:][~hole[8:]].max() <= most


def test_a_profile_of_another_colour_space_is_dropped(capsys, tmp_path, run):
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"CMYK"
    Image.fromarray(noise(40, 50)).convert("CMYK").save(tmp_path / "photo.jpg", icc_profile=bytes(profile))
    write_mask(tmp_path / "mask.png", 40, 50)
    succeed(capsys, run, tmp_path / "photo.jpg", tmp_path / "mask.png")
    with Image.open(tmp_path / "photo_restored.png") as image:
        assert "icc_profile" not in image.info


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


def test_a_photo_that_is_too_large_for_memory_is_told(capsys, tmp_path, run, monkeypatch):
    Image.fromarray(noise(60, 50)).save(tmp_path / "photo.png")
    write_mask(tmp_path / "mask.png", 60, 50)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(photo_restoration, "read_photo", fail)
    assert f"{tmp_path}/photo.png: is too large for this machine's memory" in refuse(
        capsys, run, tmp_path / "photo.png", tmp_path / "mask.png", "--overwrite"
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [("photo.gif", {}), ("photo.png", {}), ("photo.webp", {"lossless": True}), ("photo.tif", {})],
)
def test_of_several_images_in_a_file_the_first_is_restored(capsys, tmp_path, run, name, options):
    first, second = (Image.fromarray(noise(40, 50)).rotate(angle).quantize(64).convert("RGB") for angle in (0, 180))
    first.save(tmp_path / name, save_all=True, append_images=[second], **options)
    first.save(tmp_path / "alone.png")
    hole = write_mask(tmp_path / "mask.png", 40, 50, (10, 10, 20, 20))
    output = tmp_path / "out.png"
    shown = succeed(capsys, run, tmp_path / name, tmp_path / "mask.png", "--output", output)
    assert f"Only the first image of {name} was restored, because it holds several\n" in shown
    with Image.open(output) as image:
        assert np.array_equal(np.asarray(image.convert("RGB"))[~hole], np.asarray(first)[~hole])
    assert "Only" not in succeed(capsys, run, tmp_path / "alone.png", tmp_path / "mask.png")


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((0, 0, 40, 49), "98.0 %"),
        ((0, 0, 1, 1), "less than 0.1 %"),
        ((0, 0, 1, 3), "0.1 %"),
        (None, "more than 99.9 %"),
    ],
)
def test_a_share_is_not_told_as_all_or_nothing(capsys, tmp_path, run, box, share):
    Image.fromarray(noise(40, 50)).save(tmp_path / "photo.png")
    hole = write_mask(tmp_path / "mask.png", 40, 50, box or (0, 0, 40, 50))
    if box is None:
        hole[20, 20] = False
        Image.fromarray(hole).save(tmp_path / "mask.png")
    shown = succeed(capsys, run, tmp_path / "photo.png", tmp_path / "mask.png")
    assert f"Restored {share} of photo.png" in shown


def test_a_network_of_grey_images_makes_the_photo_grey_and_says_so(capsys, tmp_path):
    write_checkpoint(tmp_path / "grey", 1, 1, 1)
    Image.fromarray(noise(40, 50, 4)).save(tmp_path / "photo.png")
    hole = write_mask(tmp_path / "mask.png", 40, 50)
    shown = succeed(capsys, tmp_path / "grey", tmp_path / "photo.png", tmp_path / "mask.png")
    assert "The colours of photo.png are dropped: the model was trained on grey images\n" in shown
    with Image.open(tmp_path / "photo_restored.png") as image:
        assert image.mode == "LA"
        luma = read_image(tmp_path / "photo.png", DecodeOptions(channels=1))[..., 0]
        assert np.array_equal(np.asarray(image)[..., 0][~hole], luma[~hole])
    Image.fromarray(noise(40, 50, 1)).save(tmp_path / "grey.png")
    assert "dropped" not in succeed(capsys, tmp_path / "grey", tmp_path / "grey.png", tmp_path / "mask.png")


def test_a_grey_photo_stays_grey(capsys, tmp_path, run):
    photo = np.repeat(noise(40, 50, 1)[..., None], 3, axis=2)
    hole = write_mask(tmp_path / "mask.png", 40, 50, (10, 10, 26, 30))
    photo[15, 15] = (255, 0, 0)  # what the hole hides does not count
    output = tmp_path / "photo_restored.png"
    for kind in ("grey", "nearly grey"):
        Image.fromarray(photo).save(tmp_path / "photo.png")
        succeed(capsys, run, tmp_path / "photo.png", tmp_path / "mask.png", "--overwrite")
        restored = pixels_of(output)
        assert np.array_equal(restored[~hole], photo[~hole])
        assert (np.ptp(restored[hole], axis=1) > 0).any() == (kind == "nearly grey")
        photo[0, 0] = (1, 2, 3)


def test_a_mask_that_erases_nothing_says_what_it_has(capsys, tmp_path, run):
    Image.fromarray(noise(40, 50)).save(tmp_path / "photo.png")
    ones = (noise(40, 50, 1) > 100).astype(np.uint8)
    Image.fromarray(ones).save(tmp_path / "mask.png")
    arguments = (run, tmp_path / "photo.png", tmp_path / "mask.png")
    assert "erases nothing; paint the parts to restore white on black (its lightest pixel is 1 of 255)" in refuse(
        capsys, *arguments
    )
    Image.fromarray(np.dstack([255 * ones] * 3 + [0 * ones])).save(tmp_path / "mask.png")
    assert "(its light pixels are transparent)" in refuse(capsys, *arguments)


def test_files_that_cannot_be_used(capsys, tmp_path, run):
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(noise(40, 50)).save(photo)
    write_mask(mask, 40, 50)
    text, cut, dot, large = (tmp_path / name for name in ("notes.jpg", "cut.jpg", "dot.png", "large.png"))
    text.write_text("no image")
    Image.fromarray(noise(200, 200)).save(cut)
    cut.write_bytes(cut.read_bytes()[:9000])
    Image.fromarray(noise(1, 1)).save(dot)
    for name, value in (("black.png", 0), ("white.png", 255)):
        Image.fromarray(np.full((40, 50), value, np.uint8)).save(tmp_path / name)
        Image.fromarray(np.full((1, 1), value, np.uint8)).save(tmp_path / f"dot_{name}")
    write_mask(large, 50, 40)
    os.mkfifo(tmp_path / "pipe.png")
    before = sorted(tmp_path.iterdir())
    cases = [
        ((run, tmp_path / "pipe.png", mask), f"{tmp_path}/pipe.png: not an image: a pipe"),
        ((tmp_path / "none", photo, mask), f"no such checkpoint: {tmp_path}/none; "),
        ((run, tmp_path / "none.jpg", mask), f"{tmp_path}/none.jpg: no such file"),
        ((run, photo, tmp_path / "none.png"), f"{tmp_path}/none.png: no such file"),
        (
            (run, tmp_path, mask, "--output", tmp_path / "x.png"),
            f"{run}: is an inpainter, which restores one photo where",
        ),
        ((run, photo, tmp_path), f"{tmp_path}: is a folder, not an image"),
        ((run, photo, photo), f"{photo}: is the photo itself; the mask is another image, white where to restore it"),
        ((run, text, mask), f"{text}: not an image: text"),
        ((run, photo, text), f"{text}: not an image: text"),
        ((run, cut, mask), f"{cut}: truncated: image file is truncated"),
        ((run, photo, large), f"{large}: is 40 x 50 pixels, {photo} is 50 x 40 as displayed; draw the mask at"),
        ((run, photo, tmp_path / "black.png"), f"{tmp_path}/black.png: erases nothing; paint the parts to restore"),
        ((run, photo, tmp_path / "white.png"), f"{tmp_path}/white.png: erases all of {photo}; paint the parts to keep"),
        ((run, dot, tmp_path / "dot_black.png"), "dot_black.png: erases nothing"),
        ((run, dot, tmp_path / "dot_white.png"), "dot_white.png: erases all"),
        ((text, photo, mask), f"{text}: not a checkpoint of tfinpaint"),
        ((tmp_path, photo, mask), f"{tmp_path}: not a checkpoint of tfinpaint"),
    ]
    for arguments, message in cases:
        assert message in refuse(capsys, *arguments)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "contents", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n", b"\x89PNG\r\n\x1a\n"]
)
def test_a_photo_is_opened_again_as_carefully(tmp_path, monkeypatch, contents):
    """For its low bytes; another program may have written to it since the high ones were read."""
    file = tmp_path / "photo.png"
    write_deep(file, deep(3))
    open_image, times = photos.decode.open_image, []

    def open_and_write(path, *arguments):
        if times:
            file.write_bytes(contents)
        times.append(path)
        return open_image(path, *arguments)

    monkeypatch.setattr(photos.decode, "open_image", open_and_write)
    words = "not an image: a PostScript document" if contents.startswith(b"%") else "truncated or damaged"
    with pytest.raises(UserError, match=f"^{file}: {words}"):
        photos.read_photo(file)


def test_outputs_that_cannot_be_used(capsys, tmp_path, run):
    photo, mask, there = tmp_path / "photo.png", tmp_path / "mask.png", tmp_path / "there.png"
    Image.fromarray(noise(40, 50)).save(photo)
    write_mask(mask, 40, 50)
    there.write_text("mine")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(photo)
    cases = [
        ("out.gif", "the suffix names no format; use one of .png .jpg .jpeg .webp .tif .tiff .bmp"),
        ("out", "the suffix names no format"),
        ("photo.png", "is the photo or the mask itself; name another file"),
        ("link.png", "is the photo or the mask itself"),
        ("mask.png", "is the photo or the mask itself"),
        ("folder.png", "is a folder; name the image to write"),
        ("none/out.png", f"there is no folder {tmp_path}/none"),
        (f"{'x' * 300}.png", "File name too long"),
    ]
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for name, message in cases:
        for more in ([], ["--overwrite"]):
            assert message in refuse(capsys, run, photo, mask, "--output", tmp_path / name, *more)
    assert f"{there} already exists; add --overwrite" in refuse(capsys, run, photo, mask, "--output", there)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    succeed(capsys, run, photo, mask, "--output", there, "--overwrite")
    assert pixels_of(there).shape == (40, 50, 3)
    Image.fromarray(noise(1, 16384)).save(tmp_path / "long.png")
    write_mask(mask, 1, 16384)
    message = "WEBP holds at most 16383 pixels a side; name a .png"
    assert message in refuse(capsys, run, tmp_path / "long.png", mask, "--output", tmp_path / "long.webp")


@pytest.mark.stress
def test_networks_that_do_not_restore_images(capsys, tmp_path):
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(noise(40, 50)).save(photo)
    write_mask(mask, 40, 50)
    write_checkpoint(tmp_path, 1, restoration=None)
    write_checkpoint(tmp_path, 2, kind="classifier", classes=("a", "b"), restoration=None)
    broken = write_checkpoint(tmp_path / "broken", 3)
    one, two = tmp_path / "model_checkpoint_1", tmp_path / "model_checkpoint_2"
    assert f"{one}: its model was not trained to restore images; train it by tfinpaint.pretrain" in refuse(
        capsys, one, photo, mask
    )
    assert f"{two}: does not say how its run prepared images; name the run folder" in refuse(capsys, two, photo, mask)
    three = tmp_path / "broken" / "model_checkpoint_3"
    broken.get_layer("decoder_layer_5").bias.assign([np.nan, 0, 0])
    store._write_weights(three / "model.weights.h5", broken, read_header(three))
    assert f"{three}: the model produced NaN or Inf" in refuse(capsys, three, photo, mask)
    assert not (tmp_path / "photo_restored.png").exists()


def test_what_kind_a_run_is_decides_and_a_wrong_combination_says_what_to_type(capsys, tmp_path, run):
    write_checkpoint(tmp_path / "classes", kind="classifier", classes=("a", "b"), restoration=None)
    classifier, photo = tmp_path / "classes", tmp_path / "a photo.png"
    Image.fromarray(noise(40, 50)).save(photo)
    assert refuse(capsys, classifier, photo, "--output", tmp_path / "x.png") == (
        f"error: --output: {classifier} is a classifier, which predicts the classes of photos; type: tfinpaint predict "
        f"{classifier} '{photo}' --csv FILE"
    )
    told = f"error: {run}: is an inpainter, which restores one photo where a mask is white; type: tfinpaint predict "
    end = " (a run of tfinpaint classify predicts the classes of photos)"
    assert refuse(capsys, run, photo) == f"{told}{run} '{photo}' MASK{end}"
    assert refuse(capsys, run, tmp_path) == f"{told}{run} PHOTO MASK{end}"
    assert refuse(capsys, run, photo, photo, photo) == f"{told}{run} '{photo}' MASK{end}"
    assert refuse(capsys, run, photo, photo, "--csv", "x.csv") == f"{told}{run} '{photo}' '{photo}'{end}"
    (tmp_path / "x.csv").touch()
    assert "x.csv already exists; add --overwrite, or name another file" in refuse(
        capsys, classifier, photo, "--csv", tmp_path / "x.csv"
    )
    assert f"{tmp_path}: is a folder; name the file" in refuse(capsys, classifier, photo, "--json", tmp_path)
    both = "--csv", tmp_path / "y", "--json", tmp_path / "none" / ".." / "y"
    assert refuse(capsys, classifier, photo, *both) == (
        f"error: --csv and --json name the same file, {tmp_path / 'y'}; name two files"
    )
    assert "none/x.csv: cannot be written: there is no folder" in refuse(
        capsys, classifier, photo, "--csv", tmp_path / "none" / "x.csv"
    )
    assert "nothing.jpg: no such file or folder" in refuse(capsys, classifier, "nothing.jpg")


def test_a_network_below_the_baselines_of_its_run_is_warned_of(capsys, tmp_path, run):
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(noise(40, 50)).save(photo)
    write_mask(mask, 40, 50)
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "config.resolved.yaml").write_text("num_epochs: 10")
    newest = copy / "model_checkpoints" / "model_checkpoint_10"
    record = {"phase": "test", "loss": 0.5, "seconds": 1.0, "images_per_second": 9.0}
    scores = [{**record, "epoch": epoch, "hole_psnr_db": psnr} for epoch, psnr in ((2, 30.0), (10, 14.54))]
    (newest / "progress.json").write_text(json.dumps({"records": scores}))
    warning = (
        "Expect little of this network: it restored the held-out images of its run less well (PSNR in the hole 14.5 dB) "
        "than baselines that need no training (biharmonic 22.6, mean colour 15.0 dB); train it longer"
    )
    measured = {"network": 14.54, "mean_colour": 15.0, "biharmonic": 22.57, "nearest": 14.5}
    summary = {"measurements": {name: {"hole_psnr_db": value} for name, value in measured.items()}}
    assert "Expect" not in succeed(capsys, copy, photo, mask)  # the records do not tell
    (copy / "summary.json").write_text(json.dumps(summary))
    assert warning in succeed(capsys, copy, photo, mask, "--overwrite").splitlines()
    scores[1]["hole_psnr_db"] = 22.58
    (newest / "progress.json").write_text(json.dumps({"records": scores}))
    assert "Expect" not in succeed(capsys, copy, photo, mask, "--overwrite")


def test_a_mask_that_erases_more_than_half_is_mentioned(capsys, tmp_path, run):
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(noise(40, 50)).save(photo)
    write_mask(mask, 40, 50, (0, 0, 30, 50))
    assert "The mask erases 75 % of the photo, because it is white there; if it was meant the other way" in succeed(
        capsys, run, photo, mask
    )


@pytest.mark.stress
def test_an_evaluation_at_another_size_names_both_shapes_and_scans_the_file_once(images, tmp_path, scans):
    write_checkpoint(tmp_path / "saved", kind="classifier", classes=("cold", "warm"))
    resize = [{"resize": [64, 96]}]
    config = write_config(tmp_path / "c.yaml", "classify", images, encoder="tiny", data__transforms=resize)
    load = ("--set", f"checkpoints.load={tmp_path / 'saved'}", "--set", "data.input_path=null")
    error = commandline.refuse("classify", "--config", config, *load)
    assert "the weights of layer dense_1 have the shapes [(128, 2), (2,)], the model needs [(768, 2), (2,)]: " in error
    assert "trained on images of 32 x 32 x 3, the data gives 96 x 64 x 3 (height x width x channels)" in error
    grey = ("--set", "data.transforms.0.resize=[32, 32]", "--set", "data.input_grayscale=true")
    error = commandline.refuse("classify", "--config", config, *load, *grey)
    assert re.search(r"layer conv1_conv have the shapes \[\(7, 7, 3, .*, the model needs \[\(7, 7, 1, ", error)
    assert "images of 32 x 32 x 3, the data gives 32 x 32 x 1" in error
    equal = ("--set", "data.transforms.0.resize=[32, 32]")
    scans.clear()
    assert "Transferred 33 layers by name, all of the model" in commandline.succeed(
        "classify", "--config", config, *load, *equal
    )
    assert scans == ["model.weights.h5"]


def test_a_write_that_fails_leaves_the_old_output_and_nothing_else(capsys, tmp_path, run, monkeypatch):
    photo, mask, output = tmp_path / "photo.png", tmp_path / "mask.png", tmp_path / "out.png"
    Image.fromarray(noise(40, 50)).save(photo)
    write_mask(mask, 40, 50)
    output.write_text("old")

    def fill_the_disk(image, path, *_, **__):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    kept = run / "model_checkpoints" / "model_checkpoint_2"
    assert f"{output}: cannot be written: No space left on device" in refuse(
        capsys, kept, photo, mask, "--output", output, "--overwrite"
    )
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.png", "out.png", "photo.png"]


def test_under_a_launcher_the_first_rank_alone_works(capsys, tmp_path, run, monkeypatch):
    Image.fromarray(noise(40, 50)).save(tmp_path / "photo.png")
    write_mask(tmp_path / "mask.png", 40, 50)
    monkeypatch.setenv("HOROVOD_RANK", "1")
    assert succeed(capsys, run, tmp_path / "photo.png", tmp_path / "mask.png") == ""
    assert not (tmp_path / "photo_restored.png").exists()


@pytest.fixture
def arguments(tmp_path, run) -> list[str]:
    """A run, a photo and a mask, for a command in a process of its own."""
    Image.fromarray(noise(40, 50)).save(tmp_path / "photo.png")
    write_mask(tmp_path / "mask.png", 40, 50, (4, 4, 12, 12))
    return [str(run), str(tmp_path / "photo.png"), str(tmp_path / "mask.png")]


@pytest.mark.stress
def test_the_command_is_quiet(tmp_path, arguments):
    command = [sys.executable, "-m", "tfinpaint.predict", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == (
        f"Restored 3.2 % of photo.png (50 x 40) in 1 window: {tmp_path}/photo_restored.png"
    )


def test_wrong_outputs_are_refused_before_tensorflow_is_imported(tmp_path, arguments):
    (tmp_path / "photo_restored.png").touch()
    code = (
        "import sys; from tfinpaint.predict import main; main(sys.argv[2:]); "
        "main([*sys.argv[2:], '--output', sys.argv[1]]); sys.exit('tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.gif"), *arguments]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0
    first, second = again.stderr.splitlines()
    assert "already exists" in first
    assert "names no format" in second
