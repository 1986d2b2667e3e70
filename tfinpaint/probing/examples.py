"""Draw test images of a probe beside training images: near-duplicates, and neighbours in the space of the features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfinpaint.data.examples import Preprocessing
from tfinpaint.data.listing.duplicates import Copy
from tfinpaint.data.listing.listing import Listing
from tfinpaint.probing.classifiers import normalised
from tfinpaint.probing.evaluation import FeatureSet
from tfinpaint.probing.features import input_batches
from tfinpaint.probing.images import LabelledImages
from tfinpaint.report.image_rows import MOST_IMAGES, MOST_ROWS, ImageRow, draw_image_rows

_SEED = 0  # of the choice of test images whose neighbours are shown


def read_pictures(listing: Listing, indices: Sequence[int], pictures: Preprocessing) -> np.ndarray:
    """Return some images as an encoder sees them, before its values are changed: float [images, height, width, c]."""
    return np.concatenate([batch.numpy() for batch in input_batches(listing.select(indices), pictures)])


def draw_duplicates(images: LabelledImages, pictures: Preprocessing, path: Path) -> None:
    """Draw test images beside the training images that they are near-duplicates of, several pairs in a row.

    Of many pairs, some are shown that are evenly spread over the list.
    """
    in_row = MOST_IMAGES // 2
    step = -(-len(images.copies) // (in_row * MOST_ROWS))
    shown = images.copies[::step]
    test = read_pictures(images.test, [copy.test for copy in shown], pictures)
    training = read_pictures(images.train, [copy.training for copy in shown], pictures)
    both = np.stack([test, training], axis=1)  # [pairs, 2, height, width, channels]
    captions = [caption for copy in shown for caption in _pair_captions(images, copy)]
    rows = [
        ImageRow("", both[first : first + in_row].reshape(-1, *both.shape[2:]), part, [None] * len(part))
        for first in range(0, len(shown), in_row)
        if (part := captions[2 * first : 2 * (first + in_row)])
    ]
    alt = (
        f"{len(shown)} of {len(images.copies)} pairs of a test image and, to its right, the training image that it "
        "is a near-duplicate of."
    )
    draw_image_rows(rows, path, alt)


def _pair_captions(images: LabelledImages, copy: Copy) -> tuple[str, str]:
    classes = images.train.classes
    own, other = classes[images.test.labels[copy.test]], classes[images.train.labels[copy.training]]
    return f"test: {own}", f"{copy.kind}: {other}"


def draw_neighbours(images: LabelledImages, features: FeatureSet, pictures: Preprocessing, path: Path) -> None:
    """Draw some test images, each followed by the training images that are nearest to it."""
    train, test, classes = images.train, images.test, images.train.classes
    chosen = spread_over_classes(test.labels, MOST_ROWS)
    nearest = nearest_images(features.train, features.test, chosen)
    tested = read_pictures(test, chosen, pictures)
    trained = read_pictures(train, nearest.ravel().tolist(), pictures).reshape(*nearest.shape, *tested.shape[1:])
    own, others = test.labels[chosen], train.labels[nearest]
    right = others == own[:, None]
    rows = [
        ImageRow(
            "",
            np.concatenate([tested[place : place + 1], trained[place]]),
            [f"test: {classes[own[place]]}", *(classes[other] for other in others[place])],
            [None, *right[place].tolist()],
        )
        for place in range(len(chosen))
    ]
    alt = (
        f"{len(rows)} test images, each followed by its nearest training images; {right.sum()} of these "
        f"{right.size} neighbours have the class of the test image."
    )
    draw_image_rows(rows, path, alt)


def spread_over_classes(labels: np.ndarray, count: int) -> list[int]:
    """Return the indices of a few images that take turns among the classes; chance with a fixed seed chooses them."""
    generator = np.random.default_rng(_SEED)
    of_class = [generator.permutation(np.flatnonzero(labels == number)).tolist() for number in np.unique(labels)]
    turns = [
        (place, number, index) for number, images in enumerate(of_class) for place, index in enumerate(images[:count])
    ]
    return [index for *_, index in sorted(turns)[:count]]


def nearest_images(train: np.ndarray, test: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Return the most similar training images of some test images, int64 [chosen, MOST_IMAGES - 1], nearest first.

    Args:
        train, test: features [images, features]; similarity is the cosine after centring, as for the classifier.
    """
    mean = train.astype(np.float64).mean(axis=0)
    similarities = normalised(test[list(chosen)] - mean) @ normalised(train - mean).T
    return np.argsort(-similarities, axis=1, kind="stable")[:, : MOST_IMAGES - 1]
