"""Draw what a probe's features do with images: neighbours, confused images, a map, and the reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tfinpaint.probing.classifiers import Scaling, normalised
from tfinpaint.report.figures import save_figure, short_name, shrink_images

MOST_ROWS, MOST_PICTURES = 8, 7  # of a figure of images, and of a row beside the first picture
MOST_SIDE = 96  # pixels of an image in a figure
MOST_COLOURS = 20  # classes with a colour of their own
BINS = 15  # of the reliability diagram


@dataclass(frozen=True)
class PictureRow:
    """A row of a figure of images.

    Attributes:
        title: of the row.
        images: float [pictures, height, width, channels], 0 to 1; at most MOST_PICTURES + 1.
        captions: one for each image, below it.
        wrong: whether each caption is shown in red.
    """

    title: str
    images: np.ndarray
    captions: Sequence[str]
    wrong: Sequence[bool]


def nearest_images(train: np.ndarray, test: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Return the most similar training images of some test images, int64 [chosen, MOST_PICTURES], nearest first.

    Args:
        train, test: features [images, features]; similarity is the cosine after centring, as for the classifier.
    """
    mean = train.astype(np.float64).mean(axis=0)
    similarities = normalised(test[list(chosen)] - mean) @ normalised(train - mean).T
    return np.argsort(-similarities, axis=1, kind="stable")[:, :MOST_PICTURES]


def spread_over_classes(labels: np.ndarray, count: int) -> list[int]:
    """Return the indices of a few images that take turns among the classes."""
    of_class = [np.flatnonzero(labels == number).tolist() for number in np.unique(labels)]
    turns = [
        (place, number, index) for number, images in enumerate(of_class) for place, index in enumerate(images[:count])
    ]
    return [index for *_, index in sorted(turns)[:count]]


def draw_pictures(rows: Sequence[PictureRow], path: Path) -> None:
    """Draw rows of images with captions."""
    columns = max(len(row.images) for row in rows)
    figure = Figure(figsize=(1.3 * columns + 0.2, 1.65 * len(rows) + 0.2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.05, columns), ylim=(1.27 * len(rows), -0.1))
    axes.axis("off")
    for place, row in enumerate(rows):
        top = 1.27 * place + 0.12
        axes.text(0, top - 0.02, row.title, fontsize=8, weight="bold")
        for column, (image, caption, wrong) in enumerate(zip(_small(row.images), row.captions, row.wrong, strict=True)):
            extent = column, column + 0.95, top + 0.95, top
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent, aspect="auto")
            axes.text(column, top + 1.05, caption, fontsize=7, color="firebrick" if wrong else "black")
    axes.set(xlim=(-0.05, columns), ylim=(1.27 * len(rows), -0.1))
    save_figure(figure, path)


def _small(images: np.ndarray) -> np.ndarray:
    shown = shrink_images(images, MOST_SIDE)
    return (shown if shown.shape[-1] == 3 else shown.mean(axis=-1)).clip(0, 1)


def draw_map(train: np.ndarray, test: np.ndarray, labels: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw the test images in the plane of the two main components of the standardised training features.

    Args:
        train, test: features [images, features].
        labels: int [test images], which choose the colours; beyond MOST_COLOURS classes, colours are repeated.
    """
    from sklearn.decomposition import PCA

    scaling = Scaling.of(train)
    values = (train - scaling.mean) / scaling.deviation
    components = PCA(2, svd_solver="randomized", random_state=0).fit(values)
    x, y = components.transform((test - scaling.mean) / scaling.deviation).T
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(classes):
        own = labels == number
        colour = f"C{number}" if len(classes) <= 10 else _colour(number)
        axes.scatter(x[own], y[own], s=9, alpha=0.7, color=colour, label=short_name(name, number))
    shares = components.explained_variance_ratio_
    axes.set(xlabel=f"first component ({shares[0]:.0%} of the variance)", ylabel=f"second ({shares[1]:.0%})")
    if len(classes) <= MOST_COLOURS:
        figure.legend(loc="outside right upper", fontsize=8)
    save_figure(figure, path)


def _colour(number: int) -> tuple[float, ...]:
    from matplotlib import colormaps

    return colormaps["tab20"](number % MOST_COLOURS)


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Return how well probabilities of the predicted classes agree with accuracies.

    Args:
        probabilities: float64 [images, classes].
        labels: int [images].

    Returns:
        float64 [bins, 3]: images, mean probability and accuracy of each of BINS equal intervals of the probability that
        has images; and the expected calibration error (Guo et al., arXiv 1706.04599, equation 5).
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    found = np.array([
        [own.sum(), confidence[own].mean(), right[own].mean()]
        for place in range(BINS)
        if (own := places == place).any()
    ])  # fmt: skip
    return found, float(np.sum(found[:, 0] * np.abs(found[:, 1] - found[:, 2])) / len(labels))


def draw_reliability(probabilities: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """Draw accuracy against the probability of the predicted class; points on the diagonal are calibrated."""
    found, error = reliability(probabilities, labels)
    figure = Figure(figsize=(4.4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
    axes.plot(found[:, 1], found[:, 2], "-", color="C0", linewidth=1)
    axes.scatter(found[:, 1], found[:, 2], s=8 + 300 * found[:, 0] / len(labels), color="C0")
    axes.set(xlabel="probability of the predicted class", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"expected calibration error {error:.3f}", fontsize=10)
    axes.grid(alpha=0.3)
    save_figure(figure, path)
