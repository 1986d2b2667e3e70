"""Draw the figures of a run as PNG files."""

from __future__ import annotations

import io
import json
import logging
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tfinpaint.report.colours import BASELINES, NOT_PRETRAINED, PHASES, PRETRAINED, STAGES, TEST
from tfinpaint.report.metrics_log import metric_series
from tfinpaint.storage.atomic import write_bytes
from tfinpaint.system.paths import display_path
from tfinpaint.system.wording import counted, percent

log = logging.getLogger(__name__)

DPI = 110
MOST_MARKED = 100  # points of a line with markers, which would hide a line of more points
MOST_DRAWN = 1e100  # larger values are not drawn, because Matplotlib's arithmetic overflows
MOST_SHOWN_SIDE = 256  # pixels of an image in a grid, which is drawn with about 180 pixels
MOST_BARS, MOST_WIDE_BARS = 200, 20
MOST_NAME = 24  # characters of a name in a figure
ALT, PHOTOS = "Description", "Photos"  # texts in a PNG file: what it shows, and where it has images, as JSON
Box = tuple[float, float, float, float]  # left, upper, right and lower edge, as shares of a figure's width and height
COLUMN, GAP, MOST_TALL = 1.6, 0.1, 4.0  # inches: width of a column of a grid, between images, height of an image
TOO_DARK = 0.1  # a column whose values are all below this is stretched, to make it visible


@contextmanager
def own_style() -> Iterator[None]:
    """Draw in one style, within a `with` statement; the user's settings (matplotlibrc, rcParams) are restored after it.

    Figures are drawn without pyplot, so MPLBACKEND has no effect.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False  # a $ in a class name is a $
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a class name in a script the font lacks
        yield


@contextmanager
def attempt_figure(path: Path) -> Iterator[None]:
    """Draw a figure, or a folder of them, in the block; if that fails, only log it, because the run can do without."""
    try:
        yield
    except Exception as error:
        log.warning(f"Could not draw {display_path(path)} ({type(error).__name__}: {error}); continuing without it")


def short_name(name: str, number: int, kind: str = "class") -> str:
    """Return a name as a figure shows it: on one line, with at most MOST_NAME characters.

    If the name is too long, or the font lacks its letters, its number is shown, under which tables have the full name.

    Args:
        number: the number of the class, or of whatever else has the name.
        kind: what the number counts.
    """
    text = " ".join(name.split())
    font = get_font(findfont("DejaVu Sans"))
    if not text.isprintable() or not all(font.get_char_index(ord(character)) for character in text):
        return f"{kind} {number}"
    if len(text) <= MOST_NAME:
        return text
    numbered = f"{number}: "
    head = (MOST_NAME - len(numbered)) // 2
    return f"{numbered}{text[:head]}…{text[len(numbered) + head + 1 - MOST_NAME :]}"


@own_style()
def draw_curve(
    records: Sequence[Mapping[str, Any]],
    name: str,
    label: str,
    path: Path,
    baselines: Mapping[str, float] | None = None,
) -> None:
    """Draw a metric over the epochs, for training, validation and test; values that are not finite leave a gap.

    Args:
        records: the records of metrics.jsonl.
        name: the metric's name in them, and `label` its name in the figure.
        baselines: name -> value of the same metric for a classical inpainting baseline, drawn as a horizontal line.
    """
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    drawn = []
    for (phase, colour), marker in zip(PHASES.items(), "o^s", strict=True):
        epochs, values = metric_series(records, phase, name)
        if epochs:
            style = "-" + marker if len(epochs) <= MOST_MARKED else "-"
            axes.plot(epochs, _drawable(values), style, color=colour, markersize=3, label=phase)
            drawn += [epochs[0], epochs[-1]]
    for baseline, value in (baselines or {}).items():
        if np.isfinite(value):
            named = f"{baseline} {value:.4g}"
            axes.axhline(value, linestyle=(0, (6, 3)), linewidth=1, color=BASELINES[baseline], label=named)
    if drawn and min(drawn) == max(drawn):  # a single epoch
        axes.set_xlim(drawn[0] - 1, drawn[0] + 1)
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if baselines and axes.lines:  # their lines cross the whole plot, so the legend is placed above it
        figure.legend(loc="outside upper center", ncols=3)
    elif drawn:
        axes.legend()
    save_figure(figure, path, _curve_alt(records, name, label, baselines or {}))


def _curve_alt(records: Sequence[Mapping[str, Any]], name: str, label: str, baselines: Mapping[str, float]) -> str:
    """Return a sentence with the first and the last value of each phase, and with those of the baselines."""
    told = []
    for phase in PHASES:
        epochs, values = metric_series(records, phase, name)
        if epochs:
            told.append(f"{phase} from {values[0]:.4g} (epoch {epochs[0]}) to {values[-1]:.4g} (epoch {epochs[-1]})")
    told += [f"{baseline} {value:.4g} (baseline)" for baseline, value in baselines.items()]
    return f"Line chart of {label} over the epochs: {'; '.join(told) or 'no values'}."


@own_style()
def draw_probe(
    records: Sequence[Mapping[str, Any]], stages: Mapping[int, str], random: Mapping[str, float], path: Path
) -> None:
    """Draw the accuracy of the probe in pretraining over the epochs, a line for each stage of the encoder.

    Args:
        records: the records of metrics.jsonl.
        stages: number of a stage -> name of the metric.
        random: the same metrics of a random encoder, drawn as a horizontal line for each stage.
    """
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    told = []
    for stage, name in stages.items():
        epochs, values = metric_series(records, "train", name)
        (line,) = axes.plot(epochs, values, "-o", color=STAGES[stage], markersize=3, label=f"stage {stage}")
        if epochs:
            told.append(f"stage {stage} from {values[0]:.3f} (epoch {epochs[0]}) to {values[-1]:.3f} ({epochs[-1]})")
        if name in random:
            label = f"random encoder, stage {stage}: {random[name]:.3f}"
            axes.axhline(random[name], linestyle=(0, (6, 3)), linewidth=1, color=line.get_color(), label=label)
    axes.set(xlabel="epoch", ylabel="accuracy of logistic regression")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2)
    alt = f"Line chart of the accuracy of the probe over the epochs: {'; '.join(told) or 'no values'}."
    save_figure(figure, path, alt)


def _drawable(values: Sequence[float]) -> np.ndarray:
    """Return float64 values, NaN for those that cannot be drawn."""
    drawable = np.array(values, np.float64)
    drawable[~(np.abs(drawable) < MOST_DRAWN)] = np.nan
    return drawable


@own_style()
def draw_grid(columns: Mapping[str, np.ndarray], title: str, path: Path, note: str = "") -> None:
    """Draw images side by side, with a row for each example and a named column for each kind.

    Args:
        columns: name -> float [examples, height, width, channels], RGB or grey (the mean is shown unless there are
            three channels), or integers [examples, height, width]. If the values of a column exceed 0 to 1 or are
            close to 0, the column is stretched, and its range is given below its name. Images are shrunk to
            MOST_SHOWN_SIDE pixels; values that are not finite are black, and the name says so.
        note: sentences below the images.
    """
    rows, (height, width) = len(next(iter(columns.values()))), next(iter(columns.values())).shape[1:3]
    shown = {name: _displayable(shrink_images(images, MOST_SHOWN_SIDE)) for name, images in columns.items()}
    headings = [f"{name}\n{remark}" if remark else name for name, (_, remark) in shown.items()]
    across = COLUMN * len(columns) + GAP
    lines = textwrap.wrap(title, max(10, int(10 * across)))
    below = textwrap.wrap(note, max(20, int(16 * across)))
    top = 0.22 * len(lines) + 0.19 * (1 + max(heading.count("\n") for heading in headings)) + 2 * GAP
    side = COLUMN - GAP, min((COLUMN - GAP) * height / width, MOST_TALL)  # of an image, in inches
    tall = top + rows * (side[1] + GAP) + 0.17 * len(below) + GAP * bool(below)
    figure = Figure(figsize=(across, tall))
    figure.text(0.5, 1 - GAP / tall, "\n".join(lines), ha="center", va="top", fontsize=12)
    figure.text(GAP / across, GAP / tall, "\n".join(below), va="bottom", fontsize=8, linespacing=1.3)
    extent = side[0] / across, (rows * (side[1] + GAP) - GAP) / tall
    boxes = []
    for number, (heading, (images, _)) in enumerate(zip(headings, shown.values(), strict=True)):
        left = (GAP + COLUMN * number) / across
        axes = figure.add_axes((left, 1 - top / tall - extent[1], *extent))  # one for each image would take seconds
        axes.set_title(heading, fontsize=10)
        gap = images.shape[1] * GAP / side[1]
        _draw_stacked(axes, images, gap)
        for row in range(rows):
            upper = (top + row * (side[1] + GAP)) / tall
            boxes.append((left, upper, left + extent[0], upper + side[1] / tall))
    names = ", ".join(" ".join(name.split()) for name in columns)
    alt = f"Grid of {counted(rows, 'row')} of images ({title}); the columns are {names}."
    save_figure(figure, path, f"{alt} {note}".strip(), photos=boxes)


def _draw_stacked(axes: Any, images: np.ndarray, gap: float) -> None:
    """Draw images one below the other, with a gap between them, in pixels of theirs."""
    step = images.shape[1] + gap
    for row, image in enumerate(images):
        extent = 0, images.shape[2], row * step + images.shape[1], row * step
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent, aspect="auto")
    axes.set(xlim=(0, images.shape[2]), ylim=(len(images) * step - gap, 0))
    axes.axis("off")


def shrink_images(images: np.ndarray, most: int) -> np.ndarray:
    """Shrink images to at most `most` pixels a side; each pixel is the mean of a block, or one of it for integers.

    Args:
        images: [examples, height, width, channels], float; or [examples, height, width], integers.
    """
    factor = -(-max(images.shape[1:3]) // most)
    if factor == 1:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        return images[:, ::factor, ::factor]
    blocks = [np.arange(0, extent, factor) for extent in images.shape[1:3]]
    sums = np.add.reduceat(np.add.reduceat(images, blocks[0], axis=1), blocks[1], axis=2)
    heights, widths = (np.diff([*starts, side]) for starts, side in zip(blocks, images.shape[1:3], strict=True))
    areas = heights[:, None] * widths
    return np.asarray(sums / areas.reshape(*areas.shape, *[1] * (images.ndim - 3)))


def _displayable(images: np.ndarray) -> tuple[np.ndarray, str]:
    """Return values 0 to 1, RGB or grey, and a remark for below the name: the range that was stretched, if it was."""
    if images.ndim == 4 and images.shape[3] != 3:
        images = images.mean(axis=3)
    finite = np.isfinite(images)
    remark = "" if finite.all() else "not all finite"
    images = np.where(finite, images, 0).astype(np.float64)
    low, high = min(0.0, float(images.min())), float(images.max())
    rounding = 1e-3  # by which interpolation may exceed 0 and 1
    if (-rounding <= low and TOO_DARK <= high <= 1 + rounding) or low == high:
        return images.clip(0, 1), remark
    return images / (high - low) - low / (high - low), "\n".join([f"{low:.3g} to {high:.3g}", *[remark] * bool(remark)])


@own_style()
def draw_bars(values: Mapping[str, float], label: str, path: Path, colours: Mapping[str, str] | None = None) -> None:
    """Draw a labelled bar for each value, 0 to 1; if there are more than MOST_BARS, for the largest.

    Args:
        colours: of some of the bars, by their names; the others have the colour of test images.
    """
    shown = list(enumerate(values.items(), start=1))
    if len(shown) > MOST_BARS:
        shown = sorted(shown, key=lambda each: -np.nan_to_num(each[1][1]))[:MOST_BARS]
        label = f"{label} (the {MOST_BARS} best of {len(values)})"
    wide = len(shown) <= MOST_WIDE_BARS
    figure = Figure(figsize=(6, 0.8 + (0.5 if wide else 0.2) * len(shown)), layout="constrained")
    axes = figure.subplots()
    places = range(len(shown))
    of_bars = [(colours or {}).get(name, TEST) for _, (name, _) in shown]
    drawn = axes.barh(places, _drawable([value for _, (_, value) in shown]), color=of_bars)
    names = [short_name(name, number, "run") for number, (name, _) in shown]
    axes.set_yticks(places, names, fontsize=10 if wide else 7)
    axes.bar_label(drawn, fmt="%.3f", padding=3, fontsize=10 if wide else 7)
    axes.set(xlabel=label, xlim=(0, 1.1), ylim=(-0.7, len(shown) - 0.3))
    axes.invert_yaxis()
    told = ", ".join(f"{name} {value:.3f}" for name, (_, (_, value)) in list(zip(names, shown, strict=True))[:20])
    save_figure(figure, path, f"Bar chart of {label}: {told}{', ...' * (len(shown) > 20)}.")


@own_style()
def draw_label_fractions(summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw test accuracy against the share of labels: a line for pretrained runs and one for others, a dot per run.

    Args:
        summaries: those of classifiers, with "test_accuracy", "label_fraction" and "from_scratch".
    """
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    kinds = (("pretrained", False, "o-", PRETRAINED), ("from scratch", True, "s--", NOT_PRETRAINED))
    told = []
    for label, from_scratch, style, colour in kinds:
        chosen = [s for s in summaries if s.get("from_scratch") == from_scratch]
        shares = sorted({s["label_fraction"] for s in chosen})
        runs = [_drawable([s["test_accuracy"] for s in chosen if s["label_fraction"] == share]) for share in shares]
        if shares:
            means = [np.mean(run) for run in runs]
            axes.plot([100 * share for share in shares], means, style, color=colour, label=label)
            for share, run in zip(shares, runs, strict=True):
                axes.plot([100 * share] * len(run), run, ".", color=colour)
            values = ", ".join(f"{mean:.3f} at {percent(share)}" for mean, share in zip(means, shares, strict=True))
            told.append(f"{label} {values}")
    axes.set(xlabel="share of the training labels, %", ylabel="test accuracy")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    save_figure(figure, path, f"Test accuracy against the share of the training labels: {'; '.join(told)}.")


def set_share_axis(axes: Any, shares: Sequence[float]) -> None:
    """Make the x-axis that of the share of the labels, logarithmic, with ticks at these percentages alone."""
    axes.set(xlabel="share of the labels, %", xscale="log")
    axes.xaxis.set_major_locator(FixedLocator(shares))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def save_figure(figure: Figure, path: Path, alt: str, *, photos: Sequence[Box] = ()) -> None:
    """Write a figure as a PNG file, whole or not at all.

    Args:
        alt: a sentence that says what is seen, for readers who cannot see it; the file holds it.
        photos: where the figure has images, whose colours a dark page must not change.
    """
    contents, texts = io.BytesIO(), {ALT: alt.encode("utf-8", "replace").decode()}  # file names need not be text
    if photos:
        texts[PHOTOS] = json.dumps([[round(part, 5) for part in box] for box in photos])
    figure.savefig(contents, dpi=DPI, format="png", metadata=texts)
    write_bytes(path, contents.getvalue())
