"""A summary is read where its figures have the types that runs write; what is wrong is named with the file."""

import json

import pytest

from tfinpaint.errors import UserError
from tfinpaint.report.summaries import read_summary

SUMMARY = {
    "test_accuracy": 1, "test_loss": float("nan"), "test_images": 61, "best_epoch": None, "from_scratch": False,
    "loss_function": "NLL", "test_accuracy_interval": [0.25, 0.5], "measurements": {"network": {"hole_psnr_db": 9.5}},
    "few_training_images": {"dog": 2}, "unknown": ["to this version"],
    "test_classes": [{"number": 0, "class": "cat", "images": 3, "right": 0, "recall": 0.0, "precision": None}],
}  # fmt: skip


def read(folder, **changes):
    (folder / "summary.json").write_text(json.dumps(SUMMARY | changes))
    return read_summary(folder)


def test_what_a_run_writes_is_read(tmp_path):
    assert read_summary(tmp_path) is None
    found = read(tmp_path)
    assert found.pop("test_loss") != found["test_accuracy"] == 1
    assert found == {name: value for name, value in SUMMARY.items() if name != "test_loss"}
    (tmp_path / "summary.json").write_text("[1]")
    assert read_summary(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("test_accuracy", "gut", '"gut", expected a number'),
        ("test_accuracy", [0.5], "[0.5], expected a number"),
        ("test_accuracy", True, "true, expected a number"),
        ("test_accuracy", 72, "72, expected 0 to 1"),
        ("test_images", 6.5, "6.5, expected a whole number"),
        ("from_scratch", 1, "1, expected true or false"),
        ("loss_function", {}, "{}, expected a text"),
        ("test_accuracy_interval", [0.1, "x"], '[0.1, "x"], expected values as a run writes them'),
        ("measurements", None, "null, expected values as a run writes them"),
        ("measurements", {"network": {"hole_psnr_db": "x"}}, 'hole_psnr_db": "x"}}, expected values as a run writes'),
        ("few_training_images", {"dog": "few"}, '{"dog": "few"}, expected values as a run writes them'),
        ("test_classes", [{"class": "cat"}], '[{"class": "cat"}], expected values as a run writes them'),
        ("test_loss", "long" * 99, f'"{("long" * 10)[:39]}..., expected a number'),
    ],
)
def test_a_wrong_type_is_named_with_the_file(tmp_path, name, value, line):
    with pytest.raises(UserError) as caught:
        read(tmp_path, **{name: value})
    assert str(caught.value).startswith(f"{tmp_path}/summary.json: {name} is ")
    assert line in str(caught.value)
