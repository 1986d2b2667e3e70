"""Evaluation: what is chosen is chosen without the test images, and scores are those of the classifiers."""

import numpy as np
import pytest

from tfinpaint.probing.classifiers import fit_linear_probe
from tfinpaint.probing.evaluation import ALL_STAGES, FeatureSet, better_random, evaluate_sets
from tfinpaint.probing.shares import Draw
from tfinpaint.probing.verdict import standard_error

LABELS = np.repeat(np.arange(3), 20)
TEST_LABELS = np.repeat(np.arange(3), 10)
DRAWS = [Draw(0.2, 0, np.arange(0, 60, 5)), Draw(0.2, 1, np.arange(1, 60, 5)), Draw(1.0, 0, np.arange(60))]


def features(signal: float, size: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, with the class in the first three numbers."""
    generator = np.random.default_rng(seed)
    found = []
    for labels in (LABELS, TEST_LABELS):
        values = generator.normal(size=(len(labels), size))
        values[np.arange(len(labels)), labels] += signal
        found.append(values.astype(np.float32))
    return found[0], found[1]


def stages(signal: float, seed: int = 0):
    """Features of stages 4 and 5, of training and of test images."""
    parts = [features(signal, seed=10 * seed + stage) for stage in (4, 5)]
    return tuple({4: parts[0][side], 5: parts[1][side]} for side in (0, 1))


def test_nothing_is_chosen_by_test_images():
    each = FeatureSet("x", 5, *features(1.5))
    (row,) = evaluate_sets([each], DRAWS[1:], LABELS, TEST_LABELS, 3)
    shuffled = np.random.default_rng(0).permutation(TEST_LABELS)
    (other,) = evaluate_sets([each], DRAWS[1:], LABELS, shuffled, 3)
    assert [score.strengths for score in row.scores] == [score.strengths for score in other.scores]
    assert [score.validated for score in row.scores] == [score.validated for score in other.scores]
    np.testing.assert_array_equal(row.probabilities, other.probabilities)
    assert row.scores[-1].accuracy > other.scores[-1].accuracy + 0.2


def test_scores_are_those_of_the_classifiers():
    each = FeatureSet("x", None, *features(1.5))
    (row,) = evaluate_sets([each], DRAWS, LABELS, TEST_LABELS, 3)
    assert [(score.share, score.labels, len(score.linear)) for score in row.scores] == [(0.2, 12, 2), (1.0, 60, 1)]
    expected = []
    for draw in DRAWS:
        probe = fit_linear_probe(each.train[draw.indices], LABELS[draw.indices])
        expected.append(float(np.mean(probe.probabilities(each.test).argmax(axis=1) == TEST_LABELS)))
    assert [*row.scores[0].linear, *row.scores[1].linear] == expected
    assert row.scores[0].accuracy == pytest.approx(row.scores[0].right.mean())
    p = row.scores[1].accuracy
    assert standard_error(row.scores[1].right) == pytest.approx(np.sqrt(p * (1 - p) / 29))


def test_the_better_random_encoder_is_the_better_on_training_images():
    good, bad = stages(3.0, seed=1), stages(0.0, seed=2)
    good_in_training = good[0], bad[1]  # its features of the test images are noise
    good_in_testing = bad[0], good[1]
    sets = better_random({"a": good_in_testing, "b": good_in_training}, LABELS, np.arange(60))
    assert [(each.name, each.stage, each.detail) for each in sets] == [
        ("random encoder", 4, "b"),
        ("random encoder", 5, "b"),
        ("random encoder", ALL_STAGES, "b"),
    ]
    np.testing.assert_array_equal(sets[1].test, bad[1][5])
