"""Find test images that are near-duplicates of training images: equal, encoded or resized again, or mirrored.

An image's fingerprint is a hash of its thumbnail, equal for equal thumbnails, and the direction of the thumbnail's low
frequencies (its discrete cosine transform, as in perceptual hashing), which is nearly equal for a copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from tfinpaint.data.images.decode import THUMBNAIL
from tfinpaint.data.listing.listing import Listing
from tfinpaint.system.paths import shorten_paths

KEY_BYTES, FINGERPRINT_BYTES = 8, 72
MAX_FULL_FINGERPRINTS = 200_000  # images of a folder; for larger ones the hashes alone are kept
_MAX_PAIRS = 10**9  # pairs of a test and a training image that are compared; for more, the hashes alone are
# Of the directions of two near-duplicates. In the Natural Images data set, each pair above it shows one object, such as
# two views of a fruit on a turntable, and none lies in two classes.
_LEAST_COSINE = 0.99
_LEAST_CONTRAST = 4  # grey levels of the low frequencies; flatter images are compared by their hashes alone
_BLOCK = 512, 16_384  # test and training images that are compared at once
MOST_NAMED = 20

_FREQUENCIES = 8  # along each axis: 63 without the mean
_BASIS = np.cos(np.pi * (2 * np.arange(THUMBNAIL) + 1) * np.arange(_FREQUENCIES)[:, None] / (2 * THUMBNAIL))
_BASIS *= np.sqrt(2 / THUMBNAIL)
_BASIS[0] /= np.sqrt(2)
# Mirroring an image from left to right changes the sign of its odd horizontal frequencies.
_MIRRORED = np.tile(np.array([1, -1], np.float32), _FREQUENCIES**2 // 2)[1:]

Kind = Literal["identical", "nearly identical", "mirrored"]


class Copy(NamedTuple):
    """A test image that is a near-duplicate of a training image.

    Attributes:
        test, training: the indices of the two images.
        kind: "identical" if their thumbnails are equal; "mirrored" if one is nearly the other from left to right.
    """

    test: int
    training: int
    kind: Kind


def fingerprint_of(thumbnail: np.ndarray) -> np.ndarray:
    """Return uint8 [FINGERPRINT_BYTES]: hash, 63 signed bytes of the direction, contrast in grey levels.

    Args:
        thumbnail: uint8 [THUMBNAIL, THUMBNAIL], of `decode.inspect_image`.
    """
    key = hashlib.blake2b(thumbnail.tobytes(), digest_size=KEY_BYTES).digest()
    waves = (_BASIS @ thumbnail @ _BASIS.T).ravel()[1:]
    size = float(np.linalg.norm(waves))
    direction = np.rint(waves * (127 / max(size, 1e-9))).astype(np.int8)
    found = np.empty(FINGERPRINT_BYTES, np.uint8)
    found[:KEY_BYTES] = np.frombuffer(key, np.uint8)
    found[KEY_BYTES:-1], found[-1] = direction.view(np.uint8), min(255, round(size / THUMBNAIL))
    return found


def fingerprint_width(images: int) -> int:
    """Return how many bytes of each fingerprint are kept for a folder of so many images."""
    return FINGERPRINT_BYTES if images <= MAX_FULL_FINGERPRINTS else KEY_BYTES


def compares_contents(test: int, training: int) -> bool:
    """Return whether images are searched for near-duplicates; of more images, equal thumbnails alone are found.

    Args:
        test, training: numbers of images.
    """
    return fingerprint_width(test + training) == FINGERPRINT_BYTES and test * training <= _MAX_PAIRS


def find_duplicates(test: np.ndarray, training: np.ndarray) -> list[Copy]:
    """Find for each test image the training image that it is a near-duplicate of.

    Args:
        test, training: uint8 [images, bytes], fingerprints or their hashes alone; zeros for images without one.

    Returns:
        One `Copy` for each such test image, in the order of the test images. Of several training images, one with an
        equal thumbnail is named, or else the most similar one, or else the most similar mirrored one.
    """
    if not len(test) or not len(training):
        return []
    found: dict[int, Copy] = {}
    if min(test.shape[1], training.shape[1]) == FINGERPRINT_BYTES and len(test) * len(training) <= _MAX_PAIRS:
        found |= _find_similar(test, training, mirrored=True)
        found |= _find_similar(test, training, mirrored=False)
    found |= _find_equal(_hashes(test), _hashes(training))
    return [copy for _, copy in sorted(found.items())]


def _hashes(fingerprints: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(fingerprints[:, :KEY_BYTES]).view(np.uint64)[:, 0]


def _find_equal(test: np.ndarray, training: np.ndarray) -> dict[int, Copy]:
    order = np.argsort(training, kind="stable")
    places = order[np.minimum(np.searchsorted(training, test, sorter=order), len(training) - 1)]
    equal = np.flatnonzero((training[places] == test) & (test != 0))
    return {int(image): Copy(int(image), int(places[image]), "identical") for image in equal}


def _find_similar(test: np.ndarray, training: np.ndarray, *, mirrored: bool) -> dict[int, Copy]:
    best = np.full(len(test), _LEAST_COSINE, np.float32)
    copies = np.full(len(test), -1, np.int64)
    rows, columns = _BLOCK
    for begin in range(0, len(training), columns):
        known = _directions(training[begin : begin + columns])
        for first in range(0, len(test), rows):
            directions = _directions(test[first : first + rows])
            cosines = (directions * _MIRRORED if mirrored else directions) @ known.T
            nearest = cosines.argmax(axis=1)
            values = np.take_along_axis(cosines, nearest[:, None], axis=1)[:, 0]
            better = np.flatnonzero(values > best[first : first + rows])
            best[first + better], copies[first + better] = values[better], begin + nearest[better]
    kind: Kind = "mirrored" if mirrored else "nearly identical"
    return {int(image): Copy(int(image), int(copies[image]), kind) for image in np.flatnonzero(copies >= 0)}


def _directions(fingerprints: np.ndarray) -> np.ndarray:
    """Return float32 [images, 63]: unit vectors, or zeros for images without contrast."""
    directions = np.ascontiguousarray(fingerprints[:, KEY_BYTES:-1]).view(np.int8).astype(np.float32)
    size = np.linalg.norm(directions, axis=1, keepdims=True)
    size[fingerprints[:, -1] < _LEAST_CONTRAST] = np.inf
    return directions / np.maximum(size, 1)


def count_duplicates(copies: Sequence[Copy], images: int) -> str:
    """Return how many of the test images are near-duplicates, such as "12 of 1,380 test images (0.9 %) are ...".

    Args:
        copies: at least one.
        images: number of test images.
    """
    kinds = [f"{sum(copy.kind == kind for copy in copies):,} {kind}" for kind in get_args(Kind)]
    are = "is a near-duplicate of a training image" if len(copies) == 1 else "are near-duplicates of training images"
    share = f"{100 * len(copies) / images:.1f} %"
    return f"{len(copies):,} of {images:,} test images ({share}) {are} ({', '.join(kinds)})"


def duplicates_message(
    copies: Sequence[Copy], test: Callable[[int], str], training: Callable[[int], str], images: int
) -> list[str]:
    """Return lines that count and name the test images that are near-duplicates; none if there are none.

    Args:
        copies: as `find_duplicates` returns them.
        test, training: return the name of an image.
        images: number of test images.
    """
    if not copies:
        return []
    head = (
        f"{count_duplicates(copies, images)}: test scores are too optimistic; remove these images from one of the two "
        "sets"
    )
    words = {"identical": "is", "nearly identical": "is nearly", "mirrored": "is nearly the mirror image of"}
    more = [f"... and {len(copies) - MOST_NAMED} more"] if len(copies) > MOST_NAMED else []
    named = [f"  {test(copy.test)} {words[copy.kind]} {training(copy.training)}" for copy in copies[:MOST_NAMED]]
    return [head, *map(shorten_paths, named), *more]


def duplicates_json(copies: Sequence[Copy], test: Listing, training: Listing) -> dict[str, Any]:
    """Return the near-duplicates among the test images as JSON values, with the paths of the images."""
    pairs = [
        {"test": test.place(copy.test), "training": training.place(copy.training), "kind": copy.kind} for copy in copies
    ]
    return {"test_images": len(test), "near_duplicates": len(copies), "pairs": pairs}
