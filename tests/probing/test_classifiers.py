"""The classifiers of a probe: k-NN against a naive loop, and how logistic regression chooses C."""

import numpy as np
import pytest

from tfinpaint.probing import classifiers
from tfinpaint.probing.classifiers import (
    STRENGTHS,
    UNCHOSEN,
    Scaling,
    fit_linear_probe,
    nearest_neighbour_scores,
    validate_strengths,
    validation_folds,
)


def blobs(counts, size=6, spread=0.3, seed=0):
    """Float32 features around a centre for each class, and their labels."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(len(counts), size))
    labels = np.repeat(np.arange(len(counts)), counts)
    return (centres[labels] + spread * generator.normal(size=(len(labels), size))).astype(np.float32), labels


@pytest.mark.parametrize("images", [7, 50])  # fewer and more than k = 20
def test_neighbours_vote_as_in_a_naive_loop(images):
    generator = np.random.default_rng(3)
    train, test = generator.normal(1, 2, (images, 5)), generator.normal(1, 2, (4, 5))
    labels = np.arange(images) % 3
    mean = train.mean(axis=0)
    for row, given in zip(nearest_neighbour_scores(train, labels, test, 3), test, strict=True):
        near = []
        for image, label in zip(train, labels, strict=True):
            a, b = image - mean, given - mean
            near.append((a @ b / np.sqrt(a @ a) / np.sqrt(b @ b), label))
        near.sort(reverse=True)
        votes = [0.0, 0.0, 0.0]
        for similarity, label in near[:20]:
            votes[label] += np.exp(similarity / 0.07)
        np.testing.assert_allclose(row, votes, rtol=1e-9)


def test_neighbours_of_many_test_images_are_found_in_blocks(monkeypatch):
    train, labels = blobs([9, 8])
    test, _ = blobs([5, 6], seed=1)
    whole = nearest_neighbour_scores(train, labels, test, 2)
    monkeypatch.setattr(classifiers, "_BLOCK", 3)
    np.testing.assert_array_equal(nearest_neighbour_scores(train, labels, test, 2), whole)


def test_logistic_regression_separates_what_can_be_separated():
    train, labels = blobs([30, 25, 40])
    test, expected = blobs([20, 20, 20], seed=1)
    probe = fit_linear_probe(1000 * train + 5, labels)  # the scale of features does not matter
    assert (probe.probabilities(1000 * test + 5).argmax(axis=1) == expected).all()
    assert probe.validated == 1
    assert probe.strength in STRENGTHS


def test_strengths_are_those_of_the_protocol():
    assert len(STRENGTHS) == 13
    np.testing.assert_allclose(STRENGTHS[0], 1e-4)
    np.testing.assert_allclose(STRENGTHS[-1], 1e2)
    np.testing.assert_allclose(np.diff(np.log10(STRENGTHS)), 0.5)


def test_of_equally_good_strengths_the_most_regularised_is_chosen():
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 2
    clean = np.stack([labels + 0.01 * generator.normal(size=120), generator.normal(size=120)], axis=1)
    accuracies = validate_strengths(Scaling.of(clean)(clean), labels, STRENGTHS)
    best = np.flatnonzero(accuracies == accuracies.max())
    assert len(best) > 1
    assert fit_linear_probe(clean, labels).strength == STRENGTHS[best[0]]


def test_the_search_ends_two_strengths_after_the_best():
    train, labels = blobs([60, 60, 60], size=40, spread=2)
    scaled = Scaling.of(train)(train)
    found = validate_strengths(scaled, labels, STRENGTHS)
    best = int(np.flatnonzero(found == found.max())[-1])
    assert best + 3 == len(found) < len(STRENGTHS)
    alone = validate_strengths(scaled, labels, STRENGTHS[: best + 1])
    np.testing.assert_array_equal(found[: best + 1], alone)


def test_few_images_are_rotated_without_a_change():
    """Weights that L2 regularises lie in the space of the labelled images."""
    from sklearn.linear_model import LogisticRegression

    train, labels = blobs([6, 5, 4], size=60, spread=2)
    test, _ = blobs([9, 9, 9], size=60, spread=2, seed=1)
    probe = fit_linear_probe(train, labels)
    assert probe.scaling.axes is not None
    assert probe.scaling.axes.shape == (60, 15)
    mean, deviation = train.astype(float).mean(axis=0), train.astype(float).std(axis=0)
    plain = LogisticRegression(C=probe.strength, max_iter=2000, tol=1e-8).fit((train - mean) / deviation, labels)
    np.testing.assert_allclose(probe.probabilities(test), plain.predict_proba((test - mean) / deviation), atol=2e-3)


def test_a_constant_feature_changes_nothing():
    train, labels = blobs([10, 10], size=4)
    test, _ = blobs([10, 10], size=4, seed=1)
    constant = np.full((20, 1), 3.7, np.float32)
    wide = fit_linear_probe(np.hstack([train, constant]), labels).probabilities(np.hstack([test, constant]))
    np.testing.assert_allclose(wide, fit_linear_probe(train, labels).probabilities(test), rtol=1e-6)


@pytest.mark.parametrize(
    ("counts", "folds"),
    [([30, 20], 5), ([30, 3, 12], 3), ([8, 1, 2], 2), ([9, 1], 5), ([1, 1, 1], 0)],
)
def test_folds_are_as_many_as_the_smallest_class_allows(counts, folds):
    labels = np.repeat(np.arange(len(counts)), counts)
    found = validation_folds(labels)
    assert len(found) == folds
    validated = np.sort(np.concatenate(found)) if found else np.zeros(0)
    single = [number for number, count in enumerate(counts) if count == 1]
    assert validated.tolist() == np.flatnonzero(~np.isin(labels, single)).tolist()
    for validation in found:  # every class is in the training part
        assert set(np.delete(labels, validation)) == set(range(len(counts)))


def test_one_label_for_each_class_is_enough():
    train, labels = blobs([1, 1, 1])
    probe = fit_linear_probe(train, labels)
    assert (probe.strength, probe.validated) == (UNCHOSEN, None)
    assert (probe.probabilities(train).argmax(axis=1) == labels).all()
