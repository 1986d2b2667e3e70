"""Which images were found to be readable, remembered from one start of a run to the next."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL

from tfinpaint.data import arrays, cache
from tfinpaint.data.decode import Reading
from tfinpaint.data.sources import Listing, find_unreadable
from tfinpaint.data.threads import in_threads_by_blocks

_BLOCK = 2**16  # keys looked up at once
_UNKNOWN = 0  # the key of a file that cannot be looked at: never remembered


def find_unreadable_once(listing: Listing, shard: int, indices: Sequence[int], reading: Reading) -> dict[int, str]:
    """As `find_unreadable`, but an image that was readable before and has not changed since is not decoded again.

    A file has not changed if its size and modification time have not: every file is looked at (`stat`), none is opened.
    An image in records has not changed if its checksum in their index has not. Bad images are always decoded again.

    Args:
        shard: number of this rank, whose results are kept apart from those of ranks that write at the same time.
    """
    path = cache.cache_path("readable", os.path.realpath(listing.root), repr(reading), PIL.__version__)
    if not path or len(listing) < cache.LEAST_REMEMBERED:
        return find_unreadable(listing, indices, reading)
    keys = _keys(listing, indices)
    to_check = np.asarray(indices)[~_are_known(keys, path)]
    bad = find_unreadable(listing, to_check, reading)
    if len(bad) < len(to_check):
        good = keys[~np.isin(indices, list(bad)) & (keys != _UNKNOWN)] if bad else keys[keys != _UNKNOWN]
        good.sort()
        cache.remember(path.with_suffix(f".{shard}.npy"), {"keys": good})
    return bad


def _keys(listing: Listing, indices: Sequence[int]) -> np.ndarray:
    """uint64 [indices]: 64 bits that differ between files, and before and after a file has changed."""
    keys = in_threads_by_blocks(lambda index: _key(listing, index), indices)
    return np.fromiter(keys, np.uint64, len(indices))


def _key(listing: Listing, index: int) -> int:
    state = listing.state(index)
    if state is None:
        return _UNKNOWN
    text = f"{state} {listing.paths[index]}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _are_known(keys: np.ndarray, path: Path) -> np.ndarray:
    """bool [keys]: which of them any rank has found readable."""
    known = np.zeros(len(keys), bool)
    for part in sorted(path.parent.glob(f"{path.stem}.*.npy")):
        found = arrays.load(part, {"keys": np.uint64})
        if not found or not len(found["keys"]):
            continue
        for first in range(0, len(keys), _BLOCK):
            asked = keys[first : first + _BLOCK]
            places = np.searchsorted(found["keys"], asked)
            known[first : first + _BLOCK] |= found["keys"][np.minimum(places, len(found["keys"]) - 1)] == asked
    return known
