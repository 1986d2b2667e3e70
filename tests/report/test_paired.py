"""Classifiers are compared on each image, which counts once, however many seeds there are."""

from pathlib import Path

import numpy as np
import pytest
from scipy import signal
from scipy.stats import binomtest

from tfinpaint.report import paired
from tfinpaint.report.image_results import ImageResults
from tfinpaint.report.paired import chance_of_signs, compare_pairs, why_not_paired


def result(right, digest="same"):
    return ImageResults(Path(f"{digest}.csv"), digest, np.array(right, np.bool_))


NINE, ONE = [1] * 9 + [0] + [1] * 5, [0] * 9 + [1] + [1] * 5  # 10 images that only one of the two has right, 9 to 1


def test_two_classifiers_are_compared_by_mcnemars_exact_test():
    found = compare_pairs([result(NINE)], [result(ONE)])
    assert (found.ours, found.theirs) == (9, 1)
    assert found.probability == pytest.approx(22 / 1024)  # 9 or 10 heads, or as many tails, in 10 throws
    for first, second in ((0, 7), (12, 12), (31, 17), (400, 480)):
        differences = np.repeat([1, -1, 0], [first, second, 5])
        assert chance_of_signs(differences) == pytest.approx(binomtest(first, first + second).pvalue)
    assert compare_pairs([result(NINE)], [result(NINE)]).probability == 1


def test_an_image_counts_once_with_several_seeds():
    assert compare_pairs([result(NINE)] * 3, [result(ONE)] * 3).probability == pytest.approx(22 / 1024)
    # Halves: 2, 2, 1 and -1, in sum 4. Of the 16 ways to choose signs, 3 give 4 or more, and 3 give -4 or less.
    ours = [result([1, 1, 1, 0, 1]), result([1, 1, 1, 0, 1])]
    theirs = [result([0, 0, 1, 1, 1]), result([0, 0, 0, 0, 1])]
    found = compare_pairs(ours, theirs)
    assert (found.ours, found.theirs, found.probability) == (3, 1, pytest.approx(6 / 16))
    assert (
        found.sentence() == "On 3 test images the pretrained classifiers are right more often, on 1 those from scratch."
    )


def test_the_numbers_of_seeds_may_differ():
    # Halves: 2, 1 and -1, in sum 2. Of 8 ways, 6 give at least 2 or at most -2.
    found = compare_pairs([result([1, 1, 0])], [result([0, 1, 0]), result([0, 0, 1])])
    assert (found.ours, found.theirs, found.probability) == (2, 1, pytest.approx(6 / 8))


def test_nothing_is_compared_that_is_not_known_or_of_other_images():
    assert compare_pairs([result(NINE)], [None]) is None
    assert compare_pairs([result(NINE)], [result(ONE, "other")]) is None
    assert compare_pairs([result(NINE), None], [result(ONE)]) is None
    assert compare_pairs([result(NINE)], ["x.csv is damaged"]) is None


def test_why_nothing_is_compared_is_known_unless_a_run_has_no_table():
    assert why_not_paired([result(NINE), result(ONE)]) == ""
    assert why_not_paired([]) == why_not_paired([None, result(ONE)]) == ""
    assert why_not_paired([None, result(ONE), result(ONE, "other")]) == ""
    assert why_not_paired([result(NINE), result(ONE), result(ONE, "other")]) == (
        "other.csv has other images or classes than same.csv"
    )
    assert why_not_paired([result(NINE), None, "x.csv is damaged"]) == "x.csv is damaged"


def test_the_probability_of_many_images_and_runs_is_nearly_exact(monkeypatch):
    def both(differences):
        monkeypatch.setattr(paired, "MOST_SUM", 10**9)
        exact = chance_of_signs(differences)
        monkeypatch.setattr(paired, "MOST_SUM", 1)
        return exact, chance_of_signs(differences)

    generator = np.random.default_rng(0)
    five_beside_four = 4 * generator.binomial(5, 0.8, 3000) - 5 * generator.binomial(4, 0.79, 3000)
    for differences in (five_beside_four, np.repeat([1, -1], [1040, 960]), np.repeat([3, -3, 0], [500, 500, 5])):
        exact, quick = both(differences)
        assert quick == pytest.approx(exact, rel=5e-3)
    assert chance_of_signs(np.repeat([1, -1], [2000, 100])) < 1e-100


def test_no_more_numbers_are_kept_than_the_limit_says(monkeypatch):
    kept = []
    convolve = signal.convolve
    monkeypatch.setattr(signal, "convolve", lambda *given: kept.append(len(given[1])) or convolve(*given))
    generator = np.random.default_rng(0)
    differences = 19 * generator.binomial(20, 0.8, 6000) - 20 * generator.binomial(19, 0.8, 6000)
    assert 0 < chance_of_signs(differences) < 1
    assert not kept
    chance_of_signs(differences[:100])
    assert 0 < sum(kept) <= paired.MOST_SUM + len(kept)
