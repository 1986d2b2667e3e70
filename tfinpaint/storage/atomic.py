"""Write files and folders so that they appear whole or not at all.

A file or folder is written under a hidden name, synced to the disk, and then renamed. Whenever the process or the
machine stops, what stood under the name before is untouched. A folder also gets a `manifest.json` with the size and the
SHA-256 of every file, by which damage is found later.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tfinpaint.storage.write_errors import naming_file
from tfinpaint.system.activity import report_activity

if TYPE_CHECKING:
    from PIL import Image

MANIFEST = "manifest.json"
MOST_BYTES = 2**20  # of a manifest
_BLOCK = 2**20  # bytes that are hashed at a time
# Endings of the hidden names of folders that are being written, replaced or removed; none of these is ever read. They
# contain this program's name because `clean_up` deletes whatever has them, in any folder that a configuration names.
WRITING, REPLACED, REMOVED = (f".tfinpaint-{state}" for state in ("partial", "replaced", "removed"))


@contextmanager
def atomic_file(path: Path, *, contended: bool = False) -> Iterator[Path]:
    """Yield the name of a hidden file to write; when the block ends, sync that file and rename it to `path`.

    Args:
        contended: several processes may write this file at the same time, so each uses a hidden name of its own.

    Raises:
        OSError: The file cannot be written. What stands at `path` is left as it was, and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _hidden(path, f".{os.getpid()}.partial" if contended else ".partial")
    try:
        with naming_file(path):
            yield partial
            _sync(partial)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_bytes(path: Path, contents: bytes) -> None:
    """Write a file as `atomic_file` does."""
    with atomic_file(path) as partial:
        partial.write_bytes(contents)


def write_text(path: Path, text: str) -> None:
    """Write a file as `atomic_file` does, in UTF-8; file names in the text need not be UTF-8."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, as `atomic_file` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as comma-separated values, as `atomic_file` does."""
    text = io.StringIO()
    csv_writer(text).writerows(rows)
    write_text(path, text.getvalue())


def csv_writer(file: IO[str]) -> Any:
    """Return a writer of comma-separated values with a line feed behind each row.

    A value with a carriage return, as a file's name may have, is quoted: `csv` itself does not do that where lines end
    with a line feed alone, and its reader then takes one row for two.
    """
    return csv.writer(_LineFeeds(file), lineterminator="\r\n")


class _LineFeeds:
    """A file for rows that end with CR LF, which are written with LF alone."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, row: str) -> None:
        self._file.write(row.removesuffix("\r\n") + "\n")


def write_image(path: Path, image: Image.Image, kind: str, **options: Any) -> None:
    """Write an image as `atomic_file` does.

    Args:
        kind: the format, such as "PNG", and `options` those that Pillow takes for it.
    """
    contents = io.BytesIO()
    image.save(contents, kind, **options)  # to a file, Pillow would not report why it cannot write
    write_bytes(path, contents.getvalue())


def make_folder(folder: Path) -> None:
    """Make a folder that is still there after a power cut."""
    if not folder.exists():
        folder.mkdir(parents=True)
        _sync(folder.parent)


def write_folder(final: Path, write_files: Callable[[Path], None]) -> None:
    """Make the folder `final`, or replace it, with the files that `write_files` writes into the folder it is given.

    Raises:
        OSError: The folder cannot be written. What stands at `final` is left as it was.
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


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield a hidden folder to fill, also with folders; when the block ends, rename it to `final`, which is not there.

    What other processes write beside it at the same time stays; what an interrupted one has left of it is deleted.

    Raises:
        OSError: The folder cannot be written. Nothing is left beside `final`.
    """
    make_folder(final.parent)
    partial = _hidden(final, WRITING)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for path in sorted(partial.rglob("*"), reverse=True):  # what is in a folder before the folder
            _sync(path)
        _sync(partial)
        partial.rename(final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync(final.parent)


def remove_folder(folder: Path) -> None:
    """Delete a folder after renaming it, so that half of it is never found under its name.

    A network file system keeps files that somebody still reads; the next `clean_up` deletes them.
    """
    shutil.rmtree(folder.rename(_hidden(folder, REMOVED)), ignore_errors=True)


def clean_up(parent: Path) -> None:
    """Delete what interrupted writers have left in `parent`; restore a folder that was about to be replaced."""
    for replaced in parent.glob(f".*{REPLACED}"):
        final = parent / replaced.name[1 : -len(REPLACED)]
        if not final.exists():
            replaced.rename(final)
    for ending in (WRITING, REPLACED, REMOVED):
        for leftover in parent.glob(f".*{ending}"):
            shutil.rmtree(leftover, ignore_errors=True)


def find_damage(folder: Path) -> str | None:
    """Read a folder that `write_folder` has written; return what is wrong with it, None if nothing is."""
    path = folder / MANIFEST
    try:
        _size(path)
        with path.open("rb") as file:
            files = json.loads(file.read(MOST_BYTES))["files"]
        for name, written in files.items():
            if Path(name).name != name:
                return f"{MANIFEST} names {name!r}, which is not a file of this folder"
            if (size := _size(folder / name)) != written["bytes"]:
                return f"{name} has {size} bytes, {written['bytes']} were written"
            if _digest(folder / name) != written["sha256"]:
                return f"{name} is not what was written: its SHA-256 differs"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(error.filename or path).name} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is not readable"
    return None


def set_aside(folder: Path) -> Path:
    """Rename a damaged folder to `<name>.damaged`, so that its name is free and its files can still be examined."""
    aside = folder.with_name(f"{folder.name}.damaged")
    if aside.exists():
        shutil.rmtree(aside)
    return folder.rename(aside)


def _size(path: Path) -> int:
    """Return the size of a regular file in bytes; refuse others, because reading a pipe or a device may never end."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "it is a link, a pipe or a device", str(path))
    return found.st_size


def _write_manifest(folder: Path) -> None:
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _digest(path)} for path in sorted(folder.iterdir())}
    with naming_file(folder / MANIFEST):
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
        with naming_file(path):  # some file systems report only here that a quota is exceeded
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
