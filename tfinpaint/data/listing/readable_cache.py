"""Which images were found to be readable, remembered from one start of a run to the next."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL

from tfinpaint.data.images.decode import Reading
from tfinpaint.data.listing import cache_path
from tfinpaint.data.listing.duplicates import width_of
from tfinpaint.data.listing.listing import Checked, Listing, check_images
from tfinpaint.storage.mapped_arrays import load_arrays
from tfinpaint.system.parallel import parallel_map_blocks

_BLOCK = 2**16  # keys looked up at once
_UNKNOWN = 0  # the key of a file that cannot be looked at: never remembered


def check_images_once(listing: Listing, shard: int, indices: Sequence[int], reading: Reading) -> Checked:
    """As `check_images`, but an image that was readable before and has not changed since is not decoded again.

    A file has not changed if its size and modification time have not: every file is looked at (`stat`), none is opened.
    An image in records has not changed if its checksum in their index has not. Bad images are always decoded again.

    Args:
        shard: number of this rank, whose results are kept apart from those of ranks that write at the same time.
    """
    path = cache_path.cache_path("checked", os.path.realpath(listing.root), repr(reading), PIL.__version__)
    if not path or len(listing) < cache_path.LEAST_REMEMBERED:
        return check_images(listing, indices, reading)
    keys = _keys(listing, indices)
    known, prints = _recall(keys, path, width_of(len(listing)))
    to_check = np.flatnonzero(~known)
    found = check_images(listing, np.asarray(indices)[to_check], reading)
    prints[to_check] = found.prints
    if len(found.bad) < len(to_check):
        good = keys != _UNKNOWN
        if found.bad:
            good &= ~np.isin(indices, list(found.bad))
        order = np.flatnonzero(good)[np.argsort(keys[good])]
        cache_path.remember(path.with_suffix(f".{shard}.npy"), {"keys": keys[order], "prints": prints[order].ravel()})
    return Checked(found.bad, found.first_of_more, prints)


def _keys(listing: Listing, indices: Sequence[int]) -> np.ndarray:
    """uint64 [indices]: 64 bits that differ between files, and before and after a file has changed."""
    keys = parallel_map_blocks(lambda index: _key(listing, index), indices)
    return np.fromiter(keys, np.uint64, len(indices))


def _key(listing: Listing, index: int) -> int:
    state = listing.state(index)
    if state is None:
        return _UNKNOWN
    text = f"{state} {listing.paths[index]}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _recall(keys: np.ndarray, path: Path, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(bool [keys]: which of them any rank has found readable, uint8 [keys, width]: their prints)."""
    known, prints = np.zeros(len(keys), bool), np.zeros((len(keys), width), np.uint8)
    for part in sorted(path.parent.glob(f"{path.stem}.*.npy")):
        found = load_arrays(part, {"keys": np.uint64, "prints": np.uint8})
        if not found or not len(found["keys"]):
            continue
        stored = found["prints"].reshape(len(found["keys"]), -1)
        if stored.shape[1] < width:
            continue
        for first in range(0, len(keys), _BLOCK):
            asked = keys[first : first + _BLOCK]
            places = np.minimum(np.searchsorted(found["keys"], asked), len(found["keys"]) - 1)
            hits = np.flatnonzero(found["keys"][places] == asked)
            known[first + hits] = True
            prints[first + hits] = stored[places[hits], :width]
    return known, prints
