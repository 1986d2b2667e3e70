"""Files of features: NPZ and CSV hold the same, and what cannot be written is refused first."""

import csv
import sys

import numpy as np
import pytest
from conftest import write_images

from tfinpaint.data.listing.listing import list_class_folders, list_images
from tfinpaint.errors import UserError
from tfinpaint.probing.tables import check_table, write_table

FEATURES = {stage: np.random.default_rng(stage).random((5, stage), np.float32) for stage in (2, 5)}


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images", {"cold": 3, "warm, wet": 2})


def test_npz_holds_features_names_and_labels(folder, tmp_path):
    write_table(tmp_path / "f.npz", list_class_folders(folder), FEATURES)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        assert sorted(found.files) == ["classes", "labels", "names", "stage2", "stage5"]
        np.testing.assert_array_equal(found["stage5"], FEATURES[5])
        assert found["names"][[0, 4]].tolist() == ["cold/000.png", "warm, wet/001.png"]
        assert found["classes"][found["labels"]].tolist() == ["cold"] * 3 + ["warm, wet"] * 2
    write_table(tmp_path / "f.npz", list_images(folder), FEATURES)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        assert sorted(found.files) == ["names", "stage2", "stage5"]


def test_csv_holds_every_digit(folder, tmp_path):
    write_table(tmp_path / "f.csv", list_class_folders(folder), FEATURES)
    with (tmp_path / "f.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["name", "class", "stage2_0", "stage2_1", *(f"stage5_{i}" for i in range(5))]
    assert rows[3][:2] == ["warm, wet/000.png", "warm, wet"]
    np.testing.assert_array_equal(np.array([row[2:] for row in rows], np.float32), np.hstack(list(FEATURES.values())))
    write_table(tmp_path / "f.csv", list_images(folder), FEATURES)
    assert (tmp_path / "f.csv").read_text().startswith("name,stage2_0,")


def test_parquet_holds_a_list_for_each_stage(folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_table(tmp_path / "f.parquet", list_class_folders(folder), FEATURES)
    found = parquet.read_table(tmp_path / "f.parquet").to_pydict()
    assert list(found) == ["name", "class", "stage2", "stage5"]
    assert found["class"] == ["cold"] * 3 + ["warm, wet"] * 2
    np.testing.assert_array_equal(np.array(found["stage5"], np.float32), FEATURES[5])


def test_what_cannot_be_written_is_refused_first(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"f.txt: expected a name that ends in .npz, .csv or .parquet"):
        check_table(tmp_path / "f.txt")
    (tmp_path / "d.npz").mkdir()
    with pytest.raises(UserError, match=r"d.npz: is a folder"):
        check_table(tmp_path / "d.npz")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"Parquet needs pyarrow; run `pip install pyarrow`, or write .npz or .csv"):
        check_table(tmp_path / "f.parquet")
    check_table(tmp_path / "F.CSV")
