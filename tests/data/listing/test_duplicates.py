"""Copies among the test images: found where they are encoded or resized again, and no alarm where there are none."""

import io
import zipfile

import numpy as np
import pytest
from conftest import write_images, zipped
from PIL import Image
from sklearn.datasets import load_sample_image

from tfinpaint.data.images.decode import CHECK_OPTIONS, inspect_image
from tfinpaint.data.ingest.copy import prepare
from tfinpaint.data.ingest.pack import prepare_records
from tfinpaint.data.listing import duplicates
from tfinpaint.data.listing.duplicates import (
    FINGERPRINT_BYTES,
    KEY_BYTES,
    duplicates_message,
    find_duplicates,
    fingerprint_of,
    fingerprint_width,
)


def printed(image: Image.Image, kind: str = "PNG", **options) -> np.ndarray:
    image.save(file := io.BytesIO(), kind, **options)
    return fingerprint_of(inspect_image(file, CHECK_OPTIONS).thumbnail)


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Twelve parts of two photographs, 200 x 200 pixels."""
    found = []
    for name in ("china.jpg", "flower.jpg"):
        photo = Image.fromarray(load_sample_image(name))
        found += [photo.crop((x, y, x + 200, y + 200)) for x in (0, 210, 420) for y in (0, 220)]
    return found


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: printed(image, "JPEG", quality=90),
        lambda image: printed(image, "JPEG", quality=50),
        lambda image: printed(image, "WEBP", quality=60),
        lambda image: printed(image.quantize(256), "GIF"),
        lambda image: printed(image.resize((100, 100), Image.Resampling.LANCZOS)),
        lambda image: printed(image.resize((400, 400), Image.Resampling.BICUBIC), "JPEG", quality=75),
        lambda image: printed(image.resize((61, 64), Image.Resampling.BILINEAR)),
        lambda image: printed(image.convert("L")),
    ],
)
def test_copies_that_were_encoded_or_resized_again_are_found(photos, copy):
    known = np.array([printed(photo) for photo in photos])
    found = find_duplicates(np.array([copy(photo) for photo in photos]), known)
    assert [(test, training) for test, training, _ in found] == [(i, i) for i in range(12)]


def test_the_same_pixels_in_another_file_are_the_same_and_other_parts_of_a_photo_are_not(photos):
    known = np.array([printed(photo) for photo in photos[::2]])
    assert find_duplicates(np.array([printed(photos[4], "TIFF"), printed(photos[5])]), known) == [(0, 2, True)]
    shifted = photos[0].transform(photos[0].size, Image.Transform.AFFINE, (1, 0, 20, 0, 1, 20))
    assert find_duplicates(np.array([printed(shifted)]), known) == []


def test_flat_images_are_told_by_their_pixels_alone():
    flat = [printed(Image.new("L", (50, 50), value)) for value in (0, 100, 101)]
    noisy = [
        printed(Image.fromarray(np.random.default_rng(seed).integers(98, 103, (50, 50), np.uint8)))
        for seed in range(20)
    ]
    assert find_duplicates(np.array(flat), np.array([flat[1], *noisy])) == [(1, 0, True)]
    assert find_duplicates(np.array(noisy[:10]), np.array(noisy[10:])) == []


def test_of_very_many_images_the_keys_alone_are_compared(photos, monkeypatch):
    known = np.array([printed(photo) for photo in photos])
    test = np.array([printed(photos[3], "JPEG"), printed(photos[4])])
    assert [copy[:2] for copy in find_duplicates(test, known)] == [(0, 3), (1, 4)]
    assert find_duplicates(test[:, :KEY_BYTES], known) == [(1, 4, True)]
    monkeypatch.setattr(duplicates, "_MAX_PAIRS", 23)
    assert find_duplicates(test, known) == [(1, 4, True)]
    assert fingerprint_width(200_000) == FINGERPRINT_BYTES
    assert fingerprint_width(200_001) == KEY_BYTES


def test_blocks_do_not_matter(photos, monkeypatch):
    known = np.array([printed(photo) for photo in photos])
    test = np.array([printed(photo, "JPEG") for photo in photos])
    whole = find_duplicates(test, known)
    monkeypatch.setattr(duplicates, "_BLOCK", (5, 3))
    assert find_duplicates(test, known) == whole
    assert (
        find_duplicates(test[:0], known)
        == find_duplicates(test, known[:0])
        == find_duplicates(0 * test, 0 * known)
        == []
    )


@pytest.mark.stress
def test_what_natural_images_hold_is_named(natural_images):
    """Its fruits stand on a turntable: of 6,899 images 52 are nearly another one, all of them by eye."""
    with zipfile.ZipFile(natural_images) as file:
        names = [name for name in file.namelist() if name.endswith(".jpg")]
        prints = np.array(
            [fingerprint_of(inspect_image(io.BytesIO(file.read(name)), CHECK_OPTIONS).thumbnail) for name in names]
        )
    pairs = [(names[i], names[j]) for i, j, _ in find_duplicates(prints[1::2], prints[::2])]
    assert 20 < len(pairs) < 80


def test_prepare_counts_and_names_them(tmp_path, photos):
    source = write_images(tmp_path / "set" / "train", {"a": 3, "b": 3})
    write_images(tmp_path / "set" / "test", {"a": 2, "b": 2}, seed=7)
    photos[0].save(source / "a" / "x.png")
    photos[0].save(tmp_path / "set" / "test" / "b" / "y.png")
    photos[1].save(source / "a" / "z.png")
    photos[1].resize((120, 120)).save(tmp_path / "set" / "test" / "a" / "w.jpg")
    expected = [
        "2 of 6 test images are training images too (1 identical, 1 nearly identical): test scores are too optimistic; "
        "remove these images from one of the two sets",
        "  @test/a/w.jpg is nearly @train/a/z.png",
        "  @test/b/y.png is @train/a/x.png",
    ]
    for call in (prepare, prepare_records):
        notes = call(tmp_path / "set", tmp_path / call.__name__).notes
        assert list(notes[1:]) == [line.replace("@", "") for line in expected]
    archive = zipped(tmp_path / "set", tmp_path / "x.zip", "s/")
    assert list(prepare(archive, tmp_path / "z").notes[1:]) == [line.replace("@", "s/") for line in expected]


def test_of_many_the_first_are_named():
    copies = [(number, number, False) for number in range(30)]
    lines = duplicates_message(copies, "t{}".format, "u{}".format, 99)
    assert len(lines) == 22
    assert lines[-1] == "... and 10 more"
