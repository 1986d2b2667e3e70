"""Writing records: resumed to the same bytes, refused where something else was begun, bad images left out."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, tree, write_images, zipped

from tfinpaint.data.ingest.copy import prepare
from tfinpaint.data.ingest.pack import pack as pack_tree
from tfinpaint.data.ingest.pack import prepare_records
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.records import plan, writer
from tfinpaint.data.records.plan import RecordsPlan
from tfinpaint.errors import UserError
from tfinpaint.system.paths import display_path

SHARD_BYTES = 5_000  # three or four of the images here


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(plan, "SHARD_BYTES", SHARD_BYTES)


@pytest.fixture
def source(tmp_path) -> Path:
    return write_images(tmp_path / "source", {"a": 14, "b": 12})


def interrupted(source: Path, dest: Path, image: int, call, monkeypatch) -> Path:
    """Interrupt a call when it has an image in hand, and return the folder that it leaves."""
    left, whole = iter(range(image)), writer._example

    def example(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_example", example)
        with pytest.raises(KeyboardInterrupt):
            call(source, dest)
    return dest.with_name(f".{dest.name}.partial")


def killed(source: Path, dest: Path, image: int, call: str) -> Path:
    """Pack in a process that kills itself when it has an image in hand, and return the folder that it leaves."""
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tfinpaint.data.ingest import pack; from tfinpaint.data.records import plan, writer\n"
        f"plan.SHARD_BYTES, left, whole = {SHARD_BYTES}, {image}, writer._example\n"
        "def example(*arguments):\n"
        "    global left; left -= 1\n"
        "    return whole(*arguments) if left else os.kill(os.getpid(), signal.SIGKILL)\n"
        "writer._example = example\n"
        f"pack.{call}(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, str(source), str(dest)], env=environment, capture_output=True)
    assert done.returncode == -9, done.stderr
    assert not dest.exists()
    return dest.with_name(f".{dest.name}.partial")


@pytest.fixture
def written(monkeypatch):
    """Names of the shards that are written."""
    names: list[str] = []
    whole = writer._write_shard
    monkeypatch.setattr(
        writer,
        "_write_shard",
        lambda path, *rest: names.append(f"{path.parent.name}/{path.name}") or whole(path, *rest),
    )
    return names


def test_the_split_is_that_of_the_files(source, tmp_path):
    (source / "a" / "notes.txt").write_bytes(b"x")
    (source / "b" / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    files, packed = prepare(source, tmp_path / "f", seed=3), prepare_records(source, tmp_path / "r", seed=3)
    assert packed.counts == files.counts == {"a": (13, 1), "b": (11, 1)}
    assert packed.lines()[:-1] == files.lines()[:-1]
    assert packed.excluded.summary() == files.excluded.summary() == "1 file excluded: 1 .txt (a/notes.txt)"
    for side in ("training", "testing"):
        one, other = (sources.list_class_folders(tmp_path / kind / side) for kind in ("f", "r"))
        assert one.paths == other.paths
        assert all(Path(one.open(i)).read_bytes() == other.open(i).read() for i in range(len(one)))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    zipped(source, tmp_path / "x.zip", "deep/set/")
    prepare_records(tmp_path / "x.zip", tmp_path / "z", seed=3)
    assert tree(tmp_path / "z") == tree(tmp_path / "r")


@pytest.mark.stress
def test_what_was_killed_goes_on_to_the_same_bytes(source, tmp_path, written):
    prepare_records(source, tmp_path / "whole")
    assert len(written) == 8  # 7 + 1
    partial = killed(source, tmp_path / "dest", 15, "prepare_records")
    finished = sorted(path.name for path in partial.glob("training/images*"))
    assert len(finished) == 4
    inodes = [(partial / "training" / name).stat().st_ino for name in finished]
    damaged = partial / "training" / finished[1]
    contents = damaged.read_bytes()
    damaged.write_bytes(contents[:-1] + b"\0")
    written.clear()
    prepare_records(source, tmp_path / "dest")
    assert written == [f"training/images-{i:05}-of-00007.tfrecord" for i in (1, 4, 5, 6)] + [
        "testing/images-00000-of-00001.tfrecord"
    ]
    assert tree(tmp_path / "dest") == tree(tmp_path / "whole")
    assert (tmp_path / "dest" / "training" / finished[0]).stat().st_ino == inodes[0]
    assert not partial.exists()


def test_what_was_begun_otherwise_is_refused_and_kept(source, tmp_path, monkeypatch):
    partial = interrupted(source, tmp_path / "dest", 9, pack_tree, monkeypatch)
    before = tree(partial)
    for start, message in (
        (lambda: prepare_records(source, tmp_path / "dest"), r"\(test_fraction was None and is 0\.1\)"),
        (
            lambda: prepare(source, tmp_path / "dest"),
            "contains unfinished records; finish them with --records, or remove",
        ),
    ):
        with pytest.raises(UserError, match=message):
            start()
    write_images(tmp_path / "other", {"a": 3})
    with pytest.raises(UserError, match=r"other arguments \(source was .*source and is .*other\); use those"):
        pack_tree(tmp_path / "other", tmp_path / "dest")
    os.utime(source / "a" / "000.png", (1e9, 1e9))
    with pytest.raises(UserError, match=r"\(its images have changed since\); use those, or remove that folder"):
        pack_tree(source, tmp_path / "dest")
    assert tree(partial) == before


def test_two_at_once_are_refused(source, tmp_path):
    progress = tmp_path / ".dest.partial" / ".progress"
    progress.mkdir(parents=True)
    with (progress / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for start in (pack_tree, prepare):
            with pytest.raises(UserError, match=r"\.dest\.partial: another process is writing there; wait until it"):
                start(source, tmp_path / "dest")
            assert progress.exists()
    assert sum(map(sum, prepare(source, tmp_path / "dest").counts.values())) == len(tree(tmp_path / "dest")) > 0


def test_bad_images_are_named_and_left_out_of_a_tree(source, tmp_path):
    (source / "a" / "003.png").write_bytes(b"")
    (source / "b" / "005.png").write_bytes(b"text")
    (source / "b" / "notes.txt").write_bytes(b"text")
    report = pack_tree(source, tmp_path / "dest")
    assert report.lines() == [
        "Unreadable, excluded: a/003.png: empty: 0 bytes",
        "Unreadable, excluded: b/005.png: not an image: text",
        f"{display_path(tmp_path / 'dest')}: 24 images, 2 unreadable; 1 file excluded: 1 .txt (b/notes.txt)",
    ]
    listing = sources.list_class_folders(tmp_path / "dest")
    assert len(listing) == 24
    assert "a/003.png" not in listing.paths
    assert all(listing.open(i).read() == (source / path).read_bytes() for i, path in enumerate(listing.paths))


def test_nothing_is_left_behind_where_nothing_can_be_packed(tmp_path):
    write_images(tmp_path / "one", {"a": 2})
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    odd = write_images(tmp_path / "odd", {"a": 1})
    (odd / "a" / "000.png").rename(odd / "a" / os.fsdecode(b"\xff.png"))
    for call, name, message in (
        (prepare_records, "one", "only one class"),
        (pack_tree, "empty", "empty: no images found"),
        (pack_tree, "nowhere", "no such folder or archive"),
        (pack_tree, "odd", "name is not UTF-8, which records need; rename it"),
    ):
        with pytest.raises(UserError, match=message):
            call(tmp_path / name, tmp_path / "dest")
        assert not list(tmp_path.glob("*dest*")), name
    with pytest.raises(UserError, match="no readable image is left"):
        pack_tree(tmp_path / "bad", tmp_path / "dest")
    assert not (tmp_path / "dest").exists()
    with pytest.raises(UserError, match="already exists"):
        pack_tree(tmp_path / "one", tmp_path / "one")


def test_a_full_disk_is_told_and_what_was_finished_is_kept(source, tmp_path, written, monkeypatch):
    whole, calls = writer._store_finished, []

    def keep(path, shard):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        whole(path, shard)

    monkeypatch.setattr(writer, "_store_finished", keep)
    with pytest.raises(
        UserError,
        match=r"dest: cannot be written: No space left on device; free some space; finished shards are kept in",
    ):
        pack_tree(source, tmp_path / "dest")
    written.clear()
    pack_tree(source, tmp_path / "dest")
    assert [name[-24:] for name in written] == [f"-{i:05}-of-00008.tfrecord" for i in range(2, 8)]
    pack_tree(source, tmp_path / "whole")
    assert tree(tmp_path / "dest") == tree(tmp_path / "whole")


def test_an_image_that_changes_while_it_is_packed_is_told(source, tmp_path):
    images = RecordsPlan(*[plan.Names.of(["a/000.png"])] * 2, np.array([3]), checked=True)
    read = lambda name: (source / name).read_bytes()  # noqa: E731
    with pytest.raises(UserError, match=r"a/000.png: changed during packing: \d+ bytes instead of 3"):
        writer.write_records(tmp_path / "r", tmp_path / "p", images, read)


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([10], [1]),
        ([5_000], [1]),
        ([5_001, 1], [2]),
        ([1, 90_000, 1, 1], [1, 3]),
        ([2_500] * 6, [2, 2, 2]),
        ([0, 0], [2]),
    ],
)
def test_shards_are_cut_by_bytes_and_none_is_empty(sizes, parts):
    names = plan.Names.of(str(i) for i in range(len(sizes)))
    found = RecordsPlan(names, names, np.array(sizes), checked=True).shard_ranges()
    assert [len(part) for part in found] == parts
    assert [i for part in found for i in part] == list(range(len(sizes)))
