"""Logs, figures, page: what is written, and that strangers' text cannot become markup."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorflow.python.summary.summary_iterator import summary_iterator

from tfinpaint.report import figures
from tfinpaint.report.figures import (
    attempt_figure,
    draw_bars,
    draw_curve,
    draw_grid,
    draw_label_fractions,
    shrink_images,
)
from tfinpaint.report.html import Section, write_page
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


@pytest.mark.parametrize("phases", [("train",), ("train", "test")])
def test_figures_are_png_files_with_something_on_them(tmp_path, phases):
    records = [record(phase, epoch, loss=1.0 / epoch) for phase in phases for epoch in (1, 2, 3)]
    draw_curve(records, "loss", "BCE loss", tmp_path / "curve.png")
    images = np.random.default_rng(0).random((2, 8, 8, 3))
    draw_grid({"original": images, "restored": images}, "held-out", tmp_path / "grid.png")
    draw_bars({"a": 0.5}, "accuracy", tmp_path / "bars.png")
    masks = {"input": images - 3, "target": np.eye(8, dtype=np.int32)[None].repeat(2, 0) * 4, "output": images[..., :1]}
    draw_grid(masks | {"classes": np.random.default_rng(1).random((2, 8, 8, 5))}, "masks", tmp_path / "masks.png")
    runs = [
        {"test_accuracy": 0.5 + share / 4 + scratch / 8, "label_fraction": share, "from_scratch": scratch}
        for share in (0.2, 1.0)
        for scratch in (True, False)
    ]
    draw_label_fractions(runs, tmp_path / "shares.png")
    for path in tmp_path.iterdir():
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.std() > 5, path


def drawn(monkeypatch, draw):
    """The matplotlib figure that `draw` would save."""
    saved = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: saved.append(figure))
    draw()
    return saved[0]


def test_baselines_are_level_lines_named_with_their_values(monkeypatch, tmp_path):
    records = [record("test", epoch, psnr=14.0 + epoch) for epoch in (1, 2, 3)]
    baselines = {"mean colour": 14.25, "biharmonic": 18.512}
    figure = drawn(monkeypatch, lambda: draw_curve(records, "psnr", "PSNR, dB", tmp_path / "x", baselines))
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].get_lines()}
    assert lines == {"test": [15, 16, 17], "mean colour 14.25": [14.25] * 2, "biharmonic 18.51": [18.512] * 2}


@pytest.mark.parametrize("epochs", [1, 2, 100, 101, 10_000])
def test_a_line_of_any_number_of_epochs_shows_its_extremes(monkeypatch, tmp_path, epochs):
    records = [record("train", epoch, loss=1.0) for epoch in range(1, epochs + 1)]
    records[epochs // 2]["loss"], records[epochs // 3]["loss"] = 9.0, 0.25
    figure = drawn(monkeypatch, lambda: draw_curve(records, "loss", "loss", tmp_path / "x"))
    (line,) = figure.axes[0].get_lines()
    assert len(line.get_xdata()) <= figures.MOST_POINTS
    drawn_values = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert {epochs // 2 + 1: 9.0, epochs // 3 + 1: 0.25}.items() <= drawn_values.items() or epochs < 3
    assert line.get_marker() == ("o" if epochs <= figures.MOST_MARKED else "None")
    low, high = figure.axes[0].get_xlim()
    assert (low, high) == (0, 2) if epochs == 1 else low < 1 < epochs < high


NO_NUMBERS = [float("nan"), float("inf"), -float("inf"), 1e308]


@pytest.mark.parametrize("values", [NO_NUMBERS, [0.5, *NO_NUMBERS, 0.25], NO_NUMBERS * 1000, []])
def test_figures_of_values_that_are_not_finite(tmp_path, values):
    records = [record("train", epoch, loss=value) for epoch, value in enumerate(values, start=1)]
    draw_curve(records, "loss", "loss", tmp_path / "curve.png", {"mean colour": float("nan")})
    draw_bars({str(number): value for number, value in enumerate(values[:9])}, "accuracy", tmp_path / "bars.png")
    runs = [{"test_accuracy": value, "label_fraction": 0.2, "from_scratch": False} for value in values[:9]]
    draw_label_fractions(runs, tmp_path / "shares.png")
    assert len(list(tmp_path.iterdir())) == 3


def test_images_that_are_not_finite_are_black_and_said_to_be(monkeypatch, tmp_path):
    images = np.full((1, 2, 2, 3), 0.5, np.float32)
    images[0, 0, 0], images[0, 1, 1] = np.nan, np.inf
    figure = drawn(monkeypatch, lambda: draw_grid({"output": images}, "title", tmp_path / "x"))
    assert figure.axes[0].get_title() == "output\nnot all finite"
    assert np.allclose(figure.axes[0].images[0].get_array()[..., 0], [[0, 0.5], [0.5, 0]])


def test_large_images_are_shrunk_by_means_and_label_maps_by_choice():
    images = np.arange(5 * 7, dtype=np.float32).reshape(1, 5, 7, 1)
    shown = shrink_images(images, 3)
    assert shown.shape == (1, 2, 3, 1)
    assert shown[0, 0, 0, 0] == images[0, :3, :3].mean()
    assert shown[0, 1, 2, 0] == images[0, 3:, 6:].mean()
    assert shrink_images(images[..., 0].astype(np.int64), 3).tolist() == [[[0, 3, 6], [21, 24, 27]]]
    assert shrink_images(images, 7) is images


def test_of_very_many_bars_the_greatest_are_drawn(monkeypatch, tmp_path):
    values = {f"run_{number}_{'x' * 200}": number / 3000 for number in range(3000)}
    figure = drawn(monkeypatch, lambda: draw_bars(values, "test accuracy", tmp_path / "x"))
    axes = figure.axes[0]
    assert axes.get_xlabel() == "test accuracy (the 200 best of 3000)"
    assert len(axes.patches) == 200
    assert axes.patches[0].get_width() == 2999 / 3000
    assert axes.get_yticklabels()[0].get_text().startswith("3000: run_2999")


def test_a_figure_that_fails_is_logged_and_no_more(caplog, tmp_path):
    with attempt_figure(tmp_path / "loss.png"):
        raise ValueError("no room")
    assert f"Could not draw {tmp_path}/loss.png (ValueError: no room); continuing without it" in caplog.text


@pytest.mark.parametrize(("total", "expected"), [(1, 1), (20, 20), (60, 60), (61, 31), (10_000, 61)])
def test_pictures_kept_of_a_run_are_few_and_evenly_spread(total, expected):
    kept = [number for number in range(1, total + 1) if keeps_picture(number, total, 60)]
    assert len(kept) in (expected, expected + 1)
    assert (kept[0], kept[-1]) == (1, total)
    assert max(np.diff(kept), default=1) <= -(-total // 60)


@pytest.mark.parametrize(
    ("values", "shown", "heading"),
    [
        ([0.0, 1.0], [0.0, 1.0], "name"),  # a mask
        ([0.25, 0.5], [0.25, 0.5], "name"),  # an image is left as it is
        ([-1e-7, 0.5, 1 + 1e-7], [0.0, 0.5, 1.0], "name"),  # rounding is no other range
        ([0.0, 1.0, 10.0], [0.0, 0.1, 1.0], "name\n0 to 10"),  # weights
        ([10.0, 10.0], [1.0, 1.0], "name\n0 to 10"),  # equal weights are not black
        ([-2.0, 0.0, 2.0], [0.0, 0.5, 1.0], "name\n-2 to 2"),  # normalised
        ([0.0, 0.004], [0.0, 1.0], "name\n0 to 0.004"),  # all but black
        ([0.0, 0.0], [0.0, 0.0], "name"),
    ],
)
def test_a_grid_stretches_what_cannot_be_shown_and_says_so(monkeypatch, tmp_path, values, shown, heading):
    images = np.array(values, np.float32).reshape(1, 1, -1, 1)
    figure = drawn(monkeypatch, lambda: draw_grid({"name": images}, "title", tmp_path / "x"))
    (axes,) = figure.axes
    assert axes.get_title() == heading
    assert np.allclose(axes.images[0].get_array().ravel(), shown, atol=1e-6)


def test_a_figure_that_fails_leaves_the_one_before(monkeypatch, tmp_path):
    draw_bars({"a": 0.5}, "accuracy", tmp_path / "bars.png")
    before = (tmp_path / "bars.png").read_bytes()

    def fail(figure, path, **options):
        path.write(b"half")
        raise OSError

    monkeypatch.setattr(figures.Figure, "savefig", fail)
    with pytest.raises(OSError):  # noqa: PT011
        draw_bars({"a": 0.75}, "accuracy", tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes() == before


def test_the_page_holds_its_figures_and_escapes_text(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "figure.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "moving.gif")
    sections = [
        Section("<h>", table=[["name", "value"], ["<b>", 1234567], ["rate", 0.123456]], text="<script>"),
        Section("figures", figures=[tmp_path / name for name in ("figure.png", "missing.png", "moving.gif")]),
        Section("Curves", figures=[tmp_path / "missing.png"]),
    ]
    write_page(tmp_path / "report.html", "a & b", sections)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert page.count("data:image/gif;base64,R0lGOD") == 1
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page
    assert "<td>1,234,567</td>" in page
    assert "<td>0.1235</td>" in page
    assert "Curves" not in page  # a heading with nothing below it
    assert "http" not in page  # nothing is fetched when it is opened
