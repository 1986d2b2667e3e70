"""Find test images that are training images too: the same, or copies that were encoded or resized again.

An image's fingerprint is a hash of its thumbnail, equal for equal thumbnails, and the direction of the thumbnail's low
frequencies (its discrete cosine transform, as in perceptual hashing), which is nearly equal for a copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from tfinpaint.data.images.decode import THUMBNAIL

KEY_BYTES, FINGERPRINT_BYTES = 8, 72
MAX_FULL_FINGERPRINTS = 200_000  # images of a folder; for larger ones the hashes alone are kept
_MAX_PAIRS = 10**9  # pairs of a test and a training image that are compared; for more, the hashes alone are
_LEAST_COSINE = 0.998  # of the directions of two copies
_LEAST_CONTRAST = 4  # grey levels of the low frequencies; flatter images are compared by their hashes alone
_BLOCK = 512, 16_384  # test and training images that are compared at once
MOST_NAMED = 20

_FREQUENCIES = 8  # along each axis: 63 without the mean
_BASIS = np.cos(np.pi * (2 * np.arange(THUMBNAIL) + 1) * np.arange(_FREQUENCIES)[:, None] / (2 * THUMBNAIL))
_BASIS *= np.sqrt(2 / THUMBNAIL)
_BASIS[0] /= np.sqrt(2)


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


def find_duplicates(test: np.ndarray, training: np.ndarray) -> list[tuple[int, int, bool]]:
    """Find for each test image the training image that it is a copy of.

    Args:
        test, training: uint8 [images, bytes], fingerprints or their hashes alone; zeros for images without one.

    Returns:
        (test image, training image, whether their thumbnails are equal) for each test image that is a copy.
    """
    if not len(test) or not len(training):
        return []
    found = _find_equal(_hashes(test), _hashes(training))
    if min(test.shape[1], training.shape[1]) == FINGERPRINT_BYTES and len(test) * len(training) <= _MAX_PAIRS:
        found = {image: (copy, False) for image, copy in _find_similar(test, training).items()} | found
    return [(image, copy, equal) for image, (copy, equal) in sorted(found.items())]


def _hashes(fingerprints: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(fingerprints[:, :KEY_BYTES]).view(np.uint64)[:, 0]


def _find_equal(test: np.ndarray, training: np.ndarray) -> dict[int, tuple[int, bool]]:
    order = np.argsort(training, kind="stable")
    places = order[np.minimum(np.searchsorted(training, test, sorter=order), len(training) - 1)]
    equal = np.flatnonzero((training[places] == test) & (test != 0))
    return {int(image): (int(places[image]), True) for image in equal}


def _find_similar(test: np.ndarray, training: np.ndarray) -> dict[int, int]:
    best = np.full(len(test), _LEAST_COSINE, np.float32)
    copies = np.full(len(test), -1, np.int64)
    rows, columns = _BLOCK
    for begin in range(0, len(training), columns):
        known = _directions(training[begin : begin + columns])
        for first in range(0, len(test), rows):
            cosines = _directions(test[first : first + rows]) @ known.T
            nearest = cosines.argmax(axis=1)
            values = np.take_along_axis(cosines, nearest[:, None], axis=1)[:, 0]
            better = np.flatnonzero(values > best[first : first + rows])
            best[first + better], copies[first + better] = values[better], begin + nearest[better]
    return {int(image): int(copies[image]) for image in np.flatnonzero(copies >= 0)}


def _directions(fingerprints: np.ndarray) -> np.ndarray:
    """Return float32 [images, 63]: unit vectors, or zeros for images without contrast."""
    directions = np.ascontiguousarray(fingerprints[:, KEY_BYTES:-1]).view(np.int8).astype(np.float32)
    size = np.linalg.norm(directions, axis=1, keepdims=True)
    size[fingerprints[:, -1] < _LEAST_CONTRAST] = np.inf
    return directions / np.maximum(size, 1)


def duplicates_message(
    copies: Sequence[tuple[int, int, bool]], test: Callable[[int], str], training: Callable[[int], str], images: int
) -> list[str]:
    """Return lines that count and name the test images that are copies; none if there are no copies.

    Args:
        copies: as `find_duplicates` returns them.
        test, training: return the name of an image.
        images: number of test images.
    """
    if not copies:
        return []
    equal = sum(is_equal for *_, is_equal in copies)
    head = (
        f"{len(copies)} of {images} test images are training images too ({equal} identical, {len(copies) - equal} "
        "nearly identical): test scores are too optimistic; remove these images from one of the two sets"
    )
    more = [f"... and {len(copies) - MOST_NAMED} more"] if len(copies) > MOST_NAMED else []
    named = [f"  {test(i)} {'is' if same else 'is nearly'} {training(j)}" for i, j, same in copies[:MOST_NAMED]]
    return [head, *named, *more]
