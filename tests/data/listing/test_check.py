"""Images that were readable once are not decoded again as long as they have not changed."""

import numpy as np
import pytest
from conftest import write_images

from tfinpaint.config.transforms import Transform
from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.data.listing import cache
from tfinpaint.data.listing import check as check_module
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.listing.check import check_images, check_images_once
from tfinpaint.storage.mapped_arrays import load_arrays
from tfinpaint.system import parallel

OPTIONS = DecodeOptions((Transform(resize=[8, 8]),))


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    """The paths that were decoded, with a cache for folders of any size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "MIN_IMAGES", 1)
    monkeypatch.setattr(parallel, "BLOCK", 3)
    found: list[str] = []

    def find(listing, indices, options):
        found.extend(listing.paths[i] for i in indices)
        return check_images(listing, indices, options)

    monkeypatch.setattr(check_module, "check_images", find)
    return found


@pytest.fixture
def root(tmp_path):
    return write_images(tmp_path / "x", {"a": 7, "b": 4})


def check(root, decoded, rank=0, count=1, options=OPTIONS):
    """(bad paths, paths that were decoded)"""
    listing = sources.list_images(root)
    decoded.clear()
    bad = check_images_once(listing, rank, range(rank, len(listing), count), options).bad
    return [listing.paths[i] for i in bad], sorted(decoded)


def test_the_second_look_decodes_nothing_but_what_is_new_or_changed_or_bad(root, decoded):
    (root / "a" / "003.png").write_bytes(b"bad")
    bad, first = check(root, decoded)
    assert (bad, len(first)) == (["a/003.png"], 11)
    assert check(root, decoded) == (["a/003.png"], ["a/003.png"])
    write_images(root, {"c": 1})
    whole = (root / "b" / "001.png").read_bytes()
    (root / "b" / "001.png").write_bytes(whole[:-50])
    assert check(root, decoded) == (["a/003.png", "b/001.png"], ["a/003.png", "b/001.png", "c/000.png"])
    (root / "b" / "001.png").write_bytes(whole)
    (root / "a" / "003.png").write_bytes(whole)
    assert check(root, decoded) == ([], ["a/003.png", "b/001.png"])
    assert check(root, decoded) == ([], [])


def test_a_file_of_the_same_size_is_known_by_its_time(root, decoded):
    check(root, decoded)
    path = root / "a" / "000.png"
    path.write_bytes(bytes(path.stat().st_size))
    assert check(root, decoded) == (["a/000.png"], ["a/000.png"])


def test_results_depend_on_how_images_are_decoded(root, decoded):
    check(root, decoded)
    label_map = DecodeOptions((Transform(resize=[8, 8]),), channels=1, is_label_map=True)
    assert len(check(root, decoded, options=label_map)[0]) == 11  # these are not label maps
    assert check(root, decoded) == ([], [])


def test_what_any_number_of_ranks_found_is_known_to_any_other(root, decoded):
    for rank in range(4):
        check(root, decoded, rank, 4)
        assert len(decoded) == len(range(rank, 11, 4))
    assert check(root, decoded) == ([], [])
    assert check(root, decoded, 1, 2) == ([], [])
    write_images(root, {"c": 2})
    assert check(root, decoded, 0, 2)[1] == ["c/001.png"]  # index 12
    assert check(root, decoded, 1, 2)[1] == ["c/000.png"]
    assert check(root, decoded) == ([], [])


def test_a_missing_file_is_bad_and_never_cached(root, decoded):
    listing = sources.list_images(root)
    (root / "b" / "000.png").unlink()
    for _ in range(2):
        bad = check_images_once(listing, 0, range(11), OPTIONS).bad
        assert list(bad) == [7]
        assert bad[7] == "missing: no such file"


def test_a_damaged_cache_is_replaced(root, decoded, tmp_path):
    check(root, decoded)
    (file,) = (tmp_path / "cache" / "tfinpaint" / "checked").iterdir()
    contents = file.read_bytes()
    file.write_bytes(contents[:-3] + bytes(3))
    assert len(check(root, decoded)[1]) == 11
    assert file.read_bytes() == contents
    assert load_arrays(file, {"keys": np.uint64, "prints": np.uint8})["keys"].shape == (11,)
