"""Where on this host is kept what was found out about a folder of images. Nothing there is ever needed."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfinpaint.storage.mapped_arrays import store_arrays

LEAST_REMEMBERED = 5_000  # images; what is known of a smaller folder is found out in a moment


def cache_path(kind: str, *key: str) -> Path | None:
    """The file (`data.arrays`) of what is known by a key on this host, None without a cache folder.

    Hosts that share a home folder keep files of their own: one that is mapped into memory must not be replaced by
    another host, which network file systems cannot hide from its readers.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    home = os.path.expanduser("~")  # noqa: PTH111 (Path.home raises where there is none)
    folder = Path(given) if os.path.isabs(given) else Path(home, ".cache")  # noqa: PTH117
    name = hashlib.sha256("\0".join([socket.gethostname(), *key]).encode("utf-8", "surrogatepass")).hexdigest()
    return folder / "tfinpaint" / kind / f"{name[:32]}.npy" if folder.is_absolute() else None


def remember(path: Path, values: Mapping[str, np.ndarray]) -> bool:
    """Store arrays; False where that cannot be done, and nothing more is to be said of it."""
    try:
        store_arrays(path, values)
    except OSError:
        return False
    return True
