"""Listings, classes, pairs, bad files."""

import hashlib
import os

import numpy as np
import pytest
from conftest import write_images, zipped

from tfinpaint.config.transforms import Transform
from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.data.ingest.copy import prepare
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.listing.check import check_images
from tfinpaint.data.listing.pairing import pair_by_name
from tfinpaint.errors import UserError


def resized(height: int, width: int) -> DecodeOptions:
    return DecodeOptions((Transform(resize=[width, height]),))


def test_class_folders_are_listed_in_order_and_other_files_counted(images):
    (images / "training" / "cold" / "notes.txt").write_bytes(b"x")
    (images / "training" / "cold" / "Thumbs.db").write_bytes(b"x")
    (images / "training" / ".hidden").mkdir()
    listing = sources.list_class_folders(images / "training")
    assert listing.classes == ("cold", "warm")
    assert listing.paths == tuple(sorted(listing.paths))
    assert np.bincount(listing.labels).tolist() == [13, 11]
    assert listing.excluded.summary() == "1 file excluded: 1 .txt (cold/notes.txt); 2 hidden or system files ignored"
    assert sources.list_images(images / "training").paths == listing.paths


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": 3, "b": 0}, r"class folder without images: b \(empty\); fill it or remove it"),
        ({"a": 3}, r"at least two class folders, found 1 \(a\)"),
        ({}, r"at least two class folders, found 0; expected x/<class>/<image>$"),
        ({"training": 3, "testing": 1}, r"x: holds testing and training in place of class folders; name one of them, "),
    ],
)
def test_folders_that_cannot_be_classified(tmp_path, counts, message):
    tmp_path.joinpath("x").mkdir()
    with pytest.raises(UserError, match=message):
        sources.list_class_folders(write_images(tmp_path / "x", counts))


def test_missing_folder_unknown_class_and_no_images(images, tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        sources.list_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match="class warm is not among the training classes: cold"):
        sources.list_class_folders(images / "testing", classes=("cold",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no images found; expected JPEG, .*GIF or PPM files$"):
        sources.list_images(tmp_path / "empty")


def test_fraction_is_stratified_nested_and_seeded(images):
    listing = sources.list_class_folders(images / "training")
    half = sources.take_fraction(listing, 0.5, seed=0)
    assert np.bincount(half.labels).tolist() == [6, 6]  # round(13 / 2) = 6 (to even), round(11 / 2) = 6
    assert set(sources.take_fraction(listing, 0.2, seed=0).paths) < set(half.paths)
    assert sources.take_fraction(listing, 0.5, seed=1).paths != half.paths
    assert sources.take_fraction(listing, 1.0, seed=0) is listing


def test_a_stratified_part_is_held_out_and_what_is_left_grows_with_the_labels(tmp_path):
    listing = sources.list_class_folders(write_images(tmp_path / "x", {"a": 20, "b": 10, "c": 2, "d": 1}))
    trained, validated = sources.hold_out(listing, 0.2, seed=0)
    assert np.bincount(validated.labels, minlength=4).tolist() == [4, 2, 1, 0]
    assert trained.classes == validated.classes == ("a", "b", "c", "d")
    assert sorted([*trained.paths, *validated.paths]) == list(listing.paths)
    assert [*trained.paths] == sorted(trained.paths)
    assert sources.hold_out(listing, 0.2, seed=0)[1].paths == validated.paths
    assert sources.hold_out(listing, 0.2, seed=1)[1].paths != validated.paths
    fewer, _ = sources.hold_out(sources.take_fraction(listing, 0.5, seed=0), 0.2, seed=0)
    assert set(fewer.paths) < set(trained.paths)
    with pytest.raises(UserError, match="no class has two images"):
        sources.hold_out(listing.select([0, 20, 30, 32]), 0.5, seed=0)


def test_bad_files_are_found_with_a_reason(tmp_path):
    root = write_images(tmp_path / "x", {"a": 2, "b": 1})
    whole = (root / "a" / "000.png").read_bytes()
    (root / "a" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (root / "a" / "empty.jpg").write_bytes(b"")
    (root / "b" / "text.jpg").write_text("not an image")
    listing = sources.list_class_folders(root)
    bad = check_images(listing, range(len(listing)), resized(32, 32)).bad
    assert {listing.paths[i] for i in bad} == {"a/truncated.png", "a/empty.jpg", "b/text.jpg"}
    assert all(bad.values())


def test_pairs_are_matched_by_name_in_the_inputs_order(tmp_path):
    inputs = sources.list_images(write_images(tmp_path / "x", {"a": 3, "b": 2}))
    write_images(tmp_path / "y", {"a": 3, "b": 4})  # more targets than inputs do no harm
    (tmp_path / "y" / "a" / "001.png").rename(tmp_path / "y" / "a" / "001.tiff")
    pairs = pair_by_name(inputs, tmp_path / "y")
    assert pairs.paths == ("a/000.png", "a/001.tiff", "a/002.png", "b/000.png", "b/001.png")
    (tmp_path / "y" / "b" / "001.png").unlink()
    with pytest.raises(UserError, match=r"(?s)no image of the same name for 1 of .*/x:.b/001\.png$"):
        pair_by_name(inputs, tmp_path / "y")
    write_images(tmp_path / "y", {"b": 2})
    (tmp_path / "y" / "b" / "001.gif").write_bytes(b"")
    assert pair_by_name(inputs, tmp_path / "y").paths[-1] == "b/001.png"  # the very same name comes first
    (tmp_path / "y" / "b" / "001.png").rename(tmp_path / "y" / "b" / "001.bmp")
    with pytest.raises(UserError, match=r"(?s)1 names differ only in the extension:.b/001.bmp and b/001.gif$"):
        pair_by_name(inputs, tmp_path / "y")


def test_partners_are_found_wherever_they_stand_in_the_order(tmp_path):
    stems = ["a", "a-1", "a.b", "a0", "b/a", "b/a.x", "b.c/a", "b0", "c", "c.d", "c.d.e", "z"]
    for folder, endings in (("x", ["png", "jpg", "webp"]), ("y", ["bmp", "png", "tiff", "jpg", "gif"])):
        for number, stem in enumerate(stems):
            path = tmp_path / folder / f"{stem}.{endings[number % len(endings)]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "y" / "a.b.c.png").touch()
    inputs = sources.list_images(tmp_path / "x")
    pairs = pair_by_name(inputs, tmp_path / "y")
    assert [path.rpartition(".")[0] for path in pairs.paths] == [path.rpartition(".")[0] for path in inputs.paths]
    assert sorted(path.rpartition(".")[0] for path in pairs.paths) == sorted(stems)
    back = inputs.select(range(len(inputs) - 1, -1, -1))  # where the guess is bad
    assert list(pair_by_name(back, tmp_path / "y").paths) == list(pairs.paths)[::-1]


def test_a_dot_in_the_name_of_a_folder_begins_no_extension(tmp_path):
    image = write_images(tmp_path / "other", {"a": 1}) / "a" / "000.png"
    for path in ("x/set.1/photo", "y/set.png"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(image.read_bytes())
    inputs = sources.list_images(tmp_path / "x")
    with pytest.raises(UserError, match=r"(?s)no image of the same name for 1 of .*/x:.set\.1/photo$"):
        pair_by_name(inputs, tmp_path / "y")
    (tmp_path / "y" / "set.1").mkdir()
    (tmp_path / "y" / "set.png").rename(tmp_path / "y" / "set.1" / "photo.png")
    assert pair_by_name(inputs, tmp_path / "y").paths == ("set.1/photo.png",)


def test_a_tag_tells_where_the_class_name_is(tmp_path):
    write_images(tmp_path / "set" / "one" / "training", {"cat": 2, "dog": 1})
    write_images(tmp_path / "set" / "two" / "training", {"cat": 1})
    write_images(tmp_path / "set" / "two", {"other": 1})
    listing = sources.list_class_folders(tmp_path / "set", tag="training")
    assert listing.classes == ("cat", "dog")
    assert listing.paths == (
        "one/training/cat/000.png", "one/training/cat/001.png", "one/training/dog/000.png", "two/training/cat/000.png",
    )  # fmt: skip
    assert listing.labels.tolist() == [0, 0, 1, 0]
    assert listing.excluded.summary() == "1 file excluded: 1 .png (two/other/000.png: beside the class folders)"
    assert sources.list_class_folders(tmp_path / "set" / "one" / "training", tag="training").labels.tolist() == [
        0,
        0,
        1,
    ]
    with pytest.raises(UserError, match="no image lies in a folder below one named 'testing'"):
        sources.list_class_folders(tmp_path / "set", tag="testing")


def test_a_circle_of_links_beside_class_folders_is_no_class(images):
    (images / "training" / "endless").symlink_to("endless")
    listing = sources.list_class_folders(images / "training")
    assert listing.classes == ("cold", "warm")
    assert listing.excluded.summary() == "1 file excluded: 1 without an extension (endless: cannot be read)"


def test_names_that_are_no_text(tmp_path):
    root = write_images(tmp_path / "x", {"a": 8, "b": 8})
    odd = os.fsdecode(b"caf\xe9")
    for name in "ab":
        (root / name / "000.png").rename(root / name / f"{odd}.png")
    listing = sources.list_class_folders(root)
    half = sources.take_fraction(listing, 0.5, seed=0)
    assert len(half) == 8
    # Names of text are taken as before.
    assert sources.path_hash(3, "a/ü.png") == hashlib.sha256("3/a/ü.png".encode()).hexdigest()
    (root / "b").rename(root / odd)
    with pytest.raises(UserError, match=r"class folder 'caf\\udce9': expected a name in UTF-8 without control"):
        sources.list_class_folders(root)
    with pytest.raises(UserError, match=r"class folder 'caf\\udce9': expected a name in UTF-8 without control"):
        prepare(root, tmp_path / "dest")


def test_a_single_image_is_a_test_set_and_no_training_set(tmp_path):
    root = write_images(tmp_path / "x", {"a": 2})
    file = root / "a" / "001.png"
    listing = sources.list_images(file, single=True)
    assert (listing.root, list(listing.paths), listing.open(0)) == (root / "a", ["001.png"], str(file))
    write_images(tmp_path / "y", {"a": 1})
    partner = pair_by_name(listing, (tmp_path / "y" / "a" / "000.png"))
    assert partner.open(0) == str(tmp_path / "y" / "a" / "000.png")
    assert not sources.has_class_folders(file)
    zipped(root, tmp_path / "x.zip", "")
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    for path, single, message in (
        (tmp_path / "x.heic", True, r"x\.heic: HEIC is not supported; convert to JPEG$"),
        (file, False, r"001\.png: is a single image; expected a folder of images$"),
        (
            tmp_path / "x.zip",
            False,
            r"x\.zip: is a zip archive; expected a folder of images; unpack it with `tfinpaint prepare`",
        ),
        (tmp_path / "x.zip", True, r"x\.zip: is a zip archive; expected an image or a folder of images; unpack"),
    ):
        with pytest.raises(UserError, match=message):
            sources.list_images(path, single=single)
    with pytest.raises(UserError, match="is a single image; expected a folder of images"):
        sources.list_class_folders(file)
