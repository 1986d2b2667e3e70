"""Numbers of things, with the singular for one."""

from tfinpaint.data.listing.excluded import ExcludedFiles
from tfinpaint.system.wording import counted


def test_one_thing_is_not_several():
    assert [counted(number, "image") for number in (0, 1, 2, 1200)] == [
        "0 images",
        "1 image",
        "2 images",
        "1,200 images",
    ]
    assert [counted(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]


def test_one_excluded_file_is_no_example_of_several():
    excluded = ExcludedFiles()
    excluded.add("a.heic", "HEIC is not supported; convert to JPEG")
    assert excluded.summary() == "1 file excluded: 1 .heic (a.heic: HEIC is not supported; convert to JPEG)"
    excluded.add("b.heic", "HEIC is not supported; convert to JPEG")
    assert excluded.summary() == "2 files excluded: 2 .heic (a.heic, ...: HEIC is not supported; convert to JPEG)"
