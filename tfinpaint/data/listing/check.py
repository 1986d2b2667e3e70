"""Check that images can be decoded, and cache the results from one start of a run to the next."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import PIL

from tfinpaint.data.images.decode import DecodeOptions, ImageInspection, inspect_image
from tfinpaint.data.images.unreadable import UnreadableImageError
from tfinpaint.data.listing import cache
from tfinpaint.data.listing.duplicates import fingerprint_of, fingerprint_width
from tfinpaint.data.listing.listing import Listing
from tfinpaint.storage.mapped_arrays import load_arrays
from tfinpaint.system.parallel import parallel_map, parallel_map_blocks
from tfinpaint.system.progress import log_progress

_BLOCK = 2**16  # keys that are looked up at once
_UNKNOWN = 0  # the key of a file whose state cannot be read; it is never cached


@dataclass
class CheckResult:
    """The result of checking images.

    Attributes:
        bad: index in the listing -> reason why the image cannot be decoded.
        multiple: indices of the files that hold several pictures (pages or frames); cached results have none.
        fingerprints: uint8 [images, bytes], see `listing.duplicates`; zeros for bad images and for label maps.
        brightest: of each image of 16 bits, see `images.depth`; cached results have none.
    """

    bad: dict[int, str]
    multiple: list[int]
    fingerprints: np.ndarray
    brightest: list[int] = field(default_factory=list)


def check_images(listing: Listing, indices: Sequence[int] | np.ndarray, options: DecodeOptions) -> CheckResult:
    """Decode each of these images once."""

    def check(index: int) -> tuple[ImageInspection, np.ndarray | None] | str:
        try:
            image = inspect_image(listing.open(int(index)), options)
        except UnreadableImageError as error:
            return str(error)
        return image, None if image.thumbnail is None else fingerprint_of(image.thumbnail)

    width = fingerprint_width(len(listing))
    found = CheckResult({}, [], np.zeros((len(indices), width), np.uint8))
    results = log_progress(parallel_map(check, indices), len(indices), f"Checking the images of {listing.root}")
    for place, (index, result) in enumerate(zip(indices, results, strict=True)):
        if isinstance(result, str):
            found.bad[int(index)] = result
            continue
        image, fingerprint = result
        if image.has_more:
            found.multiple.append(int(index))
        if image.brightest is not None:
            found.brightest.append(image.brightest)
        if fingerprint is not None:
            found.fingerprints[place] = fingerprint[:width]
    return found


def check_images_once(listing: Listing, rank: int, indices: Sequence[int], options: DecodeOptions) -> CheckResult:
    """Check images as `check_images` does, without decoding those that were readable before and have not changed.

    A file is unchanged if its size and its modification time are; an image in records, if its checksum in the index
    is. Bad images are always decoded again.

    Args:
        rank: each rank writes a cache file of its own, and reads those of all ranks.
    """
    path = cache.cache_path("checked", os.path.realpath(listing.root), repr(options), PIL.__version__)
    if not path or len(listing) < cache.MIN_IMAGES:
        return check_images(listing, indices, options)
    keys = _keys(listing, indices)
    known, fingerprints = _load_cached(keys, path, fingerprint_width(len(listing)))
    to_check = np.flatnonzero(~known)
    found = check_images(listing, np.asarray(indices)[to_check], options)
    fingerprints[to_check] = found.fingerprints
    if len(found.bad) < len(to_check):
        good = keys != _UNKNOWN
        if found.bad:
            good &= ~np.isin(indices, list(found.bad))
        order = np.flatnonzero(good)[np.argsort(keys[good])]
        values = {"keys": keys[order], "prints": fingerprints[order].ravel()}
        cache.store_in_cache(path.with_suffix(f".{rank}.npy"), values)
    return replace(found, fingerprints=fingerprints)


def _keys(listing: Listing, indices: Sequence[int]) -> np.ndarray:
    """Return uint64 [indices]: hashes of each image's path and state."""

    def key(index: int) -> int:
        state = listing.state(index)
        if state is None:
            return _UNKNOWN
        text = f"{state} {listing.paths[index]}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")

    return np.fromiter(parallel_map_blocks(key, indices), np.uint64, len(indices))


def _load_cached(keys: np.ndarray, path: Path, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (bool [keys]: whether any rank found the image readable, uint8 [keys, width]: its fingerprint)."""
    known, fingerprints = np.zeros(len(keys), bool), np.zeros((len(keys), width), np.uint8)
    for part in sorted(path.parent.glob(f"{path.stem}.*.npy")):
        found = load_arrays(part, {"keys": np.uint64, "prints": np.uint8})
        if not found or not len(found["keys"]):
            continue
        stored = found["prints"].reshape(len(found["keys"]), -1)
        if stored.shape[1] < width:
            continue
        for first in range(0, len(keys), _BLOCK):
            block = keys[first : first + _BLOCK]
            places = np.minimum(np.searchsorted(found["keys"], block), len(found["keys"]) - 1)
            hits = np.flatnonzero(found["keys"][places] == block)
            known[first + hits] = True
            fingerprints[first + hits] = stored[places[hits], :width]
    return known, fingerprints
