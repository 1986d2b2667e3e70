"""Logs, figures, page: what is written, and that strangers' text cannot become markup."""

import json

import numpy as np
import pytest
from PIL import Image
from tensorflow.python.summary.summary_iterator import summary_iterator

from tfinpaint.report import figures
from tfinpaint.report.metrics import MetricsLog, read_metrics
from tfinpaint.report.page import Section, write_page


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
    (events,) = (tmp_path / "tensorboard" / "train").iterdir()
    tags = {value.tag for event in summary_iterator(str(events)) for value in event.summary.value}
    assert {"loss", "accuracy", "images_per_second"} <= tags


def test_a_resumed_log_repeats_no_epoch_and_survives_a_cut_line(tmp_path):
    log = MetricsLog(tmp_path, None, enabled=True)
    for epoch in (1, 2, 3):
        log.add(record("train", epoch, loss=1.0 / epoch))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "tr')
    again = MetricsLog(tmp_path, None, enabled=True, first_epoch=3)
    again.add(record("train", 3, loss=0.5))
    assert [(r["epoch"], r["loss"]) for r in read_metrics(tmp_path)] == [(1, 1.0), (2, 0.5), (3, 0.5)]


def test_other_ranks_write_nothing(tmp_path):
    MetricsLog(tmp_path, tmp_path / "out.txt", enabled=False).add(record("train", 1, loss=1.0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("phases", [("train",), ("train", "test")])
def test_figures_are_png_files_with_something_on_them(tmp_path, phases):
    records = [record(phase, epoch, loss=1.0 / epoch) for phase in phases for epoch in (1, 2, 3)]
    figures.curve(records, "loss", "BCE loss", tmp_path / "curve.png")
    images = np.random.default_rng(0).random((2, 8, 8, 3))
    figures.grid({"original": images, "restored": images}, "held-out", tmp_path / "grid.png")
    figures.confusion(np.array([[3, 1], [0, 4]]), [r"$\frac{$", "猫"], tmp_path / "confusion.png")
    figures.bars({"a": 0.5}, "accuracy", tmp_path / "bars.png")
    masks = {"input": images - 3, "target": np.eye(8, dtype=np.int32)[None].repeat(2, 0) * 4, "output": images[..., :1]}
    figures.grid(masks | {"classes": np.random.default_rng(1).random((2, 8, 8, 5))}, "masks", tmp_path / "masks.png")
    runs = [
        {"test_accuracy": 0.5 + share / 4 + scratch / 8, "label_fraction": share, "from_scratch": scratch}
        for share in (0.2, 1.0)
        for scratch in (True, False)
    ]
    figures.label_fractions(runs, tmp_path / "shares.png")
    for path in tmp_path.iterdir():
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.std() > 5, path


def test_the_page_holds_its_figures_and_escapes_text(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "figure.png")
    sections = [
        Section("<h>", table=[["name", "value"], ["<b>", 1234567], ["rate", 0.123456]], text="<script>"),
        Section("figures", figures=[tmp_path / "figure.png", tmp_path / "missing.png"]),
    ]
    write_page(tmp_path / "report.html", "a & b", sections)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page
    assert "<td>1,234,567</td>" in page
    assert "<td>0.1235</td>" in page
    assert "http" not in page  # nothing is fetched when it is opened
