"""The first sentence says whether pretraining pays; the others say how much, and what limits that."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tfinpaint.data.listing.duplicates import Copy
from tfinpaint.sweeping.plan import Cell
from tfinpaint.sweeping.rows import Row
from tfinpaint.sweeping.statistics import PAIRS, Difference, Interval
from tfinpaint.sweeping.verdict import verdict


def difference(share: float, low: float, high: float, pair: int = 0) -> Difference:
    mean = (low + high) / 2
    interval = Interval(mean, low, high)
    return Difference(share, round(1000 * share), PAIRS[pair], 0.5 + mean, 0.5, (mean, mean - 0.1), interval)


def plan_of(*cells: Cell, **changes: object) -> SimpleNamespace:
    """What a verdict needs of a plan."""
    rows = [(cell, method) for cell in cells for method in ("fine_tuned", "from_scratch")]
    facts = {"cells": cells, "rows": lambda: rows, "left_out": (), "copies": (), "test": range(690)}
    facts["labels_of_choice"] = 0
    return SimpleNamespace(**{**facts, **changes})


CELL = Cell(0.1, 0, 0, 100, 80, 20, ())
ROW = Row(0.1, 0, 0, 100, "fine_tuned", {}, False, 0.5, 0.5, ())
ROWS = [ROW, replace(ROW, method="from_scratch")]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            [(0.05, 0.02, 0.1), (0.1, 0.01, 0.1), (0.4, -0.01, 0.02), (1.0, -0.04, -0.01)],
            "Pretraining pays with 5 % and 10 % of the labels: there the fine-tuned encoder is more accurate than training "
            "from scratch, and the 95 % interval of the difference excludes 0; with 100 % training from scratch is more "
            "accurate; with 40 % of the labels the difference may be due to chance.",
        ),
        (
            [(0.1, -0.1, -0.05)],
            "Pretraining does not pay with 10 % of the labels: there training from scratch is more accurate, and the 95 % "
            "interval of the difference excludes 0.",
        ),
        (
            [(0.1, -0.1, 0.05), (1.0, 0.0, 0.05)],
            "Pretraining is not shown to pay: with 10 % and 100 % of the labels the difference may be due to chance.",
        ),
        (
            [(0.05, -0.01, 0.05), (0.05, 0.01, 0.06, 1), (0.1, -0.1, -0.05), (0.1, -0.1, -0.02, 1)],
            "Pretraining pays with 5 % of the labels: there the frozen encoder is more accurate than training from scratch, "
            "and the 95 % interval of the difference excludes 0; with 10 % training from scratch is more accurate.",
        ),
        (
            [(0.05, 0.01, 0.05), (0.05, 0.01, 0.06, 1), (0.1, -0.1, 0.05), (0.1, 0.1, 0.2, 1), (0.4, -0.1, 0.1, 2)],
            "Pretraining pays with 5 % and 10 % of the labels: there the fine-tuned encoder (with 5 %) and the frozen "
            "encoder are more accurate than training from scratch, and the 95 % interval of the difference excludes 0.",
        ),
        ([], "No share of the labels has been fine-tuned and trained from scratch so far, so there is no result yet."),
    ],
)
def test_the_first_sentence_is_the_result(found, sentence):
    assert verdict(plan_of(CELL), ROWS, [difference(*each) for each in found])[0] == sentence


def test_each_difference_has_its_interval_and_its_draws():
    found = [difference(0.1, 0.02, 0.1), difference(0.1, -0.04, -0.02, pair=2)]
    sentences = verdict(plan_of(CELL, replace(CELL, number=1)), ROWS, found)
    assert sentences[1:3] == [
        "10 % of the labels (100): pretrained, fine-tuned 0.560, from scratch 0.500, difference +6.0 points (95 % interval "
        "+2.0 to +10.0; above in 1 of 2 draws).",
        "10 % of the labels (100): pretrained, frozen 0.470, random, frozen 0.500, difference -3.0 points (95 % interval "
        "-4.0 to -2.0; above in 0 of 2 draws).",
    ]
    assert "The sweep is not finished: 2 of 4 rows are missing; the same command continues." in sentences
    assert sentences[-1].endswith("over the test images of a single draw.")  # the other one is not finished


def test_the_intervals_are_over_the_draws_that_are_finished():
    rows = [replace(row, draw=draw) for row in ROWS for draw in range(3)]  # of a call with three seeds
    for cells in ([CELL], [replace(CELL, number=number) for number in range(4)]):
        sentence = verdict(plan_of(*cells), rows, [difference(0.1, 0.02, 0.1)])[-1]
        assert sentence.endswith("over the test images and the 3 draws of labels.")


def test_what_limits_the_result_is_told():
    cells = (replace(CELL, unvalidated=("rare",)),)
    plan = plan_of(*cells, left_out=("1 % of the labels are left out",), copies=(Copy(3, 4, "identical"),))
    sentences = verdict(plan, [replace(ROWS[0], at_edge=True), ROWS[1]], [], [difference(0.1, 0.0, 0.04)])
    assert sentences[1:-1] == [
        "1 of 690 test images (0.1 %) is a near-duplicate of a training image (1 identical, 0 nearly identical, 0 "
        "mirrored). Without these the difference of pretrained, fine-tuned and from scratch is +2.0 points with 10 % of the "
        "labels.",
        "1 % of the labels are left out.",
        "pretrained, fine-tuned: in 1 of 1 rows the chosen learning rate is the smallest or the largest that was tried; a "
        "wider grid (--rates, in another folder) may raise its accuracy.",
        "With 10 % of the labels no image of class rare could be kept out for validation, because there is a single "
        "labelled one.",
    ]
    assert sentences[-1] == (
        "Accuracies are those of 690 test images, on which nothing was chosen. The intervals are of a bootstrap over the "
        "test images of a single draw."
    )


def test_labels_that_chose_the_encoder_are_told_where_they_are_more_than_those_of_a_share():
    cells = [replace(CELL, share=share, labelled=round(1000 * share)) for share in (0.05, 0.1, 1.0)]
    sentence = (
        "The pretrained encoder is the one that the probe in pretraining prefers, by about 1,000 labelled images: more "
        "than there are with 5 % and 10 % of the labels. Unless its epoch was fixed beforehand, the methods with "
        "pretraining owe something to these labels there; --weights can name a checkpoint of a fixed epoch."
    )
    assert sentence in verdict(plan_of(*cells, labels_of_choice=1000), ROWS, [])
    assert not [line for line in verdict(plan_of(*cells, labels_of_choice=50), ROWS, []) if "probe" in line]
