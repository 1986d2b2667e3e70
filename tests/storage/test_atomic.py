"""Folders are whole or not at all wherever the process ends, and damage is found."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tfinpaint.storage import atomic
from tfinpaint.storage.atomic import (
    clean_up,
    find_damage,
    new_folder,
    remove_folder,
    set_aside,
    write_folder,
    write_image,
)


def write(folder: Path, text: str, name: str = "one") -> Path:
    final = folder / name

    def write_files(partial: Path) -> None:
        (partial / "a.txt").write_text(text)
        (partial / "b.bin").write_bytes(text.encode() * 1000)

    write_folder(final, write_files)
    return final


def test_a_commit_is_what_was_written_and_its_manifest_knows_it(tmp_path):
    final = write(tmp_path, "new")
    assert (final / "a.txt").read_text() == "new"
    manifest = json.loads((final / atomic.MANIFEST).read_text())
    assert {name: file["bytes"] for name, file in manifest["files"].items()} == {"a.txt": 3, "b.bin": 3000}
    assert find_damage(final) is None
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def endless(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda c: (c / "b.bin").write_bytes(b"x" * 3000), "b.bin is not what was written"),
        (lambda c: (c / "b.bin").write_bytes(b"new" * 999), "b.bin has 2997 bytes, 3000 were written"),
        (lambda c: (c / "a.txt").unlink(), "a.txt is missing"),
        (lambda c: (c / atomic.MANIFEST).unlink(), "manifest.json is missing"),
        (lambda c: (c / atomic.MANIFEST).write_text("{"), "manifest.json is not readable"),
        (lambda c: (c / atomic.MANIFEST).write_text("[]"), "manifest.json is not readable"),
        (lambda c: (c / atomic.MANIFEST).write_text("[" * 10**5), "manifest.json is not readable"),
        (lambda c: (c / atomic.MANIFEST).write_text('{"files": {"../x": {}}}'), "names '../x', which is not a file"),
        (lambda c: (c / atomic.MANIFEST).write_text('{"files": {"a.txt": 3}}'), "manifest.json is not readable"),
        (lambda c: endless(c / "a.txt"), "a.txt cannot be read: it is a link, a pipe or a device"),
        (lambda c: endless(c / atomic.MANIFEST), "manifest.json cannot be read: it is a link, a pipe or a device"),
        (lambda c: ((c / "b.bin").unlink(), (c / "b.bin").symlink_to("/dev/zero")), "b.bin cannot be read: it is a"),
    ],
)
def test_damage_is_found_and_named(tmp_path, damage, expected):
    final = write(tmp_path, "new")
    damage(final)
    assert expected in find_damage(final)
    aside = set_aside(final)
    assert (aside.name, final.exists()) == ("one.damaged", False)


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    final = write(tmp_path, "old")
    with pytest.raises(OSError, match="full"):
        write_folder(final, lambda partial: (_ for _ in ()).throw(OSError("full")))
    assert find_damage(final) is None
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_what_a_failed_write_leaves_in_memory_can_be_collected(tmp_path, monkeypatch):
    """A view of a BytesIO object in a reference cycle ends Python 3.12.1, and Python 3.13 reports an error."""
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError) as raised:
        write_image(tmp_path / "file" / "x.png", Image.new("RGB", (8, 8)), "PNG")
    raised.value.itself = raised.value
    del raised
    gc.collect()
    assert reported == []


# A process without threads forks those that end. Arguments: the folder with a folder for each, and what each of them does.
ENDING = """
import os, shutil, sys
from pathlib import Path
from tfinpaint.storage.atomic import remove_folder
from test_atomic import write

CALLS = ((os, "fsync"), (Path, "mkdir"), (Path, "rename"), (Path, "write_text"), (shutil, "rmtree"))

def act(folder, last):  # and end at the call to the file system with this number
    count = 0
    def counted(function):
        def call(*arguments, **keywords):
            nonlocal count
            count += 1
            if count == last:
                os._exit(77)
            return function(*arguments, **keywords)
        return call
    for owner, name in CALLS:
        setattr(owner, name, counted(getattr(owner, name)))
    remove_folder(folder / "one") if sys.argv[2] == "remove" else write(folder, "new", sys.argv[2])

for number in range(1, 100):
    write(folder := Path(sys.argv[1], str(number)), "old")
    if os.fork() == 0:
        act(folder, number)
        os._exit(0)
    if (code := os.waitstatus_to_exitcode(os.wait()[1])) != 77:
        sys.exit(code)
"""


def act_until_ended(parent: Path, action: str) -> list[Path]:
    """Return folders: in the n-th, a process acted that ended at its n-th call to the file system; in the last, one that did not.

    Args:
        action: "remove" removes the folder `one`; others are names of a folder to write.
    """
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run([sys.executable, "-c", ENDING, parent, action], env={**os.environ, "PYTHONPATH": path}, check=True)
    return sorted(parent.iterdir(), key=lambda folder: int(folder.name))


@pytest.mark.parametrize("same_name", [False, True])
def test_wherever_the_process_ends_the_old_one_or_the_new_one_is_whole(tmp_path, same_name):
    *ended, _ = act_until_ended(tmp_path, "one" if same_name else "two")
    kept = set()
    for folder in ended:
        clean_up(folder)
        visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
        whole = {(path / "a.txt").read_text() for path in visible if find_damage(path) is None}
        assert len(whole) == len(visible) > 0
        kept |= whole
        if not same_name:
            assert "old" in whole
        write(folder, "later", "three")
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert len(ended) >= 8
    assert kept == {"old", "new"}


def test_hidden_folders_of_others_stay(tmp_path):
    others = [tmp_path / name for name in (".mine.partial", ".old.removed", ".x.replaced", "a.tfinpaint-partial")]
    for other in others:
        other.mkdir()
    (tmp_path / f".one{atomic.WRITING}").mkdir()
    write(tmp_path, "new")
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "one"])


def test_folders_are_made_beside_each_other_at_the_same_time(tmp_path):
    (tmp_path / f".first{atomic.WRITING}").mkdir()  # what an interrupted one has left
    (tmp_path / f".first{atomic.WRITING}" / "old").touch()
    with new_folder(tmp_path / "first") as first:
        (first / "a").touch()
        with new_folder(tmp_path / "second") as second:
            (second / "b").touch()
        (first / "c").touch()
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {
        "first", "first/a", "first/c", "second", "second/b",
    }  # fmt: skip


def test_what_somebody_still_reads_is_removed_later(tmp_path, monkeypatch):
    write(tmp_path, "old")
    with monkeypatch.context() as patches:
        patches.setattr(os, "rmdir", lambda *_, **__: (_ for _ in ()).throw(OSError(39, "Directory not empty")))
        remove_folder(tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == [f".one{atomic.REMOVED}"]
    clean_up(tmp_path)
    assert not list(tmp_path.iterdir())


def test_removing_is_never_seen_half_done(tmp_path):
    folders = act_until_ended(tmp_path, "remove")
    assert len(folders) > 1
    assert all(not (folder / "one").exists() or find_damage(folder / "one") is None for folder in folders)
    assert not (folders[-1] / "one").exists()
