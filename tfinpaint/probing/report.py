"""Write what a probe has found: tables, JSON, the figure of accuracy against the share of the labels, and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tfinpaint.layout import PROBE_FIGURE, PROBE_JSON
from tfinpaint.probing.classifiers import FOLDS, NEIGHBOURS, STRENGTHS, TEMPERATURE
from tfinpaint.probing.evaluation import Row, Score
from tfinpaint.probing.verdict import RANDOM, stage_text, standard_error
from tfinpaint.report.colours import ALL_STAGES, IMAGES_THEMSELVES, STAGES
from tfinpaint.report.figures import own_style, save_figure, set_share_axis
from tfinpaint.storage.atomic import write_json
from tfinpaint.system.wording import counted, percent


def accuracy_tables(rows: Sequence[Row]) -> dict[str, list[list[Any]]]:
    """Return a table of logistic regression and one of the nearest neighbours: a heading row, then a row each.

    The deviation over the draws of labels stands behind a mean of several draws.
    """
    shares = [percent(score.share) for score in rows[0].scores]
    labels = [counted(score.labels, "label") for score in rows[0].scores]
    heads = [f"{share} ({count})" for share, count in zip(shares, labels, strict=True)]
    tables = {
        "Logistic regression: test accuracy at each share of the labels": lambda score: score.linear,
        f"k nearest neighbours (cosine, k {NEIGHBOURS}): test accuracy at each share of the labels": lambda score: (
            score.neighbours
        ),
    }
    return {
        title: [
            ["features", "depth", *heads],
            *([row.name, stage_text(row.stage), *(_shown(of(score)) for score in row.scores)] for row in rows),
        ]
        for title, of in tables.items()
    }


def _shown(accuracies: Sequence[float]) -> str:
    mean = f"{np.mean(accuracies):.3f}"
    return mean if len(accuracies) == 1 else f"{mean} ± {np.std(accuracies, ddof=1):.3f}"


def as_json(
    rows: Sequence[Row], sentences: Sequence[str], facts: Mapping[str, Any], distinct: np.ndarray
) -> dict[str, Any]:
    """Return all results as JSON values.

    Args:
        facts: about the images and the encoders.
        distinct: bool [test images]: False for a near-duplicate of a training image.
    """
    protocol = {
        "scaling": "mean 0 and deviation 1 on the labelled training images",
        "strengths": list(STRENGTHS),
        "folds": FOLDS,
        "neighbours": NEIGHBOURS,
        "temperature": TEMPERATURE,
    }
    found = [_row_json(row, distinct) for row in rows]
    return {"sentences": list(sentences), **facts, "protocol": protocol, "rows": found}


def _row_json(row: Row, distinct: np.ndarray) -> dict[str, Any]:
    return {
        "features": row.name,
        "stage": stage_text(row.stage) or None,
        "detail": row.detail or None,
        "size": row.size,
        "scores": [_score_json(score, distinct) for score in row.scores],
    }


def _score_json(score: Score, distinct: np.ndarray) -> dict[str, Any]:
    return {
        "share": score.share,
        "labels": score.labels,
        "accuracy": score.accuracy,
        "accuracy_without_duplicates": score.accuracy_on(distinct) if distinct.any() else None,
        "standard_error": standard_error(score.right),
        "deviation": float(np.std(score.linear, ddof=1)) if len(score.linear) > 1 else None,
        "draws": list(score.linear),
        "c": list(score.strengths),
        "validation_accuracy": list(score.validated),
        "knn_accuracy": float(np.mean(score.neighbours)),
        "knn_deviation": float(np.std(score.neighbours, ddof=1)) if len(score.neighbours) > 1 else None,
        "knn_draws": list(score.neighbours),
    }


def write_results(
    folder: Path, rows: Sequence[Row], sentences: Sequence[str], facts: Mapping[str, Any], distinct: np.ndarray
) -> None:
    """Write the JSON file of `as_json` and the figure into a folder. Raises OSError where it cannot be written."""
    write_json(folder / PROBE_JSON, as_json(rows, sentences, facts, distinct))
    draw_accuracies(rows, folder / PROBE_FIGURE)


@own_style()
def draw_accuracies(rows: Sequence[Row], path: Path) -> None:
    """Draw test accuracy of logistic regression against the share of the labels, a panel for each encoder's depths.

    Bars show the standard error over the test images. Every panel shows the rows without stages, for comparison.
    """
    encoders = list(dict.fromkeys(row.name for row in rows if row.stage is not None))
    figure = Figure(figsize=(4.2 * len(encoders), 4), layout="constrained")
    panels = figure.subplots(1, len(encoders), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, encoders, strict=True):
        for row in rows:
            if row.name == name:
                colour = STAGES.get(row.stage or 0, ALL_STAGES)
                _draw_line(axes, row, stage_text(row.stage), "o-", color=colour)
            elif row.stage is None:
                _draw_line(axes, row, row.name, "s--" if row.name.startswith("raw") else "^:", color=IMAGES_THEMSELVES)
        axes.set(title=name if name == RANDOM else _tail(name))
        set_share_axis(axes, [100 * score.share for score in rows[0].scores])
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))  # it would hide lines
    panels[0].set_ylabel("test accuracy")
    alt = "Test accuracy of logistic regression against the share of the labels, a panel for each of these encoders: "
    save_figure(figure, path, f"{alt}{', '.join(encoders)}; a line for each depth, for raw pixels and for HOG.")


def _draw_line(axes: Any, row: Row, label: str, style: str, **options: Any) -> None:
    shares = [100 * score.share for score in row.scores]
    errors = [standard_error(score.right) for score in row.scores]
    values = [score.accuracy for score in row.scores]
    axes.errorbar(shares, values, errors, fmt=style, markersize=4, capsize=2, linewidth=1, label=label, **options)


def _tail(name: str, most: int = 40) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"
