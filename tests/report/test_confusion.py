"""The confusion of a classifier: counts, tables, and a figure whose cost does not grow with the classes."""

import csv

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from tfinpaint.layout import CLASS_TABLE, CONFUSED_PAIRS
from tfinpaint.report import confusion, figures
from tfinpaint.report.confusion import Confusion, draw_confusion, write_confusion_tables


def counted(classes, rows):
    return Confusion.of(classes, [np.array(rows)])


THREE = counted(["a", "b", "c"], [[0, 0, 3], [0, 1, 1], [1, 1, 4], [2, 0, 2], [2, 1, 1], [2, 2, 1]])


def drawn(monkeypatch, counts):
    """The matplotlib figure of these counts, and the values of its cells."""
    saved = []
    monkeypatch.setattr(confusion, "save_figure", lambda figure, path, alt: saved.append(figure))
    draw_confusion(counts, "x")
    return saved[0], np.asarray(saved[0].axes[0].images[0].get_array())


def test_counts_of_several_ranks_are_added_up():
    parts = [np.array([[1, 0, 2], [0, 0, 1]]), np.zeros((0, 3)), np.array([[1, 0, 3], [1, 1, 5]])]
    counts = Confusion.of(["x", "y"], parts)
    assert counts.pairs.tolist() == [[0, 0, 1], [1, 0, 5], [1, 1, 5]]
    assert (counts.images, counts.accuracy) == (11, 6 / 11)
    assert [values.tolist() for values in counts.by_class()] == [[1, 10], [1, 5]]
    assert np.isnan(Confusion.of(["x"], []).accuracy)


def test_the_tables_name_the_worst_first_and_no_more_than_asked():
    assert confusion.pairs_table(THREE, 2) == [
        ["true class", "predicted as", "images", "share of the true class"],
        ["c", "a", 2, 0.5],
        ["a", "b", 1, 0.25],
    ]
    assert len(confusion.pairs_table(THREE)) == 4
    assert confusion.pairs_table(counted(["a"], [[0, 0, 3]])) == []
    assert confusion.classes_table(THREE)[1:] == [
        [0, "a", 4, 3, 0.75, 3 / 5, pytest.approx(2 / 3)],
        [1, "b", 4, 4, 1.0, 4 / 6, pytest.approx(0.8)],
        [2, "c", 4, 1, 0.25, 1.0, pytest.approx(0.4)],
    ]
    assert [row[1] for row in confusion.classes_table(THREE, 2)[1:]] == ["c", "a"]
    rows = confusion.classes_table(counted(["a", "none", "never", "only"], [[0, 0, 1], [2, 0, 1], [0, 3, 1]]))
    assert rows[2:] == [
        [1, "none", 0, 0, "", "", ""],
        [2, "never", 1, 0, 0.0, "", 0.0],
        [3, "only", 0, 0, "", 0.0, 0.0],
    ]


def test_sentences_name_the_worst_classes_and_the_most_frequent_confusion():
    assert confusion.verdict(THREE) == [
        "8 of 12 test images (66.7 %, 95 % interval 39.1 to 86.2 %) are classified correctly. This is better than naming "
        "the most frequent class, a, for every image, which is right for 33.3 %.",
        "The mean recall of the classes is 0.667, their mean F1 0.622.",
        "The recall is lowest for c (0.250, 4 images) and a (0.750, 4 images).",
        "The most frequent confusion: c is predicted as a, 2 images, 50 % of that class.",
    ]
    assert len(confusion.verdict(counted(["a", "b"], [[0, 0, 3]]))) == 2


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[0, 0, 4], [0, 1, 1], [1, 1, 1], [1, 0, 2]], "This is not clearly better than naming"),  # 5 of 8 as well
        ([[0, 0, 20], [0, 1, 60], [1, 1, 10], [1, 0, 10]], "This is no better than naming"),
        ([[0, 0, 50], [1, 1, 45], [1, 0, 5]], "This is better than naming"),
        ([[1, 1, 1]], "1 of 1 test image (100.0 %, 95 % interval 20.7 to 100.0 %) is classified correctly."),
    ],
)
def test_an_accuracy_is_set_beside_that_of_the_most_frequent_class(rows, expected):
    assert expected in confusion.verdict(counted(["a", "b"], rows))[0]


def test_json_has_the_tables_with_null_for_what_is_not_defined():
    found = confusion.confusion_json(counted(["a", "b"], [[0, 0, 3], [0, 0, 1]]))
    assert found == {
        "classes": [
            {"number": 0, "class": "a", "images": 4, "right": 4, "recall": 1.0, "precision": 1.0, "f1": 1.0},
            {"number": 1, "class": "b", "images": 0, "right": 0, "recall": None, "precision": None, "f1": None},
        ],
        "confusions": [],
    }
    assert confusion.confusion_json(THREE)["confusions"][0] == {
        "true": "c",
        "predicted": "a",
        "images": 2,
        "share": 0.5,
    }


def test_the_files_hold_whole_names(tmp_path):
    names = ["猫" * 200, 'a "quoted", $x_1$\nname']
    write_confusion_tables(counted(names, [[0, 1, 2], [1, 1, 1]]), tmp_path)
    with (tmp_path / CONFUSED_PAIRS).open(newline="") as file:
        assert list(csv.reader(file))[1] == [*names, "2", "1.0"]
    with (tmp_path / CLASS_TABLE).open(newline="") as file:
        assert [row[1] for row in csv.reader(file)][1:] == names


def test_few_classes_have_numbers_in_their_cells(monkeypatch):
    figure, shares = drawn(monkeypatch, THREE)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["3", "1", "0", "0", "4", "0", "2", "1", "1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert np.allclose(shares, [[0.75, 0.25, 0], [0, 1, 0], [0.5, 0.25, 0.25]])


@pytest.mark.parametrize("number", [21, 50, 51, 400, 2500])
def test_many_classes_have_a_legible_figure_of_a_bounded_size(monkeypatch, number):
    names = [f"{place} {'long ' * 40}" for place in range(number)]
    rows = [[i, (i + i % 2) % number, 1] for i in range(number)]
    figure, shares = drawn(monkeypatch, counted(names, rows))
    assert len(figure.findobj(Text)) < 750  # a million texts would take gigabytes
    assert max(figure.get_size_inches()) < 13
    cells = number if number <= 50 else 21
    assert shares.shape == (cells, cells)
    assert all(label.get_fontsize() >= 8 for label in figure.axes[0].get_yticklabels())


def test_of_many_classes_the_most_confused_are_drawn_and_all_others_together(monkeypatch):
    rows = [[i, i, 5] for i in range(400)] + [[300, 7, 4], [12, 300, 2], [399, 12, 1]]
    figure, shares = drawn(monkeypatch, counted([f"c{i}" for i in range(400)], rows))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [*(f"c{i}" for i in range(18)), "c300", "c399", "all others"]
    assert figure.axes[0].get_title() == "20 of 400 classes, with those in the most frequent confusions"
    assert len(names) == 21
    assert shares[names.index("c300"), names.index("c7")] == 4 / 9
    assert shares[names.index("c12"), names.index("c300")] == 2 / 7
    counts = [int(text.get_text()) for text in figure.axes[0].texts]
    assert sum(counts) == 400 * 5 + 7
    assert counts[-1] == 380 * 5
    figure, _ = drawn(monkeypatch, counted([f"c{i}" for i in range(400)], rows[:400]))  # none is confused
    assert figure.axes[0].get_title() == "20 of 400 classes"


@pytest.mark.parametrize(
    "number", [1, 2, 21, *(pytest.param(number, marks=pytest.mark.stress) for number in (20, 60, 1200))]
)
def test_a_figure_of_any_number_of_classes_is_drawn(tmp_path, number):
    names = [["$x_", "猫", "é" * 200, "\\frac{", "a\nb", "\udcff", ""][i % 7] for i in range(number)]
    draw_confusion(counted(names, [[i, i // 2, 1 + i] for i in range(number)]), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as file:
        assert max(file.size) < 1500
        assert np.asarray(file.convert("L")).std() > 2
    draw_confusion(counted(["a", "b"], np.zeros((0, 3), int)), tmp_path / "none.png")


def test_names_in_figures_are_short_legible_and_differ():
    names = ["plain $x_1$", "x" * 30 + "1", "x" * 30 + "2", "猫", "two\nlines", "\x07", "\udcff", "Ω привет"]
    shown = [figures.short_name(name, number) for number, name in enumerate(names)]
    assert shown[0] == "plain $x_1$"
    assert shown[1:3] == ["1: xxxxxxxxxx…xxxxxxxxx1", "2: xxxxxxxxxx…xxxxxxxxx2"]
    assert shown[3:] == ["class 3", "two lines", "class 5", "class 6", "Ω привет"]
    assert all(len(name) <= figures.MOST_NAME for name in shown)
