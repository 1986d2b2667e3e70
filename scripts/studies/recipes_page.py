"""Write docs/recipes.md from the results of scripts/study."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rows import ROWS

BASELINES = "baselines"
LAST = "stage 5"
BASE = "both"
NOTICEABLE = 0.03  # difference of two accuracies

HEAD = """# Recipes of pretraining, compared

`python scripts/study DATA` has measured all of this and written this page; docs/study/ has the configuration and the
records of every run. Data: the Natural Images in copies of 30 px (8 classes). The encoder, a ResNet18, is pretrained on
the 6,209 training images without labels, in batches of 64. Logistic regression on its frozen, average-pooled features
is fitted on four fifths of these images with 10 % (mean of three draws) or with all of their labels; **accuracies are
of the remaining fifth, the validation part**. The test images are not touched here.

How to read the tables: higher is better, and the best of each column is bold. One standard error over the validation
images is about 1.3 points, and other initial weights add to it, so differences below 3 points between single runs mean
little. The best depth is the stage, or all stages together, of the highest accuracy in cross-validation. A link leads
to the configuration and the records of a run. Rows of `scripts/studies/rows.py` that are not in a table have not been
measured yet.
"""


def write_page(results: Path) -> None:
    """Write the page from the results in a folder; nothing if there are none."""
    runs = [json.loads(path.read_text()) for path in sorted(results.glob("*-*-*.json")) if BASELINES not in path.name]
    if not runs:
        return
    parts = [HEAD]
    baselines = [json.loads(path.read_text()) for path in sorted(results.glob(f"{BASELINES}-*.json"))]
    for found in baselines:
        title = f"## What needs no pretraining, at {found['side']} px ({found['encoder']})"
        parts += [title, "", *_baselines(found["probe"]), ""]
    for epochs, side in sorted({(run["epochs"], run["side"]) for run in runs}):
        some = [run for run in runs if (run["epochs"], run["side"]) == (epochs, side)]
        parts += [f"## {epochs} epochs at {side} px", "", _finding(some, baselines), "", *_beside_base(some)]
        parts += [*_table(some), ""]
    (results.parent / "recipes.md").write_text("\n".join(parts))


def _baselines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [
        [f"{row['features']}{', ' + row['stage'] if row['stage'] else ''}", *_accuracies([row])] for row in rows
    ]  # fmt: skip
    return _markdown(["features", "10 % of the labels", "all labels"], cells, numbers=(1, 2))


def _table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of the runs of one length and size, in the order of the rows, by the factor that they change."""
    cells, last_group = [], ""
    for name, seeds in _by_row(runs):
        row = ROWS[name]
        last = [_last(run) for run in seeds]
        final = [run["records"][-1] for run in seeds]
        links = ", ".join(f"[{run['seed']}](study/{name}-{run['epochs']}-{run['seed']}.json)" for run in seeds)
        cells.append(
            [
                row.group if row.group != last_group else "",
                f"{row.what} (seed {links})",
                *_accuracies(last),
                *_accuracies([_best(run["probe"]) for run in seeds]),
                _mean([each["scores"][-1]["knn_accuracy"] for each in last]),
                f"{np.mean([each['rankme'] for each in final]):.0f}" if "rankme" in final[0] else "",
            ]
        )
        last_group = row.group
    head = [
        "factor", "recipe", "stage 5, 10 %", "stage 5, all", "best depth, 10 %", "best depth, all", "stage 5, k-NN",
        "RankMe",
    ]  # fmt: skip
    return _markdown(head, cells, numbers=range(2, 7))


def _finding(runs: Sequence[Mapping[str, Any]], baselines: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence on the run with the best features at the end of the encoder, and on a random encoder's."""
    best = max(runs, key=lambda run: _last(run)["scores"][-1]["accuracy"])
    few, many = _accuracies([_last(best)])
    row = ROWS[best["row"]]
    text = (
        f"The best features at the end of stage 5 are those of *{row.group}: {row.what}* (seed {best['seed']}): "
        f"{few} with 10 % of the labels, {many} with all"
    )
    for each in baselines:
        if (each["encoder"], each["side"]) == (best["encoder"], best["side"]):
            few, many = _accuracies([_last(each)])
            return f"{text}. A random encoder has {few} and {many} there."
    return f"{text}."


def _beside_base(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a paragraph on the rows that differ noticeably from the base with few labels; [] without other rows."""
    few = {name: np.mean([_last(run)["scores"][0]["accuracy"] for run in some]) for name, some in _by_row(runs)}
    if BASE not in few or len(few) == 1:
        return []
    sentences = [f"The base has {few[BASE]:.3f} with 10 % of the labels."]
    for direction, sign in (("above", 1), ("below", -1)):
        names = [name for name in few if sign * (few[name] - few[BASE]) >= NOTICEABLE]
        rows = ", ".join(f"*{ROWS[name].group}: {ROWS[name].what}* ({few[name]:.3f})" for name in names)
        far = f"{NOTICEABLE * 100:.0f} points or more {direction} it"
        sentences.append(f"These are {far}: {rows}." if rows else f"No recipe is {far}.")
    return [" ".join(sentences), ""]


def _by_row(runs: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, list[Mapping[str, Any]]]]:
    """Return the runs of each row, in the order of the rows, by seed."""
    order = list(ROWS)
    runs = sorted(runs, key=lambda run: (order.index(run["row"]), run["seed"]))
    return [(name, list(some)) for name, some in groupby(runs, key=lambda run: run["row"])]


def _last(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the results at the end of the encoder."""
    return next(row for row in run["probe"] if row["stage"] == LAST)


def _best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the depth with the highest cross-validated accuracy at the largest share."""
    return max(rows, key=lambda row: sum(row["scores"][-1]["validation_accuracy"]))


def _accuracies(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the accuracy at each share, as the mean over the rows of several seeds."""
    shares = zip(*(row["scores"] for row in rows), strict=True)
    return [_mean([score["accuracy"] for score in scores]) for scores in shares]


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def _markdown(head: Sequence[str], cells: Sequence[Sequence[str]], numbers: Iterable[int]) -> list[str]:
    """Return a table in which the highest number of some columns is bold."""
    best = {column: max(row[column] for row in cells) for column in numbers}
    shown = [[f"**{cell}**" if best.get(i) == cell else cell for i, cell in enumerate(row)] for row in cells]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *shown)]
