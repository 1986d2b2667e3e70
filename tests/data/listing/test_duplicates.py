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
    Copy,
    compares_contents,
    duplicates_json,
    duplicates_message,
    find_duplicates,
    fingerprint_of,
    fingerprint_width,
)
from tfinpaint.data.listing.listing import list_images


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
    assert [(copy.test, copy.training) for copy in found] == [(i, i) for i in range(12)]


def test_the_same_pixels_in_another_file_are_the_same_and_other_parts_of_a_photo_are_not(photos):
    known = np.array([printed(photo) for photo in photos[::2]])
    assert find_duplicates(np.array([printed(photos[4], "TIFF"), printed(photos[5])]), known) == [(0, 2, "identical")]
    shifted = photos[0].transform(photos[0].size, Image.Transform.AFFINE, (1, 0, 20, 0, 1, 20))
    assert find_duplicates(np.array([printed(shifted)]), known) == []


def test_flat_images_are_told_by_their_pixels_alone():
    flat = [printed(Image.new("L", (50, 50), value)) for value in (0, 100, 101)]
    noisy = [
        printed(Image.fromarray(np.random.default_rng(seed).integers(98, 103, (50, 50), np.uint8)))
        for seed in range(20)
    ]
    assert find_duplicates(np.array(flat), np.array([flat[1], *noisy])) == [(1, 0, "identical")]
    assert find_duplicates(np.array(noisy[:10]), np.array(noisy[10:])) == []


def test_of_very_many_images_the_keys_alone_are_compared(photos, monkeypatch):
    known = np.array([printed(photo) for photo in photos])
    test = np.array([printed(photos[3], "JPEG"), printed(photos[4])])
    assert [copy[:2] for copy in find_duplicates(test, known)] == [(0, 3), (1, 4)]
    assert find_duplicates(test[:, :KEY_BYTES], known) == [(1, 4, "identical")]
    monkeypatch.setattr(duplicates, "_MAX_PAIRS", 23)
    assert find_duplicates(test, known) == [(1, 4, "identical")]
    assert not compares_contents(12, 2)
    monkeypatch.setattr(duplicates, "_MAX_PAIRS", 24)
    assert compares_contents(12, 2)
    assert not compares_contents(2, 200_000)
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


def test_mirror_images_count_and_upside_down_ones_do_not(photos):
    known = np.array([printed(photo) for photo in photos[::2]])
    mirrored = [printed(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", quality=80) for photo in photos[::2]]
    turned = [printed(photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM)) for photo in photos[::2]]
    others = [printed(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for photo in photos[1::2]]
    assert find_duplicates(np.array(mirrored), known) == [(i, i, "mirrored") for i in range(6)]
    assert find_duplicates(np.array(turned + others), known) == []


def test_a_symmetric_image_is_identical_rather_than_mirrored(photos):
    half = photos[0].crop((0, 0, 100, 200))
    whole = Image.new("RGB", (200, 200))
    whole.paste(half)
    whole.paste(half.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (100, 0))
    prints = np.array([printed(whole), printed(whole, "JPEG", quality=80)])
    assert [copy.kind for copy in find_duplicates(prints, prints[:1])] == ["identical", "nearly identical"]


@pytest.mark.stress
def test_what_natural_images_hold_is_named(natural_images):
    """Its fruits stand on a turntable: a pair of neighbouring views is one object by eye, and always of one class."""
    with zipfile.ZipFile(natural_images) as file:
        names = [name for name in file.namelist() if name.endswith(".jpg")]
        prints = np.array(
            [fingerprint_of(inspect_image(io.BytesIO(file.read(name)), CHECK_OPTIONS).thumbnail) for name in names]
        )
    copies = find_duplicates(prints[1::2], prints[::2])
    pairs = [(names[1::2][copy.test], names[::2][copy.training]) for copy in copies]
    assert 100 < len(pairs) < 200
    assert all(one.split("/")[-2] == other.split("/")[-2] for one, other in pairs)


def test_prepare_counts_and_names_them(tmp_path, photos):
    source = write_images(tmp_path / "set" / "train", {"a": 3, "b": 3})
    write_images(tmp_path / "set" / "test", {"a": 2, "b": 2}, seed=7)
    photos[0].save(source / "a" / "x.png")
    photos[0].save(tmp_path / "set" / "test" / "b" / "y.png")
    photos[1].save(source / "a" / "z.png")
    photos[1].resize((120, 120)).save(tmp_path / "set" / "test" / "a" / "w.jpg")
    expected = [
        "2 of 6 test images (33.3 %) are near-duplicates of training images (1 identical, 1 nearly identical, "
        "0 mirrored): test scores are too optimistic; remove these images from one of the two sets",
        "  @test/a/w.jpg is nearly @train/a/z.png",
        "  @test/b/y.png is @train/a/x.png",
    ]
    for call in (prepare, prepare_records):
        notes = call(tmp_path / "set", tmp_path / call.__name__).notes
        assert list(notes[1:]) == [line.replace("@", "") for line in expected]
    archive = zipped(tmp_path / "set", tmp_path / "x.zip", "s/")
    assert list(prepare(archive, tmp_path / "z").notes[1:]) == [line.replace("@", "s/") for line in expected]


def test_of_many_the_first_are_named():
    copies = [Copy(number, number, "mirrored") for number in range(30)]
    lines = duplicates_message(copies, "t{}".format, "u{}".format, 99)
    assert len(lines) == 22
    assert lines[0].startswith("30 of 99 test images (30.3 %) are near-duplicates of training images (0 identical, ")
    assert lines[1] == "  t0 is nearly the mirror image of u0"
    assert lines[-1] == "... and 10 more"


def test_places_are_named_as_they_are_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = duplicates_message([Copy(0, 1, "identical")], f"{tmp_path}/t/{{}}".format, f"{tmp_path}/u/{{}}".format, 9)
    assert lines[1] == "  t/0 is u/1"


def test_json_names_the_pairs(tmp_path):
    listing = list_images(write_images(tmp_path / "x", {"a": 3}))
    assert duplicates_json([Copy(1, 2, "identical")], listing, listing) == {
        "test_images": 3,
        "near_duplicates": 1,
        "pairs": [
            {"test": f"{tmp_path}/x/a/001.png", "training": f"{tmp_path}/x/a/002.png", "kind": "identical"},
        ],
    }
