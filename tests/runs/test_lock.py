"""Folders are one run's at a time, and are left as they were where the run never begins."""

import subprocess
import sys
from pathlib import Path

import pytest

from tfinpaint.errors import UserError
from tfinpaint.runs.lock import RunLock


def test_what_was_made_goes_again_unless_the_run_begins(tmp_path):
    folders = tmp_path / "new" / "run", tmp_path / "new" / "saved"
    with RunLock() as claim:
        for folder in folders:
            claim.take(folder)
            assert (folder / ".lock").exists()
    assert not list(tmp_path.iterdir())
    with RunLock() as claim:
        claim.take(folders[0])
        (folders[0] / "bad_images.txt").touch()  # somebody's file keeps its folder
    assert [path.name for path in folders[0].iterdir()] == ["bad_images.txt"]
    with RunLock() as claim:
        claim.take(folders[0])
        claim.begin()
    assert sorted(path.name for path in folders[0].iterdir()) == [".lock", "bad_images.txt"]
    before = (folders[0] / ".lock").stat().st_mtime_ns
    with RunLock() as claim:
        claim.take(folders[0])
    assert (folders[0] / ".lock").stat().st_mtime_ns == before  # it was there


def test_a_folder_is_held_until_the_claim_ends_and_no_longer(tmp_path):
    def claim_it() -> None:
        with RunLock() as claim:
            claim.take(tmp_path)

    with RunLock() as claim:
        claim.take(tmp_path)
        with pytest.raises(UserError, match=f"{tmp_path}: another process is training there"):
            claim_it()
        script = f"from pathlib import Path; from tfinpaint.runs.lock import RunLock; RunLock().take(Path({str(tmp_path)!r}))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert "another process is training there" in done.stderr
        claim.begin()
    claim_it()
    claim = RunLock()
    claim.take(tmp_path)
    claim.__exit__(ZeroDivisionError, None, None)  # whatever ends the run
    claim_it()


def test_a_run_may_have_its_checkpoints_in_its_own_folder(tmp_path):
    with RunLock() as claim:
        for folder in (tmp_path / "run", tmp_path / "run" / ".." / "run"):
            claim.take(folder)
        with pytest.raises(UserError, match="another process is training there"):
            RunLock().take(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_lock_file_that_was_removed_while_it_was_opened_is_not_trusted(tmp_path, monkeypatch):
    opened, path = Path.open, tmp_path / ".lock"
    count = 0

    def open_and_lose(self, *arguments, **options):
        nonlocal count
        file = opened(self, *arguments, **options)
        count += 1
        if count == 1:
            path.unlink()  # by a claim that ends just now
        return file

    monkeypatch.setattr(Path, "open", open_and_lose)
    with RunLock() as claim:
        claim.take(tmp_path)
        assert (count, path.exists()) == (2, True)
