"""Set finished runs side by side: a table on the terminal and one report of them all.

usage: python -m tfinpaint.compare --report runs/demo/report.html runs/demo/pretrain runs/demo/pretrained ...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfinpaint import cli
from tfinpaint.errors import UserError

COLUMNS = (
    *("test_accuracy", "train_accuracy", "label_fraction", "pretrain_loss", "test_loss"),
    *("test_hole_psnr_db", "best_epoch", "best_test_loss"),
    *("epochs", "images_per_second", "world_size"),
)


def compare(folders: Sequence[Path], report: Path) -> list[list[Any]]:
    """Write the report of these run folders.

    Returns:
        The table: a heading row, then a row per run; "" where a run has no such figure.

    Raises:
        UserError: a folder holds no finished run.
    """
    from tfinpaint.report import figures
    from tfinpaint.report.page import Section, summary_table, write_page

    if report.is_dir():
        raise UserError(f"{report}: is a folder; name the page to write")
    summaries = dict(zip(_labels(folders), map(_summary, folders), strict=True))
    columns = [name for name in COLUMNS if any(summary.get(name) is not None for summary in summaries.values())]
    if len({summary.get("label_fraction") for summary in summaries.values()} - {None}) < 2:
        columns = [name for name in columns if name != "label_fraction"]
    table = [["run", *columns], *([run, *(s.get(name, "") for name in columns)] for run, s in summaries.items())]
    accuracies = {run: s["test_accuracy"] for run, s in summaries.items() if "test_accuracy" in s}
    chart = report.with_name(f"{report.stem}_accuracies.png")
    if accuracies:
        figures.bars(accuracies, "test accuracy", chart)
    charts = [chart] if accuracies else []
    if len({s["label_fraction"] for s in summaries.values() if "label_fraction" in s and "test_accuracy" in s}) > 1:
        charts.append(report.with_name(f"{report.stem}_label_fractions.png"))
        figures.label_fractions([s for s in summaries.values() if "test_accuracy" in s], charts[-1])
    sections = [Section("Runs", table=table, figures=charts)]
    for folder, (label, summary) in zip(folders, summaries.items(), strict=True):
        pictures = sorted((folder / "figures").glob("*.png"))
        sections.append(Section(label, table=summary_table(summary), figures=pictures))
    write_page(report, "Runs side by side", sections)
    return table


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' names; their whole paths where two have the same name."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _summary(folder: Path) -> dict[str, Any]:
    try:
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
    except (OSError, ValueError):
        summary = None
    if not isinstance(summary, dict):
        raise UserError(f"{folder}: no finished run there (no readable summary.json)")
    return summary


def _print(table: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table()
    for name in table[0]:
        shown.add_column(str(name).replace("_", " "), justify="left" if name == "run" else "right")
    for row in table[1:]:
        shown.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 120).print(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = cli.make_parser("compare")
        parser.add_argument("runs", type=Path, nargs="+", help="run folders")
        parser.add_argument("--report", type=Path, default=Path("comparison.html"), help="page to write")
        parsed = parser.parse_args(arguments)
        try:
            table = compare(parsed.runs, parsed.report)
        except OSError as error:
            raise UserError(f"{parsed.report}: the report cannot be written: {error.strerror}") from None
        _print(table)
        print(f"Report: {parsed.report}")

    return cli.guard(command)


if __name__ == "__main__":
    sys.exit(main())
