"""Walking trees in order, and the index of a folder that is kept until a directory changes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from tfinpaint.data.listing import cache, folder_cache, listing, walk
from tfinpaint.errors import UserError


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def settle(root: Path, time: float = 1e9) -> None:
    """As if the folder's directories had not changed for a while."""
    for folder, _, _ in os.walk(root):
        os.utime(folder, (time, time))


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The cache folder, used for folders of any size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "MIN_IMAGES", 1)
    return tmp_path / "cache" / "tfinpaint" / "index"


@pytest.fixture
def walks(monkeypatch):
    """The folders that were read, one entry a time."""
    read: list[str] = []
    whole = walk.read_folder
    monkeypatch.setattr(walk, "read_folder", lambda place, seen: read.append(place) or whole(place, seen))
    return read


NAMES = (
    "a-b/1.png",
    "a.png",
    "a/1.png",
    "a/b/1.png",
    "a/b.png",
    "a/b-1.png",
    "a0/ü.jpg",
    "a0/z.JPG",
    "b.txt",
    "z/.x.png",
)


def test_the_order_is_that_of_the_sorted_paths(tmp_path):
    root = make_files(tmp_path, *NAMES)
    assert list(walk.walk_files(root)) == sorted(name for name in NAMES if ".x" not in name)


def test_links_are_followed_and_circles_are_not(tmp_path):
    root = make_files(tmp_path / "x", "b/1.png")
    make_files(tmp_path / "elsewhere", "2.png")
    (root / "a").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "up").symlink_to(root)
    (root / "b" / "self").symlink_to("self")
    assert list(walk.walk_files(root)) == ["a/2.png", "b/1.png", "b/self"]


def test_a_file_in_place_of_a_folder(tmp_path):
    make_files(tmp_path, "file")
    with pytest.raises(UserError, match="file: cannot be read: Not a directory"):
        list(walk.walk_files(tmp_path / "file"))


def test_an_unchanged_folder_is_not_walked_again(tmp_path, cached, walks):
    root = make_files(tmp_path / "x", *NAMES)
    settle(root)
    first = folder_cache.list_folder(root)
    assert len(walks) == 6
    again = folder_cache.list_folder(root)
    assert len(walks) == 6
    assert again.images == first.images == sorted(NAMES[:8])
    expected = "1 file excluded: 1 .txt (b.txt); 1 hidden or system file ignored"
    assert (
        again.excluded.summary() == first.excluded.summary() == listing.list_images(root).excluded.summary() == expected
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root: (root / "a" / "b" / "2.png").touch(), 9),
        (lambda root: (root / "a.png").unlink(), 7),
        (lambda root: (root / "a.png").rename(root / "c.png"), 8),
        (lambda root: (root / "a.png").rename(root / "a.txt"), 7),
        (lambda root: shutil.rmtree(root / "a" / "b"), 7),
        (lambda root: make_files(root, "new/1.png"), 9),
    ],
)
def test_what_was_added_removed_or_renamed_is_noticed(tmp_path, cached, change, expected):
    root = make_files(tmp_path / "x", *NAMES)
    settle(root)
    assert len(folder_cache.list_folder(root).images) == 8
    change(root)
    assert len(folder_cache.list_folder(root).images) == expected
    settle(root, 1.1e9)
    assert len(folder_cache.list_folder(root).images) == expected


def test_a_folder_that_is_just_being_filled_is_not_remembered(tmp_path, cached):
    root = make_files(tmp_path / "x", *NAMES)
    folder_cache.list_folder(root)
    assert not cached.exists()


def test_directories_without_times_are_not_relied_on(tmp_path, cached):
    root = make_files(tmp_path / "x", *NAMES)
    settle(root)
    os.utime(root, (0, 0))
    folder_cache.list_folder(root)
    assert not cached.exists()


def test_small_folders_are_not_remembered(tmp_path, cached, monkeypatch):
    monkeypatch.setattr(cache, "MIN_IMAGES", 9)
    settle(root := make_files(tmp_path / "x", *NAMES))
    folder_cache.list_folder(root)
    assert not cached.exists()


def test_two_folders_do_not_share_an_index(tmp_path, cached):
    for name in ("x", "y"):
        settle(make_files(tmp_path / name, f"{name}.png"))
    assert folder_cache.list_folder(tmp_path / "x").images == ["x.png"]
    assert folder_cache.list_folder(tmp_path / "y").images == ["y.png"]
    (tmp_path / "link").symlink_to("x")
    assert folder_cache.list_folder(tmp_path / "link").images == ["x.png"]
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("y")
    assert folder_cache.list_folder(tmp_path / "link").images == ["y.png"]


def test_damaged_caches_are_made_again(tmp_path, cached, walks):
    root = make_files(tmp_path / "x", *NAMES)
    settle(root)
    folder_cache.list_folder(root)
    file = next(cached.iterdir())
    whole = file.read_bytes()
    damaged = [b"", b"x", whole[:-1], whole[:200], whole[: len(whole) // 2], b"\x93NUMPY" + bytes(300)]
    for place in (3, 40, 130, 200, 300, whole.index(b"a-b/1.png") + 2, len(whole) - 1):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for contents in damaged:
        file.write_bytes(contents)
        walks.clear()
        assert folder_cache.list_folder(root).images == sorted(NAMES[:8])
        assert len(walks) == 6, contents[:8]
        assert file.read_bytes() == whole


def test_no_pickle_is_ever_loaded(tmp_path, cached):
    root = make_files(tmp_path / "x", *NAMES)
    settle(root)
    folder_cache.list_folder(root)
    file = next(cached.iterdir())
    with file.open("wb") as target:
        np.save(target, np.array([{}], object), allow_pickle=True)
    assert folder_cache.list_folder(root).images == sorted(NAMES[:8])


@pytest.mark.parametrize("place", ["file/below", "relative", ""])
def test_without_a_place_for_a_cache_there_is_none(tmp_path, monkeypatch, place):
    make_files(tmp_path, "file")
    monkeypatch.setattr(cache, "MIN_IMAGES", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / place) if "file" in place else place)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    settle(root := make_files(tmp_path / "x", *NAMES))
    for _ in range(2):
        assert len(folder_cache.list_folder(root).images) == 8


def test_processes_that_start_together_do_no_harm(tmp_path, cached):
    settle(root := make_files(tmp_path / "x", *(f"{i:04}.png" for i in range(500))))
    script = (
        "import sys; from pathlib import Path; from tfinpaint.data.listing import cache, folder_cache; cache.MIN_IMAGES = 1\n"
        "for _ in range(30): assert len(folder_cache.list_folder(Path(sys.argv[1])).images) == 500\n"
        "for file in Path(sys.argv[2]).glob('*.npy'): file.unlink(missing_ok=True)\n"
    )
    command = [sys.executable, "-c", script, str(root), str(cached)]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert len(folder_cache.list_folder(root).images) == 500
    assert [path.suffix for path in cached.iterdir()] == [".npy"]


@pytest.mark.stress
def test_what_an_image_costs_a_rank_is_bounded():
    script = ROOT / "scripts" / "bench" / "index.py"
    command = [sys.executable, script, "--images", "1000000", "--ranks", "2", "--files", "2000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    bytes_of = {line["what"]: line.get("peak_bytes_per_image") for line in lines}
    # With 5 million images and one rank, 39; two ranks share some of it. Tuples of strings and numbers take over 200.
    assert 10 < bytes_of["all of a rank's start and first pass"] < 60
    assert bytes_of["list and write the index"] < 60
    index_mib = next(line["mib"] for line in lines if line["what"].startswith("the index"))
    assert index_mib == pytest.approx(1e6 * (len("class_00000/image_00000000.jpg") + 8) / 2**20, abs=0.1)
