"""Which test images are training images too, the same or nearly: copies that were encoded or resized again.

Of each image a few bytes are kept, its print: a key, which is equal for equal thumbnails, and the direction of the
low frequencies of the thumbnail (its discrete cosine transform, as perceptual hashes take it), in which a copy differs
from its original far less than one picture from another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from tfinpaint.data.images.decode import THUMBNAIL

KEY_BYTES, PRINT_BYTES = 8, 72
MOST_PRINTED = 200_000  # images of a folder; of more the keys alone are kept
_MOST_PAIRS = 10**9  # of test and training images that are compared; of more the keys alone are
_LEAST_COSINE = 0.998  # of two prints
_LEAST_CONTRAST = 4  # grey levels of the low frequencies; what is flatter is told by its key alone
_BLOCK = 512, 16_384  # test and training images compared at once
MOST_NAMED = 20

_SIDE = 8  # frequencies each way, without the mean: 63
_WAVES = np.cos(np.pi * (2 * np.arange(THUMBNAIL) + 1) * np.arange(_SIDE)[:, None] / (2 * THUMBNAIL))
_WAVES *= np.sqrt(2 / THUMBNAIL)
_WAVES[0] /= np.sqrt(2)


def print_of(thumbnail: np.ndarray) -> np.ndarray:
    """Return uint8 [PRINT_BYTES]: key, 63 signed bytes of the direction, contrast in grey levels.

    Args:
        thumbnail: uint8 [THUMBNAIL, THUMBNAIL], as `decode.look_at_image` gives it.
    """
    key = hashlib.blake2b(thumbnail.tobytes(), digest_size=KEY_BYTES).digest()
    waves = (_WAVES @ thumbnail @ _WAVES.T).ravel()[1:]
    size = float(np.linalg.norm(waves))
    direction = np.rint(waves * (127 / max(size, 1e-9))).astype(np.int8)
    found = np.empty(PRINT_BYTES, np.uint8)
    found[:KEY_BYTES] = np.frombuffer(key, np.uint8)
    found[KEY_BYTES:-1], found[-1] = direction.view(np.uint8), min(255, round(size / THUMBNAIL))
    return found


def width_of(images: int) -> int:
    """Return how many bytes of the prints are kept in a folder of so many images."""
    return PRINT_BYTES if images <= MOST_PRINTED else KEY_BYTES


def find_copies(test: np.ndarray, training: np.ndarray) -> list[tuple[int, int, bool]]:
    """Find for each test image the training image that it is a copy of.

    Args:
        test, training: uint8 [images, bytes], prints, or their keys alone; zeros for images that are not known.

    Returns:
        (test image, training image, whether their thumbnails are the same) for each test image that is a copy.
    """
    if not len(test) or not len(training):
        return []
    found = _find_same(_keys(test), _keys(training))
    if min(test.shape[1], training.shape[1]) == PRINT_BYTES and len(test) * len(training) <= _MOST_PAIRS:
        found = {image: (copy, False) for image, copy in _find_near(test, training).items()} | found
    return [(image, copy, same) for image, (copy, same) in sorted(found.items())]


def _keys(prints: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(prints[:, :KEY_BYTES]).view(np.uint64)[:, 0]


def _find_same(test: np.ndarray, training: np.ndarray) -> dict[int, tuple[int, bool]]:
    order = np.argsort(training, kind="stable")
    places = order[np.minimum(np.searchsorted(training, test, sorter=order), len(training) - 1)]
    same = np.flatnonzero((training[places] == test) & (test != 0))
    return {int(image): (int(places[image]), True) for image in same}


def _find_near(test: np.ndarray, training: np.ndarray) -> dict[int, int]:
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


def _directions(prints: np.ndarray) -> np.ndarray:
    """float32 [images, 63] of length 1; 0 for flat images, which are like nothing."""
    directions = np.ascontiguousarray(prints[:, KEY_BYTES:-1]).view(np.int8).astype(np.float32)
    size = np.linalg.norm(directions, axis=1, keepdims=True)
    size[prints[:, -1] < _LEAST_CONTRAST] = np.inf
    return directions / np.maximum(size, 1)


def copies_in_words(
    copies: Sequence[tuple[int, int, bool]], test: Callable[[int], str], training: Callable[[int], str], images: int
) -> list[str]:
    """Return lines that count and name the copies; none without any.

    Args:
        test, training: from an image to its name.
        images: how many test images there are.
    """
    if not copies:
        return []
    same = sum(is_same for *_, is_same in copies)
    head = (
        f"{len(copies)} of {images} test images are among the training images too ({same} the same, "
        f"{len(copies) - same} nearly the same): scores on them are too good; remove them from one side"
    )
    more = [f"... and {len(copies) - MOST_NAMED} more"] if len(copies) > MOST_NAMED else []
    named = [f"  {test(i)} {'is' if is_same else 'is nearly'} {training(j)}" for i, j, is_same in copies[:MOST_NAMED]]
    return [head, *named, *more]
