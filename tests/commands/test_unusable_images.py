"""Images that cannot be read, before a training and during it, and folders that hold no classes."""

import pytest
from commandline import refuse, succeed
from conftest import write_config, write_images

from tfinpaint.runs import image_check

pytestmark = pytest.mark.usefixtures("undrawn_figures")


def test_corrupt_images_are_named_skipped_up_to_the_limit_then_refused(images, tmp_path):
    bad = [images / "training" / "warm" / f"bad{i}.jpg" for i in range(2)]
    for path in bad:
        path.write_bytes(b"\xff\xd8\xff not a jpeg")
    changes = {"num_epochs": 1, "steps_per_epoch": 1, "data__test_input_path": None}
    config = write_config(tmp_path / "c.yaml", "pretrain", images, **changes)
    error = refuse("pretrain", "--config", config, "--set", "data.max_bad_images=1")
    assert "error: 2 unusable images, data.max_bad_images allows 1" in error
    assert all(str(path) in error for path in bad)
    listed = tmp_path / "run" / "bad_images.txt"
    assert f"(listed in {listed})" in error
    expected = [["checked", str(path), "truncated or damaged: begins as JPEG"] for path in bad]
    assert [line.split("\t") for line in listed.read_text().splitlines()] == expected
    output = succeed("pretrain", "--config", config, "--set", "data.max_bad_images=2", "--overwrite")
    assert [line.split("\t") for line in listed.read_text().splitlines()] == expected  # of this start alone
    assert all(f"Skipping unusable image {path}: " in output for path in bad)
    assert "training: 24 images\n" in output


@pytest.mark.stress
def test_an_image_that_goes_bad_in_training_is_replaced_up_to_the_limit(images, tmp_path, monkeypatch):
    """The same batches where such a run is cut: tests/runs/test_stopping_signals.py."""
    gone = images / "training" / "warm" / "003.png"
    (images / "training" / "cold" / "000.png").write_text("bad from the beginning")
    whole, check = gone.read_bytes(), image_check.check_images_once

    def check_then_break(*arguments):
        found = check(*arguments)
        gone.write_bytes(whole[:100])
        return found

    monkeypatch.setattr("tfinpaint.runs.image_check.check_images_once", check_then_break)
    config = write_config(
        tmp_path / "c.yaml", "classify", images, data__preload=False, data__max_bad_images=2, num_epochs=1
    )
    output = succeed("classify", "--config", config)
    assert (
        output.count(f"Image became unreadable after the initial check; using a replacement: {gone}: truncated: ") == 1
    )
    assert f"{images / 'training'}: 23 images" in output
    assert "1 image failed during training (1 before; limit 2) and was replaced" in output
    lines = (tmp_path / "run" / "bad_images.txt").read_text().splitlines()
    assert [line.split("\t")[:2] for line in lines] == [
        ["checked", str(images / "training" / "cold" / "000.png")], ["epoch 1", str(gone)],
    ]  # fmt: skip
    gone.write_bytes(whole)
    error = refuse("classify", "--config", config, "--overwrite", "--set", "data.max_bad_images=1")
    assert f"error: {gone}: became unreadable after the initial check: truncated" in error
    assert "(bad images: 1 before, 1 now; data.max_bad_images 1)" in error
    assert (tmp_path / "run" / "bad_images.txt").read_text().splitlines()[1].startswith(f"epoch 1\t{gone}\t")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": 9}, "at least two class folders, found 1 (a)"),
        ({"a": 9, "b": 0}, "class folder without images: b"),
        ({"a": 3, "b": 3}, "6 images, fewer than a batch; lower data.batch_size 8"),
    ],
)
def test_data_that_cannot_be_classified(tmp_path, counts, message):
    write_images(tmp_path / "data" / "training", counts)
    config = write_config(tmp_path / "c.yaml", "classify", tmp_path / "data", data__test_input_path=None)
    assert message in refuse("classify", "--config", config)
