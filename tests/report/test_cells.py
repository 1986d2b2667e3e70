"""Numbers of one quantity have equally many decimals, whatever they are."""

import math

import pytest

from tfinpaint.report.cells import Best, columns_alike, decimals_alike


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([0.838, 0.7039], ["0.8380", "0.7039"]),
        ([Best(0.9), 0.8167], [Best("0.9000"), "0.8167"]),
        ([1.0, 0.5, 1], ["1.0", "0.5", 1]),
        ([12345.6, 98.764, "", None], ["12,345.60", "98.76", "", None]),
        ([20.0, 3.0], ["20", "3"]),
        ([1e-6, 0.25], [1e-6, 0.25]),
        (["0.71 ± 0.02", True], ["0.71 ± 0.02", True]),
        ([], []),
    ],
)
def test_numbers_have_the_decimals_of_the_one_that_needs_most(cells, expected):
    assert decimals_alike(cells) == expected


def test_what_is_not_finite_stays_and_columns_do_not_mix():
    table = [["run", "accuracy", "seconds"], ["a", 0.9, 12.0], ["b", math.nan, 7.25], ["c", 0.8167, 1.0]]
    made = columns_alike(table)
    assert math.isnan(made[2].pop(1))
    assert made == [["run", "accuracy", "seconds"], ["a", "0.9000", "12.00"], ["b", "7.25"], ["c", "0.8167", "1.00"]]
    assert columns_alike(table[:1]) == table[:1]
