"""Records that `prepare` writes: their options, training from them, and damage."""

from pathlib import Path

import numpy as np
import pytest
from commandline import records, refuse, succeed
from conftest import write_config

from tfinpaint.data.listing.check import CheckResult

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture
def packed(images, tmp_path) -> Path:
    """The images as records, made by the command."""
    output = succeed("prepare", images / "training", tmp_path / "packed" / "training", "--records", "--no-split")
    assert output == f"{tmp_path / 'packed' / 'training'}: 24 images, 0 unreadable\n"
    succeed("prepare", images / "testing", tmp_path / "packed" / "testing", "--records", "--no-split")
    return tmp_path / "packed"


@pytest.mark.stress
def test_records_train_as_the_files_that_they_were_made_of(images, packed, tmp_path):
    """With their classes; pretraining from records: tests/parallel/test_two_ranks.py."""
    losses = {}
    for name, folder in (("files", images), ("records", packed)):
        config = write_config(
            tmp_path / name / "c.yaml", "classify", folder, num_epochs=1, steps_per_epoch=2, data__preload=False
        )
        output = succeed("classify", "--config", config)
        assert f"{folder / 'training'}: 24 images" in output
        losses[name] = [record["loss"] for record in records(tmp_path / name / "run")]
    assert losses["files"] == losses["records"]


def test_a_damaged_record_ends_the_training_with_one_line(packed, tmp_path, monkeypatch):
    config = write_config(tmp_path / "c.yaml", "pretrain", packed, num_epochs=1, data__preload=False)
    shard = packed / "training" / "images-00000-of-00001.tfrecord"
    contents = bytearray(shard.read_bytes())
    contents[-700] ^= 1
    shard.write_bytes(contents)
    where, damage = f"{shard} record 23 (warm/010.png)", "the shard is damaged here (CRC-32); list all damage"
    assert f"error: {where}: {damage}" in refuse("pretrain", "--config", config)
    # As where an earlier run has found the images readable: damage shows when it is come across.
    nothing_bad = CheckResult({}, [], np.zeros((0, 8), np.uint8))
    monkeypatch.setattr("tfinpaint.runs.image_check.check_images_once", lambda *_: nothing_bad)
    error = refuse("pretrain", "--config", config, "--overwrite")
    assert error.startswith(f"error: {where}: became unreadable after the initial check: {damage}")
    assert error.count("\n") == 1
    other = packed / "testing" / shard.name
    other.write_bytes(other.read_bytes()[:-1])
    error = refuse("prepare", "--verify", packed)
    for damaged in (shard, other):
        assert f"{damaged}: is damaged (SHA-256)" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x",), "DEST is missing"),
        (("x", "y", "--no-split"), "--no-split goes with --records"),
        (("x", "y", "--records", "--no-split", "--seed", "1"), "--no-split goes with --records, without"),
        (("x", "y", "--verify"), "--verify takes a folder and nothing else"),
    ],
)
def test_options_of_prepare_that_do_not_go_together(arguments, message):
    assert refuse("prepare", *arguments).startswith(f"error: {message}")


def test_records_are_prepared_and_verified_by_command(images, tmp_path):
    output = succeed("prepare", images / "training", tmp_path / "dest", "--records", "--test-fraction", "0.2")
    assert output.endswith("dest: 19 training and 5 testing images in 2 classes, 0 unreadable\n")
    size = (tmp_path / "dest" / "testing" / "images-00000-of-00001.tfrecord").stat().st_size
    verified = succeed("prepare", "--verify", tmp_path / "dest").splitlines()
    assert verified[1] == f"{tmp_path / 'dest' / 'testing'}: 5 images, {size} bytes, all intact"
