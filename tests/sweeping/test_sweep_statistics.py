"""Bootstrap intervals equal those of scipy and those that are computed by hand; pairs share draws and images."""

import numpy as np
import pytest
import scipy.stats

from tfinpaint.sweeping.rows import Row
from tfinpaint.sweeping.statistics import bootstrap, differences, points

LABELS = np.array([0, 1, 0, 1, 0, 1, 0, 1])


def row(method: str, draw: int, right: str, share: float = 0.1) -> Row:
    """A row whose predictions are right where `right` has a 1."""
    predicted = tuple(int(label if mark == "1" else 1 - label) for label, mark in zip(LABELS, right, strict=True))
    return Row(share, draw, draw, 20, method, {}, False, 0.5, right.count("1") / 8, predicted)


def test_one_draw_has_the_percentile_interval_of_scipy():
    generator = np.random.default_rng(1)
    difference = generator.choice([-1.0, 0.0, 1.0], size=690, p=[0.08, 0.76, 0.16])
    found = bootstrap(difference[None])
    wanted = scipy.stats.bootstrap(
        (difference,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.mean == pytest.approx(difference.mean())
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.0015)
    assert found.is_clear


def test_two_draws_of_two_images_have_the_quantiles_that_are_counted_by_hand():
    # Draws (1, 1) and (0, 0): images do not matter, and the mean is 0, 1/2, 1 with the probabilities 1/4, 1/2, 1/4.
    found = bootstrap(np.array([[1.0, 1.0], [0.0, 0.0]]))
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)
    assert not found.is_clear
    assert bootstrap(np.full((3, 5), 0.25)) == (same := bootstrap(np.full((1, 1), 0.25)))
    assert (same.low, same.high) == (0.25, 0.25)


def test_images_and_draws_are_both_resampled():
    generator = np.random.default_rng(0)
    by_image = generator.normal(size=400)
    found = bootstrap(np.tile(by_image, (3, 1)))
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(by_image.std() / np.sqrt(400), rel=0.05)
    # Of 27 resamples of three draws, one is three times the lowest: 3.7 %, more than the 2.5 % below the interval.
    found = bootstrap(np.repeat([[0.1], [0.4], [0.6]], 400, axis=1))
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.6))


def test_a_bound_of_zero_is_zero_and_not_clear():
    generator = np.random.default_rng(0)
    bounds = []
    for _ in range(100):
        shape = int(generator.integers(2, 4)), int(generator.integers(20, 120))
        found = bootstrap(generator.choice([-1.0, 0.0, 1.0], size=shape, p=[0.03, 0.87, 0.10]), 1000)
        bounds += [found.low, found.high]
        assert found.is_clear == (found.low > 1e-9 or found.high < -1e-9)
    assert not [bound for bound in bounds if 0 < abs(bound) < 1e-9]
    assert bounds.count(0) > 5


def test_the_order_of_many_images_does_not_matter():
    generator = np.random.default_rng(0)
    values = generator.choice([-1.0, 0.0, 1.0], size=(3, 5000))
    assert bootstrap(values[:, generator.permutation(5000)]) == bootstrap(values)


def test_differences_are_paired_by_draw_and_image():
    rows = [
        row("fine_tuned", 0, "11110111"), row("fine_tuned", 1, "11111111"), row("fine_tuned", 2, "11111111"),
        row("from_scratch", 0, "11110011"), row("from_scratch", 1, "11101111"),
        row("random_frozen", 0, "10000000"), row("pretrained_frozen", 0, "11111111"),
    ]  # fmt: skip
    found, frozen, of_frozen = differences(rows, LABELS)
    assert (frozen.pair, frozen.draws) == (("pretrained_frozen", "from_scratch"), (0.25,))
    assert (of_frozen.pair, of_frozen.draws) == (("pretrained_frozen", "random_frozen"), (0.875,))
    assert found.pair == ("fine_tuned", "from_scratch")
    assert found.draws == (0.125, 0.125)  # the third draw was not trained from scratch
    assert found.interval.mean == pytest.approx(0.125)
    assert (found.ours, found.theirs) == (pytest.approx(15 / 16), pytest.approx(13 / 16))
    wanted = bootstrap(np.array([[0, 0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0]], np.float64))
    assert found.interval == wanted


def test_points_are_means_over_draws():
    rows = [row("fine_tuned", 0, "11110000"), row("fine_tuned", 1, "11111100"), row("fine_tuned", 0, "11111111", 1.0)]
    few, all_labels = points(rows, LABELS)
    assert few.draws == (0.5, 0.75)
    assert few.interval.mean == 0.625
    assert few.deviation == pytest.approx(np.std([0.5, 0.75], ddof=1))
    assert all_labels.deviation is None
    assert (all_labels.interval.low, all_labels.interval.high) == (1.0, 1.0)
