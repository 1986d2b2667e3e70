"""Write what a sweep has found: JSON, CSV, the figure of accuracy against the share of the labels, and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tfinpaint.checkpoint.find import run_folder_of
from tfinpaint.config.diff import as_values
from tfinpaint.layout import REPORT, SWEEP_FIGURE, SWEEP_JSON, SWEEP_TABLE
from tfinpaint.report.about import about, command_line, now
from tfinpaint.report.cells import Code, Link, link_to
from tfinpaint.report.colours import NOT_PRETRAINED, PRETRAINED
from tfinpaint.report.figures import attempt_figure, own_style, save_figure, set_share_axis
from tfinpaint.report.html import Section, write_page
from tfinpaint.report.quantities import legend, mark_highest
from tfinpaint.storage.atomic import write_csv, write_json
from tfinpaint.sweeping.plan import METHODS, SCRATCH_STEPS, Method, Plan
from tfinpaint.sweeping.rows import Row, as_table, read_rows
from tfinpaint.sweeping.statistics import CONFIDENCE, PAIRS, RESAMPLES, Difference, Point, differences, points
from tfinpaint.sweeping.verdict import describe_difference, verdict
from tfinpaint.system.paths import display_path
from tfinpaint.system.wording import counted, percent

_STYLES: dict[Method, str] = {
    "pretrained_frozen": f"{PRETRAINED}s--",
    "fine_tuned": f"{PRETRAINED}o-",
    "random_frozen": f"{NOT_PRETRAINED}s--",
    "from_scratch": f"{NOT_PRETRAINED}o-",
}
_SPREAD = 0.03  # factor between the places of methods at one share, so that their bars do not hide each other


@dataclass(frozen=True)
class Findings:
    """What the finished rows of a sweep show.

    Attributes:
        distinct: the differences without near-duplicates of training images; () where there are none.
        sentences: the result first.
        table: accuracy of each method at each share, below a heading row.
    """

    rows: Sequence[Row]
    points: Sequence[Point]
    differences: Sequence[Difference]
    distinct: Sequence[Difference]
    sentences: Sequence[str]
    table: Sequence[Sequence[Any]]


def find(plan: Plan) -> Findings:
    """Evaluate the finished rows. Raises UserError where the file of one is damaged."""
    rows = read_rows(plan.folder, plan.test)
    found, labels = differences(rows, plan.test.labels), plan.test.labels
    counted = np.ones(len(labels), bool)
    counted[[copy.test for copy in plan.copies]] = False
    distinct = differences(rows, labels, counted) if plan.copies and counted.any() else []
    accuracies = points(rows, labels)
    sentences = verdict(plan, rows, found, distinct)
    return Findings(rows, accuracies, found, distinct, sentences, accuracy_table(accuracies))


def accuracy_table(accuracies: Sequence[Point]) -> list[list[Any]]:
    """Return the mean accuracy of each method at each share, with the deviation over the draws behind it."""
    shares = {each.share: each.labels for each in sorted(accuracies, key=lambda each: each.share)}
    shown = {(each.method, each.share): _shown(each) for each in accuracies}
    return [
        ["encoder", *(f"{percent(share)} ({counted(count, 'label')})" for share, count in shares.items())],
        *([METHODS[method], *(shown.get((method, share), "") for share in shares)] for method in get_args(Method)),
    ]


def _shown(point: Point) -> str:
    deviation = point.deviation
    return f"{point.interval.mean:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else "")


def write_findings(plan: Plan, found: Findings) -> None:
    """Write all files about the results into the folder of the sweep. Raises OSError where it cannot be written."""
    folder = plan.folder
    write_json(folder / SWEEP_JSON, as_json(plan, found))
    write_csv(folder / SWEEP_TABLE, as_table(found.rows))
    if found.points:
        with attempt_figure(folder / SWEEP_FIGURE):
            draw_findings(found, folder / SWEEP_FIGURE)
    in_table = {describe_difference(each) for each in found.differences}  # many sentences, and the figure below them
    sections = [
        Section(
            "Result",
            sentences=[each for each in found.sentences if each not in in_table],
            figures=[folder / SWEEP_FIGURE],
        ),
        _accuracies(found.table),
        Section(
            f"Differences in points, with {percent(CONFIDENCE)} intervals",
            table=difference_table(found.differences),
            note="Above 0 the first of both is more accurate; where an interval excludes 0, the difference is clear.",
        ),
        Section("All rows, and what their validation images have chosen", table=_shown_rows(plan, found.rows)),
        Section("How it was measured", sentences=_protocol(plan), table=_cells_table(plan)),
        about(_sources(plan), finished=now(), command=command_line()),
    ]
    write_page(folder / REPORT, "Does pretraining pay?", sections)


def _accuracies(table: Sequence[Sequence[Any]]) -> Section:
    """Return the section of the accuracies, with the best one at each share of the labels marked."""
    marked = mark_highest(table, first=1) if len(table[0]) > 1 else []
    note = f"Higher is better. {legend(marked)}"
    return Section("Test accuracy: mean ± deviation over the draws of labels", table=marked, note=note)


def _sources(plan: Plan) -> dict[str, Any]:
    """Return rows about encoder and images, name -> cell."""
    run = run_folder_of(plan.weights)
    encoder = link_to(run / REPORT, plan.folder, display_path(plan.weights)) if run else display_path(plan.weights)
    images = {"training images": Code(display_path(plan.train.root)), "test images": Code(display_path(plan.test.root))}
    return {"sweep folder": Code(display_path(plan.folder)), "pretrained encoder": encoder, **images}


def as_json(plan: Plan, found: Findings) -> dict[str, Any]:
    """Return all results as JSON values."""
    return {
        "sentences": list(found.sentences),
        "weights": str(plan.weights),
        "classes": list(plan.test.classes),
        "test_images": len(plan.test),
        **plan.facts(),
        "config": as_values(plan.config),
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "accuracies": [
            {**asdict(each), "deviation": each.deviation, "draws": list(each.draws)} for each in found.points
        ],
        "differences": [asdict(each) for each in found.differences],
        "differences_without_near_duplicates": [asdict(each) for each in found.distinct],
        "rows": [{key: value for key, value in asdict(row).items() if key != "predicted"} for row in found.rows],
    }


def difference_table(found: Sequence[Difference]) -> list[list[Any]]:
    """Return a row for each difference below a heading row; [] without any."""
    if not found:
        return []
    rows = [
        [
            _pair(each.pair), percent(each.share), f"{100 * each.interval.mean:+.1f}",
            f"{100 * each.interval.low:+.1f} to {100 * each.interval.high:+.1f}",
            ", ".join(f"{100 * value:+.1f}" for value in each.draws),
        ]
        for pair in PAIRS for each in found if each.pair == pair
    ]  # fmt: skip
    return [["difference", "labels", "points", "interval", "each draw"], *rows]


def _pair(pair: tuple[Method, Method]) -> str:
    return " - ".join(METHODS[method] for method in pair)


def _chosen(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _shown_rows(plan: Plan, rows: Sequence[Row]) -> list[list[Any]]:
    table = [
        [
            percent(row.share), row.draw + 1, _run_of(plan, row),
            ", ".join(f"{name.replace('_', ' ')} {_chosen(value)}" for name, value in row.chosen.items()),
            "" if row.validation_accuracy is None else f"{row.validation_accuracy:.3f}", f"{row.accuracy:.3f}",
        ]
        for row in rows
    ]  # fmt: skip
    head = ["labels", "draw", "encoder", "chosen", "validation accuracy", "test accuracy"]
    return [head, *table] if rows else []


def _run_of(plan: Plan, row: Row) -> Link | str:
    """Return the method of a row, as a link to the report of its final run where it has one."""
    name = next((cell.name for cell in plan.cells if (cell.share, cell.number) == (row.share, row.draw)), "")
    return link_to(plan.folder / name / row.method / "test" / REPORT, plan.folder, METHODS[row.method])


def _cells_table(plan: Plan) -> list[list[Any]]:
    cells = [
        [percent(cell.share), cell.number + 1, cell.seed, cell.labelled, cell.trained, cell.validated]
        for cell in plan.cells
    ]
    return [["labels", "draw", "seed", "labelled images", "to train on", "for validation"], *cells]


def _protocol(plan: Plan) -> list[str]:
    fine, scratch = plan.grids["fine_tuned"], plan.grids["from_scratch"]
    rates, decays = ({getattr(each, name) for each in scratch} for name in ("learning_rate", "weight_decay"))
    return [
        "All four methods have the same labelled images of each draw; smaller shares lie in larger ones.",
        f"Fine-tuned: {plan.steps_of('fine_tuned'):,} steps at every share; learning rates "
        f"{_numbers({each.learning_rate for each in fine})}.",
        f"From scratch: {SCRATCH_STEPS} times as many steps, AdamW, learning rates {_numbers(rates)} with weight "
        f"decays {_numbers(decays)}.",
        "Setting and epoch of both are chosen on labelled images that are kept out of training; then the test images "
        "are evaluated once.",
        "Frozen: logistic regression on the averages of stage 5, fitted to all labelled images, C chosen by "
        "cross-validation on them, and the random encoder among three initialisations, each with and without "
        "recalibrated batch norms.",
        f"Intervals: percentiles of {RESAMPLES:,} bootstrap resamples of test images and draws. Several shares and "
        "two pretrained encoders are compared, and the intervals are not widened for that.",
    ]


def _numbers(values: set[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values))


@own_style()
def draw_findings(found: Findings, path: Path) -> None:
    """Draw accuracies, and beside them the differences; bars are the bootstrap intervals."""
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    shares = sorted({100 * each.share for each in found.points})
    left, right = figure.subplots(1, 2)
    for place, method in enumerate(get_args(Method)):
        own = [each for each in found.points if each.method == method]
        _draw_intervals(left, own, METHODS[method], _STYLES[method], place)
    left.set(ylabel="test accuracy", title="Test accuracy")
    for place, (pair, style) in enumerate(zip(PAIRS, ("ko-", "kD-.", "ks--"), strict=True)):
        differing = [each for each in found.differences if each.pair == pair]
        _draw_intervals(right, differing, _pair(pair), style, place, scale=100)
    right.axhline(0, color="black", linewidth=0.8)
    right.set(ylabel="points", title="What pretraining adds")
    for axes in (left, right):
        set_share_axis(axes, shares)
        axes.set(xlim=(shares[0] / 1.4, shares[-1] * 1.4))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))  # it would hide intervals
    told = "; ".join(
        f"{METHODS[each.method]}, {percent(each.share)}: {each.interval.mean:.3f}" for each in found.points
    )
    alt = f"Test accuracy against the share of the labels ({told}), and beside it the differences, with intervals."
    save_figure(figure, path, alt)


def _draw_intervals(
    axes: Axes, found: Sequence[Point] | Sequence[Difference], label: str, style: str, place: int, scale: float = 1.0
) -> None:
    if not found:
        return
    shares = np.array([100 * each.share for each in found]) * (1 + _SPREAD) ** (place - 1)
    means, lows, highs = (
        scale * np.array([getattr(each.interval, name) for each in found]) for name in ("mean", "low", "high")
    )
    bars = np.maximum(0, [means - lows, highs - means])
    axes.errorbar(shares, means, bars, fmt=style, markersize=4, capsize=2, linewidth=1, label=label)
