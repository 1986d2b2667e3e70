"""Figures show every value that can be drawn, whatever its size, number and name."""

import matplotlib
import numpy as np
import pytest
from conftest import ROOT
from matplotlib.colors import to_rgba
from PIL import Image

from tfinpaint.report import colours as colours_of_reports
from tfinpaint.report import figures
from tfinpaint.report.figures import (
    attempt_figure,
    draw_bars,
    draw_curve,
    draw_grid,
    draw_label_fractions,
    draw_probe,
    shrink_images,
)


def record(phase, epoch, **values):
    return {"phase": phase, "epoch": epoch, **values, "images_per_second": 1.0, "seconds": 2.0, "world_size": 1}


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
    monkeypatch.setattr(figures, "save_figure", lambda figure, path, alt, photos=False: saved.append(figure))
    draw()
    return saved[0]


def test_baselines_are_level_lines_named_with_their_values(monkeypatch, tmp_path):
    records = [record("test", epoch, psnr=14.0 + epoch) for epoch in (1, 2, 3)]
    baselines = {"mean colour": 14.25, "biharmonic": 18.512}
    figure = drawn(monkeypatch, lambda: draw_curve(records, "psnr", "PSNR, dB", tmp_path / "x", baselines))
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].get_lines()}
    assert lines == {"test": [15, 16, 17], "mean colour 14.25": [14.25] * 2, "biharmonic 18.51": [18.512] * 2}


def test_a_colour_means_the_same_in_all_figures(monkeypatch, tmp_path):
    levels = {"mean colour": 0.1, "nearest": 0.2, "biharmonic": 0.3}
    shown = {}
    for phases in (("test",), ("train", "test"), ("train", "validation", "test")):
        records = [record(phase, epoch, loss=1.0) for phase in phases for epoch in (1, 2)]
        for baselines in ({}, levels, dict(reversed(levels.items()))):
            figure = drawn(monkeypatch, lambda: draw_curve(records, "loss", "loss", tmp_path / "x", baselines))  # noqa: B023
            for line in figure.axes[0].get_lines():
                name = line.get_label().rpartition(" ")[0] or line.get_label()
                assert shown.setdefault(name, line.get_color()) == line.get_color()
    colours = {*shown.values(), colours_of_reports.PRETRAINED, colours_of_reports.NOT_PRETRAINED}
    assert len(shown) == 6
    assert len(colours) == 8
    bars = {"a": colours_of_reports.of_start(False), "b": colours_of_reports.of_start(True)}
    figure = drawn(monkeypatch, lambda: draw_bars({"a": 0.5, "b": 0.4, "c": 0.3}, "accuracy", tmp_path / "x", bars))
    expected = [to_rgba(colour) for colour in ("C2", "C3", "C1")]
    assert [patch.get_facecolor() for patch in figure.axes[0].patches] == expected


@pytest.mark.parametrize("epochs", [1, 2, 100, 101, 10_000])
def test_a_line_of_any_number_of_epochs_shows_its_extremes(monkeypatch, tmp_path, epochs):
    records = [record("train", epoch, loss=1.0) for epoch in range(1, epochs + 1)]
    records[epochs // 2]["loss"], records[epochs // 3]["loss"] = 9.0, 0.25
    figure = drawn(monkeypatch, lambda: draw_curve(records, "loss", "loss", tmp_path / "x"))
    (line,) = figure.axes[0].get_lines()
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


def test_the_probe_has_a_line_for_each_stage_and_one_for_the_random_encoder_of_each(monkeypatch, tmp_path):
    saved = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path, alt: saved.append((figure, alt)))
    records = [
        {"phase": "train", "epoch": 4, "loss": 1.0},
        {"phase": "train", "epoch": 5, "loss": 1.0, "a": 0.5, "b": 0.25},
        {"phase": "train", "epoch": 10, "loss": 1.0, "a": 0.75, "b": 0.5},
    ]
    draw_probe(records, {3: "a", 5: "b"}, {"a": 0.4, "b": 0.3}, tmp_path / "probe.png")
    ((figure, alt),) = saved
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == [
        "stage 3", "random encoder, stage 3: 0.400", "stage 5", "random encoder, stage 5: 0.300",
    ]  # fmt: skip
    assert axes.lines[0].get_xydata().tolist() == [[5, 0.5], [10, 0.75]]
    assert alt == (
        "Line chart of the accuracy of the probe over the epochs: stage 3 from 0.500 (epoch 5) to 0.750 (10); stage 5 "
        "from 0.250 (epoch 5) to 0.500 (10)."
    )


def test_figures_have_one_style_and_leave_the_settings_of_a_program_as_they_are(tmp_path):
    draw_curve([record("train", 1, loss=1.0)], "loss", "loss $a$", tmp_path / "plain.png")
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 40, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        draw_curve([record("train", 1, loss=1.0)], "loss", "loss $a$", tmp_path / "styled.png")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "styled.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
    texts = [path.read_text() for path in (ROOT / "tfinpaint").rglob("*.py")]
    made = [(text.count(" = Figure("), text.count("@own_style()\ndef ")) for text in texts]
    assert [each for each in made if each[0] != each[1]] == []
    assert sum(number for number, _ in made) > 8
