"""Measures of features of two views: how well they agree, how evenly they are spread, and whether they collapse."""

from __future__ import annotations

import math

import numpy as np

VIEW_MEASURES = (
    "alignment", "uniformity", "rankme", "reconstruction_gradient_norm", "agreement_gradient_norm",
)  # fmt: skip
MOST_ROWS = 1024  # of all ranks together, in one singular value decomposition
COLLAPSED_RANK = 1.5  # RankMe below which features are said to have collapsed

_EPSILON = 1e-7  # of RankMe, as in the paper


def measure_features(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return "alignment", "uniformity" and "rankme" of features.

    Args:
        first, second: [images, width], features of the first and of the second views of the same images.
    """
    first, second = (np.asarray(view, np.float64) for view in (first, second))
    a, b = _normalise(first), _normalise(second)
    return {
        "alignment": alignment(a, b),
        "uniformity": (uniformity(a) + uniformity(b)) / 2,
        "rankme": rankme(np.concatenate([first, second])),
    }


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean squared distance of both views, 0 to 4; 0 if they agree (Wang and Isola, arXiv 2005.10242).

    Args:
        first, second: [images, width], of length 1.
    """
    return float(np.square(first - second).sum(axis=1).mean())


def uniformity(rows: np.ndarray) -> float:
    """Return log mean exp(-2 d^2) over all pairs of rows with distance d, -8 to 0; 0 if all are alike (2005.10242).

    Args:
        rows: [images, width], of length 1.
    """
    squares = 2.0 - 2.0 * (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    return math.log(np.exp(-2.0 * np.maximum(squares, 0.0)).mean()) if len(squares) else 0.0


def rankme(rows: np.ndarray) -> float:
    """Return the effective rank of features: exp of the entropy of their singular values, divided by their sum.

    It is 1 if all rows are multiples of one, and at most the smaller side (Garrido et al., "RankMe", arXiv 2210.02885,
    equations 1 and 2).
    """
    values = np.linalg.svd(rows, compute_uv=False)
    shares = values / max(values.sum(), np.finfo(np.float64).tiny) + _EPSILON
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _normalise(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
