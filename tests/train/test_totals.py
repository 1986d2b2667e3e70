"""Sums over the steps of an epoch: exact, of bounded size, and the same wherever the epoch was cut."""

import math
from fractions import Fraction

import numpy as np
import pytest

from tfinpaint.distributed.world import World
from tfinpaint.train import totals
from tfinpaint.train.totals import SUM_PARTS, Totals, exact_parts

SHARES = {"reconstruction_loss": 1.0}
STEPS = 1500


def steps(seed=0):
    """Sums as a step leaves them: float32 of all magnitudes, of both signs, and images."""
    generator = np.random.default_rng(seed)
    for _ in range(STEPS):
        loss, error = (generator.normal() * 10.0 ** generator.integers(-38, 30) for _ in range(2))
        sums = {"weight": np.float32(4), "reconstruction_loss": np.float32(loss), "error": np.float32(error)}
        yield sums, int(generator.integers(1, 5))


def test_few_numbers_have_exactly_the_sum_of_many():
    values = [float(sums["error"]) for sums, _ in steps()] + [2.0**127, 2.0**-149, -(2.0**-149) * 3]
    parts = exact_parts(values)
    assert len(parts) <= 6
    assert sum(map(Fraction, parts)) == sum(map(Fraction, values))
    assert exact_parts([]) == exact_parts([1.5, -1.5, 0.0]) == []
    assert math.isnan(exact_parts([math.inf, -math.inf])[0])
    assert exact_parts([1.0, math.inf]) == exact_parts([math.inf, 2.0]) == [math.inf]


def test_an_epoch_is_the_sum_of_its_steps_and_keeps_few_of_them():
    epoch, every = Totals(SHARES, "epoch 1"), []
    for sums, count in steps():
        epoch.add(sums, count)
        every.append((sums, count))
        assert len(epoch._pending) <= totals.MOST_PENDING
    loss = sums["reconstruction_loss"] / np.float64(sums["weight"])
    assert epoch.last_loss() == pytest.approx(float(loss))
    result = epoch.reduce(World())
    images = sum(count for _, count in every)
    assert result.images == images
    assert result.values["error"] == math.fsum(float(sums["error"]) for sums, _ in every) / images
    expected = math.fsum(float(sums["reconstruction_loss"]) for sums, _ in every)
    assert result.values["loss"] == expected / math.fsum(float(sums["weight"]) for sums, _ in every)


@pytest.mark.parametrize("cuts", [(1,), (255, 257, 600), (700, 701, 1499), (STEPS,)])
def test_wherever_it_was_cut_an_epoch_adds_up_to_the_same_numbers(cuts):
    whole = Totals(SHARES, "epoch 1")
    parted = Totals(SHARES, "epoch 1")
    for step, (sums, count) in enumerate(steps(), 1):
        whole.add(sums, count)
        parted.add(sums, count)
        if step in cuts:
            so_far = parted.export()
            assert so_far.sums.shape == (SUM_PARTS, 3)
            parted = Totals(SHARES, "epoch 1", so_far)
            assert parted.steps == step
    expected, found = whole.reduce(World()), parted.reduce(World())
    assert (found.values, found.images) == (expected.values, expected.images)


def test_a_sum_that_is_not_finite_stays_so():
    epoch = Totals(SHARES, "epoch 1")
    for number in range(totals.MOST_PENDING * 2):
        error = math.inf if number == 3 else 1.0
        epoch.add({"weight": 1.0, "reconstruction_loss": 1.0, "error": error}, 1)
    resumed = Totals(SHARES, "epoch 1", epoch.export())
    assert resumed.reduce(World()).values == {"loss": 1.0, "error": math.inf}


def test_a_part_with_a_weight_of_its_own_is_told_beside_the_loss():
    """An evaluation of a run that compares views too has the weighted reconstruction alone."""
    for share, expected in ((1.0, {"loss": 3.0}), (0.5, {"loss": 1.5, "reconstruction_loss": 3.0})):
        epoch = Totals({"reconstruction_loss": share}, "test")
        epoch.add({"weight": np.float32(2), "reconstruction_loss": np.float32(6)}, 2)
        assert epoch._values({name: sum(parts) for name, parts in epoch._all().items()}, 2) == expected


def test_the_speed_of_an_epoch_whose_steps_are_all_done_before_is_theirs():
    before = Totals(SHARES, "epoch 1")
    for sums, count in list(steps())[:5]:
        before.add(sums, count)
    done = before.export()
    assert Totals(SHARES, "epoch 1", done).reduce(World()).images_per_second == done.images / done.seconds
