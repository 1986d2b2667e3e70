"""Draw the map of a probe's features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tfinpaint.probing.classifiers import Scaling
from tfinpaint.report.figures import own_style, save_figure, short_name

MOST_COLOURS = 20  # classes with a colour of their own


@own_style()
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
    alt = (
        f"Scatter plot of the {len(labels)} test images by the two main components of their features, which hold "
        f"{shares.sum():.0%} of the variance; colours show the {len(classes)} classes."
    )
    save_figure(figure, path, alt)


def _colour(number: int) -> tuple[float, ...]:
    from matplotlib import colormaps

    return colormaps["tab20"](number % MOST_COLOURS)
