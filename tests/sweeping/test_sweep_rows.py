"""Settings are chosen by validation images alone; rows and predictions that are not of the sweep are refused."""

import json
import shutil

import numpy as np
import pytest
from conftest import write_images

from tfinpaint.data.listing.listing import list_class_folders
from tfinpaint.errors import UserError
from tfinpaint.storage.atomic import write_csv
from tfinpaint.sweeping.plan import Cell, Setting
from tfinpaint.sweeping.rows import (
    Row,
    Trained,
    as_table,
    at_edge,
    choose,
    read_predictions,
    read_rows,
    read_training,
    row_path,
    write_row,
)

CELL = Cell(0.05, 1, 4, 6, 4, 2, ())


@pytest.fixture
def listing(tmp_path):
    return list_class_folders(write_images(tmp_path / "test", {"a": 2, "b": 1}))


def test_the_highest_accuracy_is_chosen_and_among_equal_ones_the_lowest_loss(tmp_path):
    trained = []
    for rate, accuracy, loss in ((0.1, 0.5, 0.1), (0.2, 0.75, 0.9), (0.3, 0.75, 0.8), (0.4, 0.75, 0.8)):
        run = tmp_path / str(rate)
        run.mkdir()
        # What a test would have said is not read.
        summary = {"validation_accuracy": accuracy, "validation_loss": loss, "best_epoch": 3, "test_accuracy": 1 - rate}
        (run / "summary.json").write_text(json.dumps(summary))
        trained.append(read_training(run, Setting(rate, 0.0)))
    assert choose(trained) == Trained(Setting(0.3, 0.0), 0.75, 0.8, 3)
    assert read_training(tmp_path, Setting(0.1, 0.0)) is None


def test_a_rate_is_at_the_edge_only_of_a_grid_of_three():
    grid = [Setting(rate, decay) for rate in (0.1, 0.2, 0.3) for decay in (0.0, 1.0)]
    assert [at_edge(each, grid) for each in grid] == [True, True, False, False, True, True]
    assert not at_edge(grid[0], grid[:4])


def test_predictions_are_in_the_order_of_the_listing(listing, tmp_path):
    (tmp_path / "p").mkdir()
    table = tmp_path / "p" / "predictions.csv"
    table.write_text("image,class,probability\nb/000.png,a,0.9\na/001.png,b,0.8\na/000.png,a,0.7\n")
    assert read_predictions(tmp_path / "p", listing).tolist() == [0, 1, 0]
    for wrong in ("image,class,probability\nb/000.png,a,0.9\n", "image,class\na/000.png,c\n", "nothing"):
        table.write_text(wrong)
        with pytest.raises(UserError, match=r"predictions.csv: not the predictions of the images of"):
            read_predictions(tmp_path / "p", listing)


def test_names_are_read_as_they_are_written(tmp_path):
    names = ["a\r.png", "a\n.png", 'a",.png', "a\udcff.png"]
    for name in names:
        shutil.copy(write_images(tmp_path / "test", {"a": 1, "b": 1}) / "a" / "000.png", tmp_path / "test" / "a" / name)
    listing = list_class_folders(tmp_path / "test")
    write_csv(tmp_path / "predictions.csv", [["image", "class"], *([name, "a"] for name in listing.paths)])
    assert read_predictions(tmp_path, listing).tolist() == [0] * 6


def test_rows_are_read_as_they_were_written_and_damaged_ones_are_refused(listing, tmp_path):
    row = Row(0.05, 1, 4, 6, "from_scratch", {"learning_rate": 0.1, "epoch": 3.0}, True, 0.5, 2 / 3, (0, 1, 1))
    frozen = Row(0.05, 1, 4, 6, "random_frozen", {"c": 1.0, "encoder": "x"}, False, None, 1 / 3, (0, 1, 0))
    for each in (row, frozen):
        write_row(row_path(tmp_path, CELL, each.method), each)
    assert row_path(tmp_path, CELL, "from_scratch") == tmp_path / "share_5" / "draw_1" / "from_scratch.json"
    found = read_rows(tmp_path, listing)
    assert [each.method for each in found] == ["random_frozen", "from_scratch"]
    assert np.array_equal(found[1].predicted, row.predicted)
    assert (found[1].chosen, found[1].at_edge, found[0].validation_accuracy) == (row.chosen, True, None)
    assert as_table(found) == [
        ["share", "draw", "seed", "labels", "method", "c", "encoder", "learning_rate", "epoch", "validation_accuracy",
         "test_accuracy", "test_images"],
        [0.05, 1, 4, 6, "random_frozen", 1.0, "x", "", "", "", 1 / 3, 3],
        [0.05, 1, 4, 6, "from_scratch", "", "", 0.1, 3.0, 0.5, 2 / 3, 3],
    ]  # fmt: skip
    path = row_path(tmp_path, CELL, "from_scratch")
    text = path.read_text()
    longer = json.dumps({**json.loads(text), "predicted": [0, 1, 1, 1]})
    for wrong in (text.replace(",", "", 1), text.replace("from_scratch", "other"), longer, "[]", ""):
        path.write_text(wrong)
        with pytest.raises(UserError, match=r"from_scratch.json: not a row of this sweep; delete the file"):
            read_rows(tmp_path, listing)
