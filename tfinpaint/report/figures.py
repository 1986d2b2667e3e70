"""Pictures of a run, as PNG files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfinpaint.files import write_bytes
from tfinpaint.report.metrics import series

DPI = 110
TOO_DARK = 0.1  # a column whose values all lie below this is stretched, or nothing would be seen
warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a class name in a script the font lacks


def curve(
    records: Sequence[Mapping[str, Any]],
    name: str,
    label: str,
    path: Path,
    baselines: Mapping[str, float] | None = None,
) -> None:
    """One metric over the epochs, training and test, so far as the records have it.

    Args:
        baselines: name -> value of the same metric without training: horizontal lines.
    """
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for phase, style in (("train", "o-"), ("test", "s--")):
        epochs, values = series(records, phase, name)
        if epochs:
            axes.plot(epochs, values, style, markersize=3, label=phase)
    for number, (baseline, value) in enumerate((baselines or {}).items()):
        axes.axhline(value, linestyle=(0, (6, 3)), linewidth=1, color=f"C{number + 2}", label=f"{baseline} {value:.4g}")
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if baselines:  # the lines run through all of the axes: no place there is free
        figure.legend(loc="outside upper center", ncols=3)
    else:
        axes.legend()
    _save(figure, path)


def grid(columns: Mapping[str, np.ndarray], title: str, path: Path) -> None:
    """Images side by side, a row per example and a named column per kind.

    Args:
        columns: arrays [examples, height, width, channels], float, RGB or grey (of other than three channels the mean
            is shown); or integers [examples, height, width]. A column whose values are not 0 to 1, or hardly above 0,
            is stretched as a whole; its values' range then stands below its name.
    """
    rows = len(next(iter(columns.values())))
    figure = Figure(figsize=(1.6 * len(columns), 1.6 * rows + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, len(columns), squeeze=False)[0]  # an axes for each image would take seconds to lay out
    for place, (name, images) in zip(axes, columns.items(), strict=True):
        shown, value_range = _displayable(images)
        place.set_title(f"{name}\n{value_range}" if value_range else name, fontsize=10)
        place.imshow(_stacked(shown), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        place.axis("off")
    _save(figure, path)


def _stacked(images: np.ndarray) -> np.ndarray:
    """The images one below the other, white between them."""
    gap = -(-images.shape[1] // 20)
    parts = np.pad(images, [(0, 0), (0, gap), *[(0, 0)] * (images.ndim - 2)], constant_values=1)
    return parts.reshape(-1, *images.shape[2:])[:-gap]


def _displayable(images: np.ndarray) -> tuple[np.ndarray, str]:
    """(values 0 to 1, RGB or grey; the range that was stretched to that, "" where none was)."""
    if images.ndim == 4 and images.shape[3] != 3:
        images = images.mean(axis=3)
    low, high = min(0.0, float(images.min())), float(images.max())
    rounding = 1e-3  # of an interpolation, say
    if (-rounding <= low and TOO_DARK <= high <= 1 + rounding) or low == high:
        return images.clip(0, 1), ""
    return (images - low) / (high - low), f"{low:.3g} to {high:.3g}"


def confusion(matrix: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """A confusion matrix: counts written in, colour by the share of the true class.

    Args:
        matrix: [true class, predicted class], counts.
    """
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.8 + 0.55 * len(classes)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    places = range(len(classes))
    axes.set_xticks(places, classes, rotation=45, ha="right")
    axes.set_yticks(places, classes)
    axes.set(xlabel="predicted", ylabel="true")
    for true in places:
        for predicted in places:
            colour = "white" if share[true, predicted] > 0.5 else "black"
            count = int(matrix[true, predicted])
            axes.text(predicted, true, str(count), ha="center", va="center", color=colour, fontsize=8)
    _save(figure, path)


def bars(values: Mapping[str, float], label: str, path: Path) -> None:
    """One labelled bar per value, 0 to 1."""
    figure = Figure(figsize=(6, 0.8 + 0.5 * len(values)), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh(list(values), list(values.values()))
    axes.bar_label(drawn, fmt="%.3f", padding=3)
    axes.set(xlabel=label, xlim=(0, 1.1))
    axes.invert_yaxis()
    _save(figure, path)


def label_fractions(summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Test accuracy against the share of the training labels, a line for each kind of start, a dot for each run.

    Args:
        summaries: of classifiers, with "test_accuracy", "label_fraction" and "from_scratch".
    """
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, from_scratch, style in (("pretrained", False, "o-"), ("from scratch", True, "s--")):
        chosen = [s for s in summaries if s.get("from_scratch") == from_scratch]
        shares = sorted({s["label_fraction"] for s in chosen})
        runs = [[s["test_accuracy"] for s in chosen if s["label_fraction"] == share] for share in shares]
        if shares:
            (line,) = axes.plot([100 * share for share in shares], [np.mean(run) for run in runs], style, label=label)
            for share, run in zip(shares, runs, strict=True):
                axes.plot([100 * share] * len(run), run, ".", color=line.get_color())
    axes.set(xlabel="share of the training labels, %", ylabel="test accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    contents = io.BytesIO()
    figure.savefig(contents, dpi=DPI, format="png")
    write_bytes(path, contents.getbuffer())
