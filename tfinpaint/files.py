"""Small text files, written whole or not at all; how a path is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path


def is_text(name: str) -> bool:
    """Return True for a name in UTF-8: those of files can have other bytes, which Python keeps as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name beside `path`, on to the disk, then rename: a power cut leaves no empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", errors="surrogateescape") as file:  # of names that are no UTF-8
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def shown(path: Path) -> str:
    """Return the path relative to the working directory where that is shorter."""
    try:
        return min(os.path.relpath(path), str(path), key=len)
    except OSError:  # the working directory has been deleted
        return str(path)
