"""Tables fit any width, wrap names, and break no other cell."""

import pytest

from tfinpaint.cli.tables import print_listing, print_table

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
    before, after = shown.split(TABLE[1][1])
    wrapped = [before.splitlines()[-1], *after.partition("\nb.png")[0].splitlines()[1:]]
    assert "".join(line.strip() for line in wrapped) == TABLE[1][0]


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
    headings = shown.partition("─")[0].split()
    assert sorted(headings) == sorted(" ".join(["Classifiers", *RESULTS[0][:columns]]).split())
