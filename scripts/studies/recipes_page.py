"""Write docs/recipes.md from the results of scripts/study."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rows import ROWS

BASE_ROW, BASELINES = "both", "baselines"
LAST = "stage 5"

HEAD = """# Recipes of pretraining, compared

`python scripts/study DATA` has measured all of this and written this page; docs/study/ has the configuration and the
records of every run. Data: the Natural Images in copies of 30 px (8 classes), resized to 32 px. The encoder, a
ResNet50, is pretrained on the 6,209 training images without labels. Logistic regression on its frozen, average-pooled
features is fitted on four fifths of these images with 10 % or with all of their labels; **accuracies are of the
remaining fifth, the validation part**. The test images are not touched here.

How to read the tables: higher is better, and the best of each column is bold. One standard error over the validation
images is about 1.3 points, and other initial weights add to it, so differences below 3 points between single runs mean
little.
"""


def write_page(results: Path) -> None:
    """Write the page from the results in a folder; nothing if there are none."""
    runs = [json.loads(path.read_text()) for path in sorted(results.glob("*-*-*.json"))]
    path = results / f"{BASELINES}.json"
    if not runs:
        return
    parts = [HEAD]
    if path.exists():
        parts += ["## What needs no pretraining", "", *_baselines(json.loads(path.read_text())["probe"]), ""]
    for epochs in sorted({run["epochs"] for run in runs}):
        parts += [f"## {epochs} epochs", "", *_table([run for run in runs if run["epochs"] == epochs]), ""]
    (results.parent / "recipes.md").write_text("\n".join(parts))


def _baselines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [
        [f"{row['features']}{', ' + row['stage'] if row['stage'] else ''}", *_accuracies(row["scores"])] for row in rows
    ]
    return _markdown(["features", "10 % of the labels", "all labels"], cells)


def _table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of the runs of one number of epochs, in the order of the rows, by the factor that they change."""
    order = list(ROWS)
    runs = sorted(runs, key=lambda run: (order.index(run["row"]), run["seed"]))
    cells = []
    for group, members in groupby(runs, key=lambda run: ROWS[run["row"]].group):
        for number, run in enumerate(members):
            last = next(row for row in run["probe"] if row["stage"] == LAST)
            trained = run["records"][-1]
            cells.append(
                [
                    group if number == 0 else "",
                    f"[{ROWS[run['row']].what}](study/{run['row']}-{run['epochs']}-{run['seed']}.json)"
                    + (f", seed {run['seed']}" if run["seed"] else ""),
                    *_accuracies(last["scores"]),
                    *_accuracies(_best(run["probe"])["scores"]),
                    f"{last['scores'][-1]['knn_accuracy']:.3f}",
                    f"{trained['rankme']:.0f}" if "rankme" in trained else "",
                    str(run["processor_minutes"] or ""),
                ]
            )
    head = [
        "factor", "recipe", "stage 5, 10 %", "stage 5, all", "best depth, 10 %", "best depth, all", "stage 5, k-NN",
        "RankMe", "processor minutes",
    ]  # fmt: skip
    return _markdown(head, cells, numbers=range(2, 7))


def _best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the depth with the highest cross-validated accuracy at the largest share."""
    return max(rows, key=lambda row: sum(row["scores"][-1]["validation_accuracy"]))


def _accuracies(scores: Iterable[Mapping[str, Any]]) -> list[str]:
    return [f"{score['accuracy']:.3f}" for score in scores]


def _markdown(head: Sequence[str], cells: Sequence[Sequence[str]], numbers: Iterable[int] = (1, 2)) -> list[str]:
    """Return a table in which the highest number of some columns is bold."""
    best = {column: max(row[column] for row in cells) for column in numbers}
    shown = [[f"**{cell}**" if best.get(i) == cell else cell for i, cell in enumerate(row)] for row in cells]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *shown)]
