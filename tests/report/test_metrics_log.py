"""Metrics and pictures of a run are logged once for each epoch, also after the run was resumed."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorflow.python.summary.summary_iterator import summary_iterator

from tfinpaint.report.metrics_log import MetricsLog, keeps_picture, pictures_by_epoch, read_metrics


def record(phase, epoch, **values):
    return {"phase": phase, "epoch": epoch, **values, "images_per_second": 1.0, "seconds": 2.0, "world_size": 1}


def test_metrics_are_appended_and_the_text_files_follow(tmp_path):
    log = MetricsLog(tmp_path, tmp_path / "out.txt", enabled=True)
    log.add(record("train", 1, loss=0.5, accuracy=0.25))
    log.add(record("test", 1, loss=0.75, accuracy=0.125))
    log.add(record("train", 2, loss=0.25, accuracy=0.5))
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == log.records
    assert (tmp_path / "out_train.txt").read_text() == "# epoch loss accuracy\n1 0.5 0.25\n2 0.25 0.5\n"
    assert (tmp_path / "out_test.txt").read_text() == "# epoch loss accuracy\n1 0.75 0.125\n"
    log = MetricsLog(tmp_path, tmp_path / "plain.txt", enabled=True, heading=False)
    log.add(record("test", 1, loss=1e-5, accuracy=0.125))
    assert (tmp_path / "plain_test.txt").read_text() == "1 0.00001000 0.12500000\n"
    log = MetricsLog(tmp_path, None, enabled=True)
    log.add(record("train", 1, loss=0.5, accuracy=0.25))
    (events,) = (tmp_path / "tensorboard" / "train").iterdir()
    tags = {value.tag for event in summary_iterator(str(events)) for value in event.summary.value}
    assert {"loss", "accuracy", "images_per_second"} <= tags


def test_a_resumed_log_repeats_no_epoch_and_survives_a_cut_line(tmp_path):
    log = MetricsLog(tmp_path, None, enabled=True)
    for epoch in (1, 2, 3):
        log.add(record("train", epoch, loss=1.0 / epoch))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "tr')
    again = MetricsLog(tmp_path, None, enabled=True, first_epoch=3, records=read_metrics(tmp_path)[:2])
    again.add(record("train", 3, loss=0.5))
    board = EventAccumulator(str(tmp_path / "tensorboard" / "train")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 0.5)]
    assert [(r["epoch"], r["loss"]) for r in read_metrics(tmp_path)] == [(1, 1.0), (2, 0.5), (3, 0.5)]


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b"\xff", b"1", b"[]", b"{}", b'{"phase": [], "epoch": 1}', b'{"phase": "train"']
)
def test_what_is_no_record_is_skipped(tmp_path, line):
    good = b'{"phase": "train", "epoch": 1, "loss": 0.5}'
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([good, line, good]))
    assert [(r["epoch"], r["loss"]) for r in read_metrics(tmp_path)] == [(1, 0.5), (1, 0.5)]


def test_other_ranks_write_nothing(tmp_path):
    log = MetricsLog(tmp_path, tmp_path / "out.txt", enabled=False)
    log.add(record("train", 1, loss=1.0))
    log.add_picture("restorations", tmp_path / "none.png", 1)
    assert list(tmp_path.iterdir()) == []


def shown_pictures(workdir):
    """epoch -> (width, height, PNG) of the pictures on TensorBoard."""
    board = EventAccumulator(str(workdir / "tensorboard" / "test")).Reload()
    if "restorations" not in board.Tags()["tensors"]:
        return {}
    return {event.step: event.tensor_proto.string_val[:] for event in board.Tensors("restorations")}


def add_pictures(log, workdir, epochs):
    for epoch in epochs:
        path = workdir / "figures" / "restorations" / f"epoch_{epoch}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (20 * epoch, 0, 0)).save(path)
        log.add_picture("restorations", path, epoch)


def test_pictures_are_on_tensorboard_once_for_each_epoch(tmp_path):
    add_pictures(MetricsLog(tmp_path, None, enabled=True), tmp_path, [2, 4, 10])
    for expected in ([2, 4, 10], [2, 4, 5]):
        shown = shown_pictures(tmp_path)
        assert list(shown) == expected
        for epoch, (width, height, encoded) in shown.items():
            assert (width, height) == (b"5", b"4")
            assert Image.open(io.BytesIO(encoded)).getpixel((0, 0)) == (20 * epoch, 0, 0)
        if expected[-1] == 10:
            add_pictures(MetricsLog(tmp_path, None, enabled=True, first_epoch=5), tmp_path, [5])


def test_a_resumed_run_drops_later_pictures_of_every_kind_and_nothing_else(tmp_path):
    names = ["epoch_4.png", "epoch_5.png", "epoch_10.png", "mine.png", "epoch_9.txt"]
    for folder in ("restorations", "frames"):
        (tmp_path / "figures" / folder).mkdir(parents=True)
        for name in names:
            Image.new("L", (4, 4)).save(tmp_path / "figures" / folder / name, format="PNG")
    Image.new("L", (4, 4)).save(tmp_path / "figures" / "epoch_9.png")
    MetricsLog(tmp_path, None, enabled=True, first_epoch=5)
    assert list(shown_pictures(tmp_path)) == [4]
    for folder in ("restorations", "frames"):
        left = {path.name for path in (tmp_path / "figures" / folder).iterdir()}
        assert left == {"epoch_4.png", "mine.png", "epoch_9.txt"}
        assert list(pictures_by_epoch(tmp_path / "figures" / folder)) == [4]
    assert (tmp_path / "figures" / "epoch_9.png").exists()


@pytest.mark.parametrize(("total", "expected"), [(1, 1), (20, 20), (60, 60), (61, 31), (10_000, 61)])
def test_pictures_kept_of_a_run_are_few_and_evenly_spread(total, expected):
    kept = [number for number in range(1, total + 1) if keeps_picture(number, total, 60)]
    assert len(kept) in (expected, expected + 1)
    assert (kept[0], kept[-1]) == (1, total)
    assert max(np.diff(kept), default=1) <= -(-total // 60)
