"""An error of writing names the file and says what to do."""

import errno
import os
import resource
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from tfinpaint.report.metrics_log import MetricsLog
from tfinpaint.report.predictions import PredictionsPart, picture_names
from tfinpaint.storage.atomic import write_image, write_json, write_text
from tfinpaint.storage.mapped_arrays import store_arrays
from tfinpaint.storage.write_errors import explain_os_error, is_disk_error, os_error_of_message, then_continue

RECORD = {"phase": "train", "epoch": 1, "loss": 0.5, "images_per_second": 1.0, "seconds": 1.0}


@contextmanager
def files_of_at_most(size):
    """Limit the files that this process may write; within a test, so that pytest's own may be larger."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)


WRITERS = {
    "text": lambda path: write_text(path, "x" * 100_000),
    "json": lambda path: write_json(path, ["x" * 1000] * 100),
    "png": lambda path: write_image(path, Image.fromarray(NOISE), "PNG"),
    "jpeg": lambda path: write_image(path, Image.fromarray(NOISE), "JPEG", quality=95),
    "gif": lambda path: write_image(path, Image.fromarray(NOISE), "GIF"),
    "arrays": lambda path: store_arrays(path, {"a": np.arange(20_000)}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_cannot_be_written_names_the_file_and_leaves_what_was_there(tmp_path, name):
    path = tmp_path / "file"
    path.write_text("before")
    with files_of_at_most(20_000), pytest.raises(OSError, match="File too large") as raised:
        WRITERS[name](path)
    assert str(path.name) in str(raised.value.filename)
    assert raised.value.errno == errno.EFBIG
    assert is_disk_error(raised.value)
    assert explain_os_error(raised.value) == (
        "File too large; raise the largest size of a file that this process may write (ulimit -f)"
    )
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"
    WRITERS[name](path)
    assert path.stat().st_size > 20_000


@pytest.mark.parametrize(
    ("code", "said"),
    [(errno.ENOSPC, "free some space"), (errno.EDQUOT, "larger quota"), (errno.EROFS, "mount the file")],
)
def test_a_remedy_for_each_reason(code, said):
    assert said in explain_os_error(OSError(code, os.strerror(code)))
    told = os_error_of_message(f"a/b; {os.strerror(code)}\n\tFailed to flush", "a/b")
    assert (told.errno, told.filename) == (code, "a/b")
    assert os_error_of_message("something else", "a/b").errno == errno.EIO
    assert explain_os_error(OSError("neither number nor words")) == "neither number nor words"
    assert not is_disk_error(OSError(errno.ENOENT, "no such file"))


def test_a_stage_of_a_project_continues_by_the_command_of_all_stages(monkeypatch):
    assert then_continue() == "then continue with --resume"
    monkeypatch.setenv("TFINPAINT_CONTINUED_BY", "tfinpaint run pets")
    assert then_continue() == "then continue with: tfinpaint run pets"


def test_tensorboard_and_metrics_name_what_they_cannot_write(tmp_path):
    log = MetricsLog(tmp_path, None, enabled=True)
    with files_of_at_most(0), pytest.raises(OSError, match="File too large") as raised:
        log.add(RECORD)
    assert raised.value.filename == str(tmp_path / "metrics.jsonl")
    log._trackers[0].add(RECORD)
    with files_of_at_most(0), pytest.raises(OSError, match="File too large") as raised:
        log._trackers[0].flush()
    assert raised.value.filename == str(tmp_path / "tensorboard" / "train")


def test_predictions_end_at_the_first_that_cannot_be_written(tmp_path):
    part = PredictionsPart(tmp_path, 0, picture_names(["a.png", "b.png"]), classes=False)
    part.add("a.png", np.zeros((4, 4, 3)))
    with files_of_at_most(20_000), pytest.raises(OSError, match="File too large") as raised:
        part.add("b.png", NOISE / 255)
    assert raised.value.filename == str(tmp_path / ".predictions.h5.0")
    with pytest.raises(OSError, match="File too large"):
        part.close()
