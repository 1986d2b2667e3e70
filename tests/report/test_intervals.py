"""The interval of an accuracy is Wilson's."""

import pytest

from tfinpaint.report.intervals import accuracy_interval


@pytest.mark.parametrize("right", [0, 5, 8])
def test_the_interval_is_that_of_the_formula(right):
    images, z = 8, 1.959964
    share = right / images
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * (share * (1 - share) / images + z**2 / (4 * images**2)) ** 0.5
    expected = (max(0, centre - half), min(1, centre + half))
    assert accuracy_interval(right, images) == pytest.approx(expected, abs=1e-6)
