"""The table of a classifier's test images tells which are right, and of which images it is."""

import pytest

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
    assert read_image_results(table).right.tolist() == [True, False, True]


def test_images_are_the_same_if_names_and_classes_are(table):
    def digest(names, predictions=PREDICTIONS):
        write_image_results(table, names, CLASSES, predictions)
        return read_image_results(table).digest

    same = digest(NAMES)
    assert digest(NAMES, [each._replace(predicted=1, probability=0.9) for each in PREDICTIONS]) == same
    assert digest([*NAMES[:2], "wärm/4.png"]) != same
    assert digest(NAMES, [*PREDICTIONS[:2], Predicted(2, 0, 1, 1.0)]) != same
    assert digest(NAMES, PREDICTIONS[:2]) != same


@pytest.mark.parametrize("contents", [b"", b"image,class\n", b"image,true class,predicted class,probability\na,b\n"])
def test_another_file_is_no_table(table, contents):
    table.write_bytes(contents)
    assert read_image_results(table) is None
    table.unlink()
    assert read_image_results(table) is None
