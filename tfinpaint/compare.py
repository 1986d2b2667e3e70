"""Set finished runs side by side: a table on the terminal and one report of them all.

usage: python -m tfinpaint.compare --report runs/demo/report.html runs/demo/pretrain runs/demo/pretrained ...
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfinpaint.cli import command as cli
from tfinpaint.cli.command import run_command
from tfinpaint.errors import UserError
from tfinpaint.layout import FIGURES, SUMMARY

COLUMNS: Mapping[str, Mapping[str, str]] = {  # kind of run -> figure of its summary -> heading, the telling ones first
    "Classifiers": {
        "test_accuracy": "test accuracy",
        "start": "start",
        "labels": "labels",
        "label_fraction": "share of labels",
        "test_images": "test images",
        "train_accuracy": "train accuracy",
        "test_loss": "test loss",
        "loss_function": "loss function",
    },
    "Inpainting": {
        "test_hole_psnr_db": "PSNR in the hole, dB",
        "best_baseline_hole_psnr_db": "best baseline, dB",
        "test_images": "test images",
        "pretrain_loss": "train loss",
        "test_loss": "test loss",
        "loss_function": "loss function",
    },
    "Image to image": {
        "train_loss": "train loss",
        "test_loss": "test loss",
        "test_images": "test images",
        "loss_function": "loss function",
    },
}
OF_ALL = {
    "best_epoch": "best epoch",
    "best_test_loss": "its test loss",
    "epochs": "epochs",
    "images_per_second": "images/s",
    "world_size": "ranks",
}
MOST_PICTURE_BYTES = 32 * 2**20  # in a report; the pictures of further runs stay in their folders
MOST_SENTENCES = 10  # on the terminal; the report has all
LEAST_COLUMNS = 3  # that a narrow terminal shows
PLAIN_WIDTH = 100  # characters of a table that goes into a file


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        tables: by kind of run: a heading row, then a row per run; "" where a run has no such figure.
        sentences: what the figures say.
    """

    tables: Mapping[str, Sequence[Sequence[Any]]]
    sentences: Sequence[str]


def compare(folders: Sequence[Path], report: Path) -> Comparison:
    """Write the report of these run folders.

    Raises:
        UserError: a folder holds no finished run.
        OSError: the report cannot be written.
    """
    from tfinpaint.report.html import Section, summary_table, write_page

    if report.is_dir():
        raise UserError(f"{report}: is a folder; name the page to write")
    summaries = dict(zip(_labels(folders), map(_summary, folders), strict=True))
    compared = Comparison(tables_of(summaries), _sentences(summaries))
    text = "\n".join(compared.sentences)
    sections = [Section("Result", text=text, figures=_charts(summaries, report))]
    sections += [Section(kind, table=table) for kind, table in compared.tables.items()]
    room = MOST_PICTURE_BYTES
    for folder, (label, summary) in zip(folders, summaries.items(), strict=True):
        pictures = sorted((folder / FIGURES).glob("*.png"))
        room -= sum(picture.stat().st_size for picture in pictures)
        left_out = f"Pictures: {folder / FIGURES}" if room < 0 and pictures else ""
        sections.append(
            Section(label, table=summary_table(summary), figures=[] if left_out else pictures, text=left_out)
        )
    write_page(report, "Runs side by side", sections)
    return compared


def tables_of(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, list[list[Any]]]:
    """Return a table for each kind of run: a heading row, then a row per run, without columns that are empty.

    Args:
        summaries: name of a run -> its summary.
    """
    tables = {}
    for kind, own in COLUMNS.items():
        rows = {name: _with_start(summary) for name, summary in summaries.items() if _kind(summary) == kind}
        columns = {
            key: heading
            for key, heading in {**own, **OF_ALL}.items()
            if any(row.get(key) not in (None, "") for row in rows.values())
        }
        if "labels" in columns:
            columns.pop("label_fraction", None)
        if rows:
            cells = [[name, *(_cell(row.get(key)) for key in columns)] for name, row in rows.items()]
            tables[kind] = [["run", *columns.values()], *cells]
    return tables


def _kind(summary: Mapping[str, Any]) -> str:
    if "test_accuracy" in summary or "train_accuracy" in summary:
        return "Classifiers"
    inpaints = "pretrain_loss" in summary or "test_hole_psnr_db" in summary
    return "Inpainting" if inpaints else "Image to image"


def _with_start(summary: Mapping[str, Any]) -> dict[str, Any]:
    scratch = summary.get("from_scratch")
    return {**summary, "start": None if scratch is None else "scratch" if scratch else "pretrained"}


def _cell(value: Any) -> Any:
    return "" if value is None else value


def _charts(summaries: Mapping[str, Mapping[str, Any]], report: Path) -> list[Path]:
    """Draw the accuracies of the classifiers beside the report."""
    from tfinpaint.report.figures import draw_bars, draw_label_fractions

    tested = {run: s for run, s in summaries.items() if isinstance(s.get("test_accuracy"), int | float)}
    if not tested:
        return []
    charts = [report.with_name(f"{report.stem}_accuracies.png")]
    draw_bars({run: s["test_accuracy"] for run, s in tested.items()}, "test accuracy", charts[0])
    trained = [s for s in tested.values() if isinstance(s.get("label_fraction"), int | float)]
    if len({s["label_fraction"] for s in trained}) > 1:
        charts.append(report.with_name(f"{report.stem}_label_fractions.png"))
        draw_label_fractions(trained, charts[-1])
    return charts


def _sentences(summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    from tfinpaint.report.verdict import classifier_verdict, restoration_verdict

    restored = {name: restoration_verdict(summary) for name, summary in summaries.items()}
    return [
        *classifier_verdict(list(summaries.values())),
        *(f"{name}: {sentence}" for name, sentence in restored.items() if sentence),
    ]


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' names; their whole paths where two have the same name."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _summary(folder: Path) -> dict[str, Any]:
    try:
        summary = json.loads((folder / SUMMARY).read_text("utf-8"))
    except (OSError, ValueError):
        summary = None
    if not isinstance(summary, dict):
        raise UserError(f"{folder}: no finished run there (no readable {SUMMARY})")
    return summary


def print_table(title: str, table: Sequence[Sequence[Any]], width: int) -> None:
    """Print a table that is readable at a width in characters: names are wrapped, never cut, and numbers whole.

    Columns in which all runs have the same are told in a line below. Should the others not fit, the last ones are left
    out: the report has them.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [[_shown(cell) for cell in row] for row in table]
    same = [i for i in range(2, len(lines[0])) if len(lines) > 2 and len({row[i] for row in lines[1:]}) == 1]
    kept = [i for i in range(len(lines[0])) if i not in same]
    widths = {
        i: max(len(word) for row in lines for word in (row[i].split() if row is lines[0] else [row[i]])) for i in kept
    }
    names = min(widths[0], width // 3)
    while len(kept) > LEAST_COLUMNS and names + sum(widths[i] + 3 for i in kept[1:]) + 2 > width:
        kept.pop()
    shown = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 1), pad_edge=False)
    for i in kept:
        least = widths[i] if i else names
        shown.add_column(lines[0][i], justify="right" if i else "left", min_width=least, overflow="fold")
    for row in lines[1:]:
        shown.add_row(*(Text(row[i]) for i in kept))
    console = Console(width=width, highlight=False)
    console.print(shown)
    if same:
        console.print(Text("The same in all: " + ", ".join(f"{lines[0][i]} {lines[1][i]}" for i in same)))


def _shown(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = cli.make_parser("compare")
        parser.add_argument("runs", type=Path, nargs="+", help="run folders")
        parser.add_argument("--report", type=Path, default=Path("comparison.html"), help="page to write")
        parsed = parser.parse_args(arguments)
        try:
            compared = compare(parsed.runs, parsed.report)
        except OSError as error:
            raise UserError(f"{parsed.report}: the report cannot be written: {error.strerror}") from None
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH
        for title, table in compared.tables.items():
            print_table(title, table, width)
        print("\n".join(compared.sentences[:MOST_SENTENCES]))
        print(f"Report, to open in a browser: {parsed.report}")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
