"""Tables fit any width, wrap names, and break no other cell."""

import pytest

from tfinpaint.cli.tables import print_listing, print_table, table_width, text_width

TABLE = [
    ["photo", "class", "second", "third"],
    ["new_photos/a_name_that_is_rather_long_0001.jpg", "golden retriever 71.5 %", "labrador 20.1 %", "[red]cat 5.3 %"],
    ["b.png", "cat 99.0 %", "golden retriever 0.9 %", "labrador 0.1 %"],
]


@pytest.mark.parametrize(("width", "columns"), [(120, 4), (80, 4), (71, 3), (50, 2)])
def test_a_listing_fits_and_leaves_out_what_is_last(capsys, width, columns):
    print_listing(TABLE, width)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    for row in TABLE:
        assert [cell in shown for cell in row[1:]] == [place < columns for place in range(1, 4)]
    told = {3: "1 column does not fit", 2: "2 columns do not fit"}.get(columns, "")
    assert (" not fit into this terminal" in shown) == bool(told)
    assert told in shown
    before, after = shown.split(TABLE[1][1])
    wrapped = [before.splitlines()[-1], *after.partition("\nb.png")[0].splitlines()[1:]]
    assert "".join(line.strip() for line in wrapped) == TABLE[1][0]


def test_names_are_broken_between_words_where_these_have_room(capsys):
    table = [
        ["run", "kind", "data", "state"],
        ["my_photos/classify/evaluations/labelled_new", "image to image", "my_photos/data", 50 * "x"],
        [30 * "n", "classifier", "digits", "finished"],
    ]
    print_listing(table, 50 + 3 + 12 + 10 + 10, (0, 1, 2))
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["run", "kind", "data", "state"],
        ["my_photos/", "image", "to", "my_photos/", 50 * "x"],
        ["classify/", "image", "data"],
        ["evaluations/"],
        ["labelled_new"],
        [12 * "n", "classifier", "digits", "finished"],
        [12 * "n"],
        [6 * "n"],
    ]


RESULTS = [
    ["run", "test accuracy", "95 % interval", "started from", "training accuracy", "test loss", "best epoch"],
    ["classify", 0.8033, "0.687 to 0.884", "pretraining", 0.9908, 0.7343, 3],
    ["from_scratch", 0.8525, "0.743 to 0.920", "random weights", 0.9972, 0.6996, 6],
]


@pytest.mark.parametrize(("width", "columns"), [(120, 7), (90, 7), (80, 6), (60, 4)])
def test_a_table_shows_each_column_whole_or_not_at_all(capsys, width, columns):
    print_table("Classifiers", RESULTS, width, "runs")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    first = next(line for line in shown.splitlines() if line.strip().startswith("classify"))
    assert first.split() == " ".join(str(cell) for cell in RESULTS[1][:columns]).split()
    assert ("1 column does not fit" in shown, "3 columns do not fit" in shown) == (columns == 6, columns == 4)
    headings = shown.partition("─")[0].split()
    assert sorted(headings) == sorted(" ".join(["Classifiers", *RESULTS[0][:columns]]).split())


def test_numbers_of_a_column_stand_below_each_other(capsys):
    table = [["run", "accuracy", "loss", "images"], ["a", 0.9, 0.5, 1618], ["b", 0.8167, 12.25, 7]]
    print_table("Classifiers", table, 80, "runs")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith((" a", " b"))]
    assert lines == [["a", "0.9000", "0.50", "1,618"], ["b", "0.8167", "12.25", "7"]]


@pytest.mark.parametrize(
    "show", [lambda table: print_listing(table, 80), lambda table: print_table("t", table, 80, "rows")]
)
def test_a_name_stays_in_its_row_and_cannot_change_the_terminal(capsys, show):
    show([["photo", "class", "second"], ["e\x1b[31mred\n.jpg", "cat", "dog"], ["b.jpg", "dog", "cat"]])
    assert "e?[31mred?.jpg" in capsys.readouterr().out


def test_output_that_is_piped_has_all_columns(capsys):
    """Neither stream of a test is a terminal."""
    assert text_width() == 100
    print_table("Classifiers", RESULTS, table_width(), "runs")
    wide = [[*row, *row[1:], *row[1:]] for row in TABLE]
    print_listing(wide, table_width())
    lines = capsys.readouterr().out.splitlines()
    assert "best epoch" in " ".join(lines[2].split())
    assert [line.split()[-1] for line in lines if line.strip().startswith(("classify", "from_scratch"))] == ["3", "6"]
    assert max(map(len, lines)) > 200
    assert lines[-2].rstrip().endswith("[red]cat 5.3 %")
    assert "not fit" not in "".join(lines)
