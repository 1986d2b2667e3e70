"""Folders of files that appear whole or not at all, and can be told from damaged ones.

A commit is written under a hidden name, every file of it synced to the disk, and then renamed; the folder that holds it
is synced too. Whenever the process or the machine stops, the commits before it are untouched. `manifest.json` has the
size and the SHA-256 of every file: a disk that lost what it had promised to keep, or a file that somebody changed, is
found when the commit is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfinpaint.storage.write_errors import naming
from tfinpaint.system.activity import report_activity

if TYPE_CHECKING:
    from PIL import Image

MANIFEST = "manifest.json"
MOST_BYTES = 2**20  # of a manifest
_BLOCK = 2**20
# Endings of the hidden names of what is being written, replaced, or removed; none of these is ever read. They hold this
# program's name because whatever ends so is deleted, in any folder that a configuration names.
WRITING, REPLACED, REMOVED = (f".tfinpaint-{state}" for state in ("partial", "replaced", "removed"))


def make_folder(folder: Path) -> None:
    """Make a folder for commits, which is there after a power cut, too."""
    if not folder.exists():
        folder.mkdir(parents=True)
        _sync(folder.parent)


def write_folder(final: Path, write_files: Callable[[Path], None]) -> None:
    """Make the folder `final` of what `write_files` writes into the folder it is given; one of this name is replaced.

    Raises:
        OSError: it cannot be written; what stands under this name is left as it was.
    """
    make_folder(final.parent)
    clean_up(final.parent)
    partial = _hidden(final, WRITING)
    partial.mkdir()
    try:
        write_files(partial)
        _write_manifest(partial)
        for path in partial.iterdir():
            _sync(path)
        _sync(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if final.exists():
        final.rename(_hidden(final, REPLACED))
    partial.rename(final)
    _sync(final.parent)
    clean_up(final.parent)


def remove_folder(commit: Path) -> None:
    """Delete a commit: from its name first, so that no half of it is ever found under it.

    Files that a network file system keeps because somebody reads them are left to the next `clean`.
    """
    shutil.rmtree(commit.rename(_hidden(commit, REMOVED)), ignore_errors=True)


def clean_up(folder: Path) -> None:
    """Delete what interrupted writers have left in a folder of commits; what one was about to replace comes back."""
    for replaced in folder.glob(f".*{REPLACED}"):
        final = folder / replaced.name[1 : -len(REPLACED)]
        if not final.exists():
            replaced.rename(final)
    for ending in (WRITING, REPLACED, REMOVED):
        for leftover in folder.glob(f".*{ending}"):
            shutil.rmtree(leftover, ignore_errors=True)


def find_damage(commit: Path) -> str | None:
    """What is wrong with a commit, None where every file is as it was written. All of it is read."""
    path = commit / MANIFEST
    try:
        _size(path)
        with path.open("rb") as file:
            files = json.loads(file.read(MOST_BYTES))["files"]
        for name, written in files.items():
            if Path(name).name != name:
                return f"{MANIFEST} names {name!r}, which is not a file of this folder"
            if (size := _size(commit / name)) != written["bytes"]:
                return f"{name} has {size} bytes, {written['bytes']} were written"
            if _digest(commit / name) != written["sha256"]:
                return f"{name} is not what was written: its SHA-256 is another"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(error.filename or path).name} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is not readable"
    return None


def set_aside(commit: Path) -> Path:
    """Rename a damaged commit, so that it is not in the way and its files can still be looked at."""
    aside = commit.with_name(f"{commit.name}.damaged")
    if aside.exists():
        shutil.rmtree(aside)
    return commit.rename(aside)


def _size(path: Path) -> int:
    """Of a regular file in bytes; reading a pipe, or what a link leads to, might never end."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "it is a link, a pipe or a device", str(path))
    return found.st_size


def _write_manifest(folder: Path) -> None:
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _digest(path)} for path in sorted(folder.iterdir())}
    with naming(folder / MANIFEST):
        (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=2) + "\n", "utf-8")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            report_activity()
    return digest.hexdigest()


def _hidden(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}{ending}")


def _sync(path: Path) -> None:
    report_activity()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):  # some file systems find only here that a quota is exceeded
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, contents: bytes | memoryview) -> None:
    """Write under a temporary name beside `path`, on to the disk, then rename: a power cut leaves no empty file.

    Raises:
        OSError: it cannot be written; what stands at `path` is left as it was, and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with naming(path), partial.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write as `write_bytes` does, in UTF-8; parts of names that are not UTF-8 are written as they are."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_image(path: Path, image: Image.Image, kind: str, **options: Any) -> None:
    """Write an image as `write_bytes` does; Pillow does not tell why it cannot write to a file.

    Args:
        kind: the format, and `options` what Pillow takes for it.
    """
    contents = io.BytesIO()
    image.save(contents, kind, **options)
    write_bytes(path, contents.getbuffer())
