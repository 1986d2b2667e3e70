"""Check before writing that files fit: the free space on the disk, and the largest file that this process may write."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Mapping
from pathlib import Path

MARGIN_BYTES = 32 * 2**20  # for what the file formats add, and what other programs write meanwhile


def find_shortage(folder: Path, file_bytes: Mapping[str, int], sets: int = 1) -> str | None:
    """Return why files will not fit into a folder, and what to do; None if they seem to fit.

    A quota is unknown until it is exceeded.

    Args:
        folder: an existing folder.
        file_bytes: name of each file -> its size in bytes, or a little less.
        sets: how many such sets of files will be added to the folder.

    Raises:
        OSError: The folder cannot be examined.
    """
    largest = max(file_bytes, key=lambda name: file_bytes[name])
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and file_bytes[largest] > limit:
        return (
            f"{largest} takes {in_mib(file_bytes[largest])}, and this process may write files of at most "
            f"{in_mib(limit)}; raise that limit (ulimit -f)"
        )
    needed, free = sets * sum(file_bytes.values()) + MARGIN_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        return f"{in_mib(free)} are free, {in_mib(needed)} are needed; free some space"
    return None


def in_mib(size: int) -> str:
    """Return a number of bytes as text, such as "12.5 MiB"."""
    return f"{size / 2**20:.1f} MiB" if size < 100 * 2**20 else f"{size // 2**20} MiB"
