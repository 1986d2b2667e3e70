"""Predictions on disk: names that do not meet, pictures of what an output is, parts made whole."""

import os

import h5py
import numpy as np
import pytest

from tfinpaint.layout import RMLDNN_PREDICTIONS
from tfinpaint.report.predictions import (
    PredictionsPart,
    merge_predictions,
    picture_names,
    prediction_image,
    write_prediction_table,
)


def test_no_two_samples_share_a_picture():
    assert picture_names(["a/x.jpg", "b/x.jpg", "a/y.png"]) == {
        "a/x.jpg": "a/x.png", "b/x.jpg": "b/x.png", "a/y.png": "a/y.png",
    }  # fmt: skip
    assert picture_names(["x.jpg", "x.png"]) == {"x.jpg": "x.jpg.png", "x.png": "x.png.png"}
    assert picture_names(["x.jpg", "x.png", "x.jpg.png"]) == {
        "x.jpg": "x.jpg.png", "x.png": "x.png.png", "x.jpg.png": "x.jpg.png.png",
    }  # fmt: skip


def test_an_output_is_shown_as_what_it_is():
    scores = np.log(np.array([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]]))
    assert np.asarray(prediction_image(scores, classes=True)).tolist() == [[0, 2]]
    colours = np.array([[[0.0, 0.5, 1.0], [-1.0, 2.0, 0.25]]])
    assert np.asarray(prediction_image(colours, classes=False)).tolist() == [[[0, 128, 255], [0, 255, 64]]]
    assert np.asarray(prediction_image(np.array([[[0.2], [1.0]]]), classes=True)).tolist() == [[51, 255]]
    assert prediction_image(np.zeros((2, 2, 5)), classes=False) is None
    assert prediction_image(np.zeros(8), classes=False) is None


@pytest.mark.parametrize("ranks", [1, 3])
def test_the_parts_of_all_ranks_become_one_file_and_a_table(tmp_path, ranks):
    paths = [f"{name}/{i}.png" for name in "ab" for i in range(2)]
    outputs = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    (tmp_path / ".predictions.h5.7").write_bytes(b"left by a run with more ranks")
    for rank in range(ranks):
        part = PredictionsPart(tmp_path, rank, picture_names(paths), classes=False)
        for index in range(rank, 4, ranks):
            part.add(paths[index], outputs[index])
        part.close()
    merged = merge_predictions(tmp_path, ranks, classes=["cold", "wärm"])
    with h5py.File(merged) as file:
        assert list(file.attrs["classes"]) == ["cold", "wärm"]
        assert [file[path][()].tolist() for path in paths] == outputs.tolist()
    write_prediction_table(merged, paths, ["cold", "warm"])
    assert (tmp_path / "predictions.csv").read_text().splitlines() == [
        "image,class,probability", "a/0.png,cold,0.900000", "a/1.png,cold,0.600000", "b/0.png,warm,0.800000",
        "b/1.png,warm,0.700000",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.csv", "predictions.h5"]


def test_for_scripts_of_rmldnn_the_channels_come_first_in_output_1(tmp_path):
    output = np.arange(24.0).reshape(2, 4, 3)
    part = PredictionsPart(tmp_path, 0, picture_names(["x.jpg"]), classes=True, channels_first=True)
    part.add("x.jpg", output)
    part.add("class/y.jpg", np.array([0.25, 0.75]))
    part.close()
    with h5py.File(merge_predictions(tmp_path, 1, RMLDNN_PREDICTIONS)) as file:
        assert file.filename.endswith("/output_1.h5")
        assert np.array_equal(file["x.jpg"][()].transpose(1, 2, 0), output)
        assert file["class"]["y.jpg"][()].tolist() == [0.25, 0.75]
    assert {path.name for path in tmp_path.iterdir()} == {"output_1.h5", "x.png"}


def test_names_that_are_no_text_and_thousands_of_classes(tmp_path):
    odd = os.fsdecode(b"a/caf\xe9.png")
    part = PredictionsPart(tmp_path, 0, picture_names([odd]), classes=False)
    part.add(odd, np.eye(9000)[8999])
    part.close()
    classes = [f"class {number}" for number in range(9000)]
    merged = merge_predictions(tmp_path, 1, classes=classes)
    with h5py.File(merged) as file:
        assert list(file.attrs["classes"]) == classes
        assert file[b"a/caf\xe9.png"][8999] == 1
    write_prediction_table(merged, [odd], classes)
    table = (tmp_path / "predictions.csv").read_bytes()
    assert table == b"image,class,probability\na/caf\xe9.png,class 8999,1.000000\n"
