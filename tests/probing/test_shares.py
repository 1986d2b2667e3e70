"""Shares of the labels: stratified, nested, and the same images that a classifier would take."""

import numpy as np
import pytest

from tfinpaint.data.listing.excluded import ExcludedFiles
from tfinpaint.data.listing.listing import Listing, take_fraction
from tfinpaint.data.listing.names import Names
from tfinpaint.probing.shares import draw_labels


@pytest.fixture
def listing(tmp_path) -> Listing:
    counts = {"a": 200, "b": 50, "c": 3}
    names = [f"{name}/{i:03}.png" for name, count in counts.items() for i in range(count)]
    labels = np.repeat(np.arange(3, dtype=np.int32), list(counts.values()))
    return Listing(tmp_path, Names.of(names), labels, tuple(counts), ExcludedFiles())


def test_shares_are_stratified_nested_and_repeated(listing):
    draws = draw_labels(listing, [0.1, 1.0, 0.01, 0.1], 3)
    assert [(draw.share, draw.number) for draw in draws] == [
        *((0.01, number) for number in range(3)),
        *((0.1, number) for number in range(3)),
        (1.0, 0),
    ]
    for draw in draws:
        counts = np.bincount(listing.labels[draw.indices], minlength=3).tolist()
        assert counts == {0.01: [2, 1, 1], 0.1: [20, 5, 1], 1.0: [200, 50, 3]}[draw.share]
        assert (np.diff(draw.indices) > 0).all()
    for few, more in zip(draws[:3], draws[3:6], strict=True):
        assert set(few.indices) < set(more.indices)
    assert len({tuple(draw.indices) for draw in draws}) == 7  # every draw is another one


def test_a_draw_is_what_label_fraction_takes(listing):
    draw = draw_labels(listing, [0.2], 2)[1]
    assert list(take_fraction(listing, 0.2, 1).paths) == [listing.paths[int(i)] for i in draw.indices]
