"""Draw shares of the labels: stratified, and each within the next larger one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfinpaint.data.listing.listing import Listing, fraction_indices


@dataclass(frozen=True)
class Draw:
    """The training images whose labels are used.

    Attributes:
        share: fraction of the training images.
        number: of the draw, from 0.
        indices: int64, sorted: the images, among those to train on.
    """

    share: float
    number: int
    indices: np.ndarray


def draw_labels(train: Listing, shares: Sequence[float], repeats: int) -> list[Draw]:
    """Return the draws of each share, smallest share first; all labels are drawn once.

    A share has the same fraction of each class, at least one image. The images of a draw are those that
    `data.label_fraction` takes with the number of the draw as `seed`, so they contain those of a smaller share.

    Args:
        shares: fractions in (0, 1].
        repeats: number of draws of each share below 1.
    """
    return [
        Draw(share, number, fraction_indices(train, share, number))
        for share in sorted(set(shares))
        for number in range(repeats if share < 1 else 1)
    ]
