"""The classifiers of a probe: multinomial logistic regression and k nearest neighbours, on fixed features."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from tfinpaint.system.activity import report_activity
from tfinpaint.system.parallel import parallel_map

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

STRENGTHS = tuple(float(c) for c in np.logspace(-4, 2, 13))  # C of logistic regression: smaller regularises more
FEW_STRENGTHS = STRENGTHS[:9:2]  # 0.0001 to 1, within training, where time counts
UNCHOSEN = 1.0  # C where no class has two labelled images to choose it by
FOLDS = 5
WORSE = 2  # values of C in a row with an accuracy below the highest one, after which none is tried
MOST_ITERATIONS = 100, 1000  # of a fit in cross-validation, and of the last one
NEIGHBOURS = 20
TEMPERATURE = 0.07
_BLOCK = 1024  # test images whose similarities are in memory at once


@dataclass(frozen=True)
class Scaling:
    """Standardisation by the mean and deviation of the labelled images, and a rotation if there are few of them.

    Attributes:
        mean, deviation: float64 [features]; the deviation is 1 where a feature is constant.
        axes: float64 [features, labelled images], orthonormal; None without a rotation. Weights that L2 regularises
            lie in the space of the labelled images, so fewer numbers give the same classifier.
    """

    mean: np.ndarray
    deviation: np.ndarray
    axes: np.ndarray | None

    @classmethod
    def of(cls, features: np.ndarray) -> Scaling:
        """Return the scaling of labelled images, [images, features]."""
        values = features.astype(np.float64)
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        deviation[deviation < 1e-12 + 1e-7 * np.abs(mean)] = 1
        if 2 * len(values) > values.shape[1]:
            return cls(mean, deviation, None)
        axes = np.linalg.svd((values - mean) / deviation, full_matrices=False)[2].T
        return cls(mean, deviation, axes)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return float64 [images, features or rotated features]."""
        scaled = (features - self.mean) / self.deviation
        return scaled if self.axes is None else scaled @ self.axes


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regression on standardised features.

    Attributes:
        scaling: of the features.
        model: the fitted classifier of scikit-learn.
        strength: its C.
        validated: accuracy in the cross-validation that chose C; None where every class has a single labelled image.
    """

    scaling: Scaling
    model: LogisticRegression
    strength: float
    validated: float | None

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return float64 [images, classes], in the order of the numbers of the classes."""
        return self.model.predict_proba(self.scaling(features))

    def softmax_layer(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the classifier as a dense layer before a softmax, on features that are not scaled.

        Returns:
            Kernel, float64 [features, classes], and bias, float64 [classes].
        """
        kernel, bias = self.model.coef_.T, self.model.intercept_
        if kernel.shape[1] == 1:  # of two classes there is a single logit, that of the second one
            kernel, bias = np.concatenate([-kernel, kernel], axis=1) / 2, np.concatenate([-bias, bias]) / 2
        if self.scaling.axes is not None:
            kernel = self.scaling.axes @ kernel
        kernel = kernel / self.scaling.deviation[:, None]
        return kernel, bias - self.scaling.mean @ kernel


def fit_linear_probe(features: np.ndarray, labels: np.ndarray, strengths: Sequence[float] | None = None) -> LinearProbe:
    """Fit logistic regression, with the C of the highest accuracy in cross-validation on these images alone.

    Args:
        features: float32 [images, features].
        labels: int [images], at least two classes.
        strengths: the values of C to choose from, smallest first; None: STRENGTHS.
    """
    strengths = STRENGTHS if strengths is None else strengths
    scaling = Scaling.of(features)
    scaled = scaling(features)
    accuracies = validate_strengths(scaled, labels, strengths)
    best = None if accuracies is None else int(accuracies.argmax())  # of equal ones, the most regularised
    strength = UNCHOSEN if best is None else strengths[best]
    model = _regression(strength, MOST_ITERATIONS[1])
    with _fitting():
        model.fit(scaled, labels)
    return LinearProbe(scaling, model, strength, None if accuracies is None else float(accuracies.max()))


def validate_strengths(scaled: np.ndarray, labels: np.ndarray, strengths: Sequence[float]) -> np.ndarray | None:
    """Return the cross-validated accuracy of each C, float64 [values of C that were tried].

    The folds are stratified: FOLDS, or as many as the smallest class with at least two images has. A class with a
    single image is in the training part of every fold. The larger C, the longer a fit takes, so the search ends when
    the accuracy has been below the highest one for WORSE values in a row. None where all classes have a single image.

    Args:
        scaled: float64 [images, features].
        labels: int [images].
        strengths: values of C, smallest first.
    """
    folds = validation_folds(labels)
    if not folds:
        return None
    values = scaled.astype(np.float32)  # twice as fast, and as accurate as a comparison of accuracies needs
    fits = [_Fold(values, labels, validation, _regression(strengths[0], MOST_ITERATIONS[0])) for validation in folds]
    right: list[int] = []
    with _fitting():
        for strength in strengths:
            report_activity()
            right.append(sum(parallel_map(lambda fold, c=strength: fold.count_right(c), fits)))  # type: ignore[misc]
            if len(right) > WORSE and max(right[-WORSE:]) < max(right):
                break
    return np.array(right) / sum(len(validation) for validation in folds)


@dataclass(frozen=True)
class _Fold:
    """A fold of the cross-validation, whose fits begin with the weights of the one before."""

    values: np.ndarray
    labels: np.ndarray
    validation: np.ndarray
    model: LogisticRegression

    def count_right(self, strength: float) -> int:
        training = np.setdiff1d(np.arange(len(self.labels)), self.validation)
        self.model.C = strength
        self.model.fit(self.values[training], self.labels[training])
        predicted = self.model.predict(self.values[self.validation])
        return int(np.count_nonzero(predicted == self.labels[self.validation]))


def validation_folds(labels: np.ndarray) -> list[np.ndarray]:
    """Return the indices of the images of each fold's validation part; [] where all classes have a single image."""
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(labels)
    several = np.flatnonzero(counts[labels] > 1)
    if not len(several):
        return []
    splitter = StratifiedKFold(int(min(FOLDS, counts[counts > 1].min())), shuffle=True, random_state=0)
    return [several[validation] for _, validation in splitter.split(several, labels[several])]


def _regression(strength: float, most_iterations: int) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, solver="lbfgs", max_iter=most_iterations, warm_start=True)


@contextmanager
def _fitting() -> Iterator[None]:
    """Fit within a `with` statement: matrices are so narrow that more than one thread for each would only wait."""
    from sklearn.exceptions import ConvergenceWarning

    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        # With a large C the optimum is far away, and its accuracy is reached long before it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def nearest_neighbour_scores(features: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """Return the votes of the nearest labelled images for each class, float64 [test images, classes].

    Features are centred at the mean of the labelled images and divided by their norm. The NEIGHBOURS labelled images
    of the highest cosine similarity s (all, if there are fewer) vote with weight exp(s / TEMPERATURE) (Wu et al., arXiv
    1805.01978, section 3.4).

    Args:
        features: [labelled images, features], and `labels` their classes, int [labelled images].
        test: [test images, features].
        classes: their number.
    """
    mean = features.astype(np.float64).mean(axis=0)
    known = normalised(features - mean)
    votes = np.zeros((len(test), classes))
    for first in range(0, len(test), _BLOCK):
        similarities = normalised(test[first : first + _BLOCK] - mean) @ known.T
        nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :NEIGHBOURS]
        weights = np.exp(np.take_along_axis(similarities, nearest, axis=1) / TEMPERATURE)
        rows = first + np.arange(len(nearest))[:, None]
        np.add.at(votes, (np.broadcast_to(rows, nearest.shape), labels[nearest]), weights)
    return votes


def normalised(features: np.ndarray) -> np.ndarray:
    """Return float64 vectors of length 1; a vector of zeros stays one."""
    size = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(size > 0, size, 1)
