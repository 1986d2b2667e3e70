"""Train the classifiers of a probe on every set of features and every share of the labels, and test them once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfinpaint.probing.classifiers import (
    STRENGTHS,
    Scaling,
    fit_linear_probe,
    nearest_neighbour_scores,
    validate_strengths,
)
from tfinpaint.probing.features import StageFeatures, concatenated
from tfinpaint.probing.shares import Draw
from tfinpaint.system.progress import log_progress

ALL_STAGES = 0  # stands for the concatenation of all stages
SELECTION_IMAGES = 1000  # labelled images by which the better random encoder is chosen, at most
SELECTION_STRENGTHS = STRENGTHS[::3]  # of logistic regression there


@dataclass(frozen=True)
class FeatureSet:
    """Features of the training and of the test images.

    Attributes:
        name: of the encoder, or of what else the features are.
        stage: number of the stage; ALL_STAGES for their concatenation; None where there are no stages.
        train, test: float32 [images, features].
        detail: which of several encoders it is; "" otherwise.
    """

    name: str
    stage: int | None
    train: np.ndarray
    test: np.ndarray
    detail: str = ""


@dataclass(frozen=True)
class Score:
    """The results of a set of features at one share of the labels, over its draws.

    Attributes:
        share: fraction of the training images whose labels are used.
        labels: their number.
        linear, neighbours: test accuracies of logistic regression and of the nearest neighbours, one per draw.
        strengths: the C of each draw.
        validated: the cross-validated accuracy of each draw; None where C could not be chosen.
        right: float64 [test images]: in how many of the draws logistic regression is right, as a fraction.
    """

    share: float
    labels: int
    linear: tuple[float, ...]
    neighbours: tuple[float, ...]
    strengths: tuple[float, ...]
    validated: tuple[float | None, ...]
    right: np.ndarray

    @property
    def accuracy(self) -> float:
        """Return the mean accuracy of logistic regression over the draws."""
        return float(np.mean(self.linear))

    def accuracy_on(self, images: np.ndarray) -> float:
        """Return the mean accuracy of logistic regression on some test images, bool [test images], at least one."""
        return float(self.right[images].mean())

    @property
    def validation(self) -> float | None:
        """Return the mean cross-validated accuracy over the draws; None where C could not be chosen."""
        found = [each for each in self.validated if each is not None]
        return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class Row:
    """The results of one set of features.

    Attributes:
        name, stage, detail: as in `FeatureSet`, and `size` the number of features.
        scores: one for each share, smallest first.
        probabilities: float64 [test images, classes]: what logistic regression gives at the largest share, in the
            first draw.
    """

    name: str
    stage: int | None
    detail: str
    size: int
    scores: tuple[Score, ...]
    probabilities: np.ndarray


def stage_sets(name: str, train: StageFeatures, test: StageFeatures, detail: str = "") -> Iterator[FeatureSet]:
    """Yield the features of each stage, then their concatenation."""
    for stage in sorted(train):
        yield FeatureSet(name, stage, train[stage], test[stage], detail)
    yield FeatureSet(name, ALL_STAGES, concatenated(train), concatenated(test), detail)


def better_random(
    candidates: Mapping[str, tuple[StageFeatures, StageFeatures]], labels: np.ndarray, chosen: np.ndarray
) -> list[FeatureSet]:
    """Return the features of the better random encoder for each stage and for their concatenation.

    The better one has the highest accuracy in cross-validation on training images; no test image is used.

    Args:
        candidates: description -> features of the training and of the test images.
        labels: int [training images].
        chosen: int [images]: the labelled training images that are used.
    """
    sets = {detail: list(stage_sets("random encoder", *both, detail)) for detail, both in candidates.items()}
    places = range(len(next(iter(sets.values()))))
    tasks = [(place, detail) for place in places for detail in sets]
    accuracies = {}
    for place, detail in log_progress(tasks, len(tasks), "Choosing among random encoders"):
        features = sets[detail][place].train[chosen]
        found = validate_strengths(Scaling.of(features)(features), labels[chosen], SELECTION_STRENGTHS)
        accuracies[place, detail] = 0.0 if found is None else float(found.max())
    best = [max(sets, key=lambda detail: accuracies[place, detail]) for place in places]
    return [sets[detail][place] for place, detail in zip(places, best, strict=True)]


def evaluate_sets(
    sets: Sequence[FeatureSet], draws: Sequence[Draw], train_labels: np.ndarray, test_labels: np.ndarray, classes: int
) -> list[Row]:
    """Fit and test the classifiers of every set of features on every draw of labels.

    Args:
        draws: those of all shares, smallest share first.
        train_labels, test_labels: int [training images], int [test images].
        classes: their number.
    """
    tasks = [(each, draw) for each in sets for draw in draws]
    results: dict[int, list[_Result]] = {id(each): [] for each in sets}
    for each, draw in log_progress(tasks, len(tasks), "Fitting classifiers"):
        results[id(each)].append(_fit_and_test(each, draw, train_labels, test_labels, classes))
    return [_row(each, results[id(each)]) for each in sets]


@dataclass(frozen=True)
class _Result:
    draw: Draw
    linear: float
    neighbours: float
    strength: float
    validated: float | None
    right: np.ndarray
    probabilities: np.ndarray


def _fit_and_test(
    features: FeatureSet, draw: Draw, train_labels: np.ndarray, test_labels: np.ndarray, classes: int
) -> _Result:
    known, labels = features.train[draw.indices], train_labels[draw.indices]
    probe = fit_linear_probe(known, labels)
    probabilities = probe.probabilities(features.test)
    right = probabilities.argmax(axis=1) == test_labels
    votes = nearest_neighbour_scores(known, labels, features.test, classes)
    near = float(np.mean(votes.argmax(axis=1) == test_labels))
    return _Result(draw, float(right.mean()), near, probe.strength, probe.validated, right, probabilities)


def _row(features: FeatureSet, results: Sequence[_Result]) -> Row:
    scores = []
    for share in dict.fromkeys(each.draw.share for each in results):
        some = [each for each in results if each.draw.share == share]
        scores.append(
            Score(
                share=share,
                labels=len(some[0].draw.indices),
                linear=tuple(each.linear for each in some),
                neighbours=tuple(each.neighbours for each in some),
                strengths=tuple(each.strength for each in some),
                validated=tuple(each.validated for each in some),
                right=np.mean([each.right for each in some], axis=0),
            )
        )
    last = next(each for each in results if each.draw.share == scores[-1].share)
    size = features.train.shape[1]
    return Row(features.name, features.stage, features.detail, size, tuple(scores), last.probabilities)
