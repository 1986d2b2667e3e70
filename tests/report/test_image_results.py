"""The table of a classifier's test images tells which are right, and of which images it is."""

import pytest

from tfinpaint.errors import UserError
from tfinpaint.report import image_results
from tfinpaint.report.image_results import read_image_results, write_image_results
from tfinpaint.report.sample_images import Predicted

CLASSES = ("cold", "wärm")
NAMES = ["cold/1.png", 'cold/"2",\n\udcff.png', "wärm/\r3.png"]
PREDICTIONS = [Predicted(0, 0, 0, 0.75), Predicted(1, 0, 1, 0.5), Predicted(2, 1, 1, 1.0)]


@pytest.fixture
def table(tmp_path):
    write_image_results(tmp_path / "figures" / "t.csv", NAMES, CLASSES, PREDICTIONS)
    return tmp_path / "figures" / "t.csv"


def test_what_is_written_is_read(table):
    assert table.read_bytes().splitlines()[:2] == [
        b"image,true class,predicted class,probability", b"cold/1.png,cold,cold,0.750000"
    ]  # fmt: skip
    found = read_image_results(table)
    assert found.path == table
    assert sorted(found.right.tolist()) == [False, True, True]


def test_images_are_the_same_if_names_and_classes_are(table):
    def digest(names, predictions=PREDICTIONS):
        write_image_results(table, names, CLASSES, predictions)
        return read_image_results(table).digest

    same = digest(NAMES)
    assert digest(NAMES, [each._replace(predicted=1, probability=0.9) for each in PREDICTIONS]) == same
    assert digest([*NAMES[:2], "wärm/4.png"]) != same
    assert digest(NAMES, [*PREDICTIONS[:2], Predicted(2, 0, 1, 1.0)]) != same
    assert digest(NAMES, PREDICTIONS[:2]) != same


def test_rows_in_another_order_and_a_mark_of_utf8_change_nothing(table):
    written = read_image_results(table)
    by_probability = [PREDICTIONS[place] for place in (1, 0, 2)]
    write_image_results(table, NAMES, CLASSES, by_probability)
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    found = read_image_results(table)
    assert found.digest == written.digest
    assert found.right.tolist() == written.right.tolist()
    assert sorted(found.right.tolist()) == [False, True, True]


@pytest.mark.parametrize(
    ("contents", "line"),
    [
        (b"", 1),
        (b"image,class\n", 1),
        (b"image,true class,predicted class,probability\na,b,b,1\na,b\n", 3),
        (b"image,true class,predicted class,probability\n" + b"a" * 200_000 + b",b,b,1\n", 2),
    ],
)
def test_a_damaged_file_is_named_with_the_line(table, contents, line):
    table.write_bytes(contents)
    with pytest.raises(UserError, match=rf"t\.csv is damaged in line {line}$"):
        read_image_results(table)


def test_what_is_missing_is_no_fault_but_what_cannot_be_read_is(table, monkeypatch):
    monkeypatch.setattr(image_results, "MOST_BYTES", 2**20)
    table.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(UserError, match=r"t\.csv is no file of at most 1 MiB$"):
        read_image_results(table)
    table.unlink()
    assert read_image_results(table) is None
    table.parent.rmdir()
    table.parent.touch()
    with pytest.raises(UserError, match=r"t\.csv cannot be read \(Not a directory\)$"):
        read_image_results(table)
