"""What is found in folders of photos as users have them, and what is refused in one line."""

import re
import shutil

import numpy as np
import pytest
from conftest import write_images, zipped
from PIL import Image

from tfinpaint.errors import UserError
from tfinpaint.project.survey import describe, survey_images

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


@pytest.fixture
def photos(tmp_path):
    """Three classes, one of which has three images, of two sizes; files that cannot be used; a hidden folder."""
    folder = write_images(tmp_path / "photos", {"cat": 30, "dog": 24}, size=(64, 48))
    write_images(folder, {"rare": 3}, size=(40, 90))
    (folder / "cat" / "IMG_1.HEIC").write_bytes(HEIC)
    whole = (folder / "dog" / "000.png").read_bytes()
    (folder / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "a.png").write_bytes(whole)
    (folder / "notes.txt").write_text("notes")
    return folder


def refusal(*arguments, **options) -> str:
    with pytest.raises(UserError) as refused:
        survey_images(*arguments, **options)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_a_folder_as_users_have_it(photos):
    found = survey_images(photos)
    assert found.classes == {"cat": (21, 9), "dog": (17, 7), "rare": (2, 1)}
    assert (found.images, found.training_images, found.test_images, found.test_fraction) == (57, 40, 17, 0.3)
    assert [path for path, _ in found.bad] == ["dog/cut.png"]
    assert (found.sides, found.is_grey) == ((40, 48, 48), False)
    assert "1 .heic (cat/IMG_1.HEIC: HEIC is not supported; convert to JPEG)" in found.excluded
    assert "1 .txt (notes.txt)" in found.excluded
    assert found.excluded.endswith("1 hidden or system file ignored")
    lines = describe(found)
    assert lines[0] == (
        f"{photos}: 57 images in 3 classes (cat 30, dog 24, rare 3); colour, the shorter side has 40 to 48 pixels, "
        "mostly about 48"
    )
    assert lines[1] == "40 images to train on, 17 to test on"
    assert lines[2].startswith("Unreadable: dog/cut.png: truncated")
    assert any(line.startswith("Too few images to learn or to test a class: rare (") for line in lines)
    assert any("With 17 test images, an accuracy of 0.8 is uncertain by 19 points" in line for line in lines)


def test_an_archive_of_class_folders_is_as_good_as_the_folder(photos, tmp_path):
    found = survey_images(zipped(photos, tmp_path / "photos.zip", "photos/"))
    assert found.classes == {"cat": (21, 9), "dog": (17, 7), "rare": (2, 1)}


def test_images_that_are_divided_already_keep_their_division(tmp_path):
    for side, count in (("train", 12), ("test", 4)):
        write_images(tmp_path / "photos" / side, {"cat": count, "dog": count}, seed=count)
    assert survey_images(tmp_path / "photos").classes == {"cat": (12, 4), "dog": (12, 4)}


@pytest.mark.parametrize("nested", [False, True])
def test_a_folder_without_classes(tmp_path, nested):
    folder = write_images(tmp_path / "photos", {"album": 25})
    (folder / "album" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    if not nested:
        for path in (folder / "album").iterdir():
            path.rename(folder / path.name)
        shutil.move(folder / "000.png", folder / "album" / "first.png")  # one in a folder beside them is no class
    found = survey_images(folder)
    assert (found.classes, found.images, found.test_images, len(found.bad)) == ({}, 25, 0, 1)
    assert found.training_images == 25
    assert "25 images without classes" in describe(found)[0]


def test_grey_images_that_were_saved_as_colours_are_grey(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 255, (40, 40, 1), np.uint8).repeat(3, axis=2)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.jpg", quality=80)
    assert survey_images(tmp_path / "photos").is_grey
    Image.new("RGB", (40, 40), (200, 60, 60)).save(tmp_path / "photos" / "a" / "red.jpg")
    assert not survey_images(tmp_path / "photos").is_grey


def test_what_cannot_be_used_is_refused(tmp_path, photos):
    empty, few, heic, flat = (tmp_path / name for name in ("empty", "few", "heic", "flat"))
    empty.mkdir()
    assert re.search(r"empty: no images in it; name a folder of photos$", refusal(empty))
    write_images(few, {"cat": 3, "dog": 3})
    assert "few: 6 usable images; expected at least 20" in refusal(few)
    heic.mkdir()
    (heic / "IMG_1.HEIC").write_bytes(HEIC)
    assert (
        "heic: no images in it (1 file excluded: 1 .heic (IMG_1.HEIC: HEIC is not supported; convert to JPEG)"
        in refusal(heic)
    )
    write_images(flat, {"": 25})
    archive = zipped(flat, tmp_path / "flat.zip", "")
    assert (
        refusal(archive)
        == f"{archive}: holds images, but no class folders; unpack it, and name the folder of the images"
    )
    assert "no such folder or archive" in refusal(tmp_path / "nowhere")
    write_images(tmp_path / "years" / "2023", {"cat": 12, "dog": 12})
    write_images(tmp_path / "years" / "2024", {"cat": 12, "dog": 12}, seed=1)
    assert "class folders at several places (2023, 2024)" in refusal(tmp_path / "years")


def test_a_class_folder_without_a_usable_image_is_refused_unless_it_is_to_be_left_out(photos):
    (photos / "iphone").mkdir()
    (photos / "iphone" / "IMG_2.HEIC").write_bytes(HEIC)
    assert "class folder without a usable image: iphone (1 file excluded: 1 .heic" in refusal(photos)
    assert list(survey_images(photos, skip_empty_classes=True).classes) == ["cat", "dog", "rare"]


def test_long_lists_are_cut_on_the_terminal(tmp_path):
    folder = write_images(tmp_path / "photos", {f"class{number:02}": 2 for number in range(20)})
    for number in range(14):
        (folder / "class00" / f"bad{number:02}.png").write_bytes(b"")
    lines = describe(survey_images(folder))
    assert ", class11 2, and 8 more); colour" in lines[0]
    assert sum(line.startswith("Unreadable: ") for line in lines) == 13
    assert "Unreadable: 2 more" in lines
