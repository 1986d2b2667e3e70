"""The folder that `prepare` writes: it appears complete, or not at all."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfinpaint.errors import UserError

PROGRESS = ".progress"  # a folder in the partial folder
SCRATCH = ".scratch"  # in PROGRESS: a folder for temporary files
PLAN = "plan.json"  # in PROGRESS: packing has begun, and can be resumed


def check_destination(source: Path, dest: Path) -> Path:
    """Return the destination as an absolute path. Raise UserError if it is not empty, or inside the source."""
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise UserError(f"{dest}: already exists; remove it or name another folder")
    dest = dest.resolve()
    if source.is_dir() and dest.is_relative_to(source.resolve()):
        raise UserError(f"{dest}: lies inside {source}; name a folder elsewhere")
    return dest


def partial_folder(dest: Path) -> Path:
    """Return the folder in which everything is written before it gets the name of the destination."""
    return dest.with_name(f".{dest.name}.partial")


@contextmanager
def locked(partial: Path) -> Iterator[Path]:
    """Hold a partial folder for this process within a `with` statement; yield its folder PROGRESS.

    Raises:
        UserError: another process writes there.
        OSError: the folder cannot be made.
    """
    progress = partial / PROGRESS
    progress.mkdir(parents=True, exist_ok=True)
    with (progress / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{partial}: another process is writing there; wait until it has ended") from None
        yield progress


def put_in_place(partial: Path, dest: Path) -> None:
    """Rename the complete partial folder to the destination, which may be an empty folder, and remove PROGRESS."""
    if dest.exists():
        dest.rmdir()
    partial.rename(dest)
    shutil.rmtree(dest / PROGRESS)
