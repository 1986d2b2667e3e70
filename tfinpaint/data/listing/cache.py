"""The cache of results about a folder of images, on this host. Deleting it costs time and nothing else."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfinpaint.storage.mapped_arrays import store_arrays

MIN_IMAGES = 5_000  # results about a smaller folder are not cached: computing them takes no time


def cache_path(kind: str, *key: str) -> Path | None:
    """Return the cache file of a key, for `storage.mapped_arrays`; None where this host has no cache folder.

    Each host has files of its own: a mapped file must not be replaced by another host that shares the home folder.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    home = os.path.expanduser("~")  # noqa: PTH111 (Path.home raises where there is none)
    folder = Path(given) if os.path.isabs(given) else Path(home, ".cache")  # noqa: PTH117
    name = hashlib.sha256("\0".join([socket.gethostname(), *key]).encode("utf-8", "surrogatepass")).hexdigest()
    return folder / "tfinpaint" / kind / f"{name[:32]}.npy" if folder.is_absolute() else None


def store_in_cache(path: Path, values: Mapping[str, np.ndarray]) -> bool:
    """Store arrays in a cache file. Return False, without a message, where it cannot be written."""
    try:
        store_arrays(path, values)
    except OSError:
        return False
    return True
