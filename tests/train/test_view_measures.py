"""Alignment, uniformity and RankMe against their definitions, and at their extremes."""

import numpy as np
import pytest

from tfinpaint.train.view_measures import COLLAPSED_RANK, alignment, measure_features, rankme, uniformity


def rows(images=40, width=30, seed=0):
    return np.random.default_rng(seed).normal(size=(images, width))


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_each_measure_is_its_definition():
    first, second = rows(), rows(seed=1) + rows()
    a, b = unit(first), unit(second)
    found = measure_features(first, second)
    assert found["alignment"] == pytest.approx(np.mean([np.sum((x - y) ** 2) for x, y in zip(a, b, strict=True)]))
    each = []
    for view in (a, b):
        pairs = [np.exp(-2 * np.sum((view[i] - view[j]) ** 2)) for i in range(40) for j in range(i)]
        each.append(np.log(np.mean(pairs)))
    assert found["uniformity"] == pytest.approx(np.mean(each))
    values = np.linalg.svd(np.concatenate([first, second]), compute_uv=False)
    shares = values / values.sum() + 1e-7
    assert found["rankme"] == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))


def test_extremes():
    assert rankme(np.eye(16)) == pytest.approx(16, rel=1e-4)
    assert rankme(rows()[:, :1] @ rows(1, 30)) == pytest.approx(1, abs=1e-3)  # multiples of one row
    assert rankme(np.zeros((4, 3))) == pytest.approx(1, abs=1e-3)
    alike = np.tile(unit(rows(1)), (5, 1))
    assert (alignment(alike, alike), uniformity(alike)) == (0, pytest.approx(0, abs=1e-9))
    opposite = unit(np.array([[1.0, 0], [-1, 0]]))
    assert alignment(opposite, opposite[::-1]) == pytest.approx(4)
    assert uniformity(opposite) == pytest.approx(-8)


def test_collapse_is_told_from_features_with_a_large_mean():
    # Behind a ReLU, features of different images have a large part in common; that is no collapse.
    assert rankme(10 + rows(128, 256)) > 5 * COLLAPSED_RANK
    assert rankme(10 + 1e-3 * rows(128, 256)) < COLLAPSED_RANK
