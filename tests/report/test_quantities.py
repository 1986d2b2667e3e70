"""Figures of a run have names, units and directions, and the best one is marked."""

import math

from tfinpaint.report.cells import Best
from tfinpaint.report.quantities import legend, mark_best_of_columns, mark_best_of_rows, summary_table


def test_a_summary_is_told_in_words_without_what_is_missing():
    summary = {
        "seconds": 365.2,
        "world_size": 2,
        "test_accuracy": 0.625,
        "test_accuracy_interval": (0.30574, 0.86316),
        "from_scratch": False,
        "label_fraction": 0.2,
        "best_epoch": None,
        "measurements": {"network": {}},
        "epochs": 3,
        "finished": "2026-01-31T16:05:00+01:00",
        "command": "tfinpaint classify",
    }
    assert summary_table(summary) == [
        ["figure", "value"],
        ["test accuracy ↑", 0.625],
        ["95 % interval of the test accuracy", "0.306 to 0.863"],
        ["started from", "pretraining"],
        ["share of the labels", "20 %"],
        ["epochs", 3],
        ["time in epochs", "6 min 5 s"],
        ["ranks", 2],
    ]
    names = [row[0] for row in summary_table(summary | {"epochs": 0})]
    assert "epochs" not in names  # an evaluation trains nothing
    assert "time in epochs" not in names


def test_the_best_is_the_highest_or_the_lowest_number():
    head = ["", "a", "b", "c"]
    rows = [["psnr ↑", 1.0, 3.0, 2.0], ["l1 ↓", 1.0, 3.0, math.nan], ["name", "x", "y", "z"], ["equal", 1, 1, 1]]
    marked = mark_best_of_rows([head, *rows], ["higher", "lower", None, "higher"])
    assert marked == [
        head,
        ["psnr ↑", 1.0, Best(3.0), 2.0],
        ["l1 ↓", Best(1.0), 3.0, marked[2][3]],
        ["name", "x", "y", "z"],
        ["equal", 1, 1, 1],
    ]
    assert legend(marked) == "↑ higher is better, ↓ lower is better, ★ marks the best value."
    assert legend([head]) == ""
    columns = mark_best_of_columns([["run", "accuracy"], ["a", "0.50 ± 0.20"], ["b", "0.70 ± 0.01"]], [None, "higher"])
    assert columns[1:] == [["a", "0.50 ± 0.20"], ["b", Best("0.70 ± 0.01")]]
