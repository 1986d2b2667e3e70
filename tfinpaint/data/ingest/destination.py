"""The folder that `prepare` writes: it appears complete, or not at all."""

from __future__ import annotations

from pathlib import Path

from tfinpaint.errors import UserError

SCRATCH, PROGRESS = ".scratch", ".progress"  # folders in the partial folder
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


def put_in_place(partial: Path, dest: Path) -> None:
    """Rename the complete partial folder to the destination, which may be an empty folder."""
    if dest.exists():
        dest.rmdir()
    partial.rename(dest)
