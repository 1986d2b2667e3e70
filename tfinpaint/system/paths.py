"""Show paths, and tell which names are text."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path


def is_text(name: str) -> bool:
    """Return True for a name in UTF-8: those of files can have other bytes, which Python keeps as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def display_path(path: Path) -> str:
    """Return the path relative to the working directory where that is shorter."""
    try:
        return min(os.path.relpath(path), str(path), key=len)
    except OSError:  # the working directory has been deleted
        return str(path)


def typed_path(path: Path) -> str:
    """Return the path as it is typed in a shell, relative to the working directory where that is shorter."""
    return shlex.quote(display_path(path))


def shorten_paths(message: str) -> str:
    """Return a message in which the paths below the working directory are relative to it."""
    try:
        folder = Path.cwd()
    except OSError:  # it has been deleted
        return message
    if folder == Path("/"):
        return message
    return re.sub(rf"(?<![\w./-]){re.escape(str(folder))}/(?=[\w.])", "", message)
