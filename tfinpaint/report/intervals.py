"""How sure an accuracy is, given the number of test images."""

from __future__ import annotations

CONFIDENCE = 0.95


def accuracy_interval(right: int, images: int) -> tuple[float, float]:
    """Return Wilson's interval of an accuracy (Journal of the American Statistical Association 22, 1927).

    Args:
        right: number of test images that are classified correctly.
        images: number of all test images, at least 1.
    """
    from scipy.stats import binomtest  # takes a second to import

    interval = binomtest(right, images).proportion_ci(CONFIDENCE, "wilson")
    return float(interval.low), float(interval.high)
