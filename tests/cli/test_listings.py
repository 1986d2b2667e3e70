"""Tables without rules: they fit any width, wrap names, and break no other cell."""

import pytest

from tfinpaint.cli.tables import print_listing

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
