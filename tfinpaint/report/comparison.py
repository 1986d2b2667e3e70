"""Compare finished runs: tables, sentences and charts from their summaries, and one page of them all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfinpaint.errors import UserError
from tfinpaint.layout import FIGURES, SUMMARY
from tfinpaint.report.figures import draw_bars, draw_label_fractions
from tfinpaint.report.html import Section, summary_table, write_page
from tfinpaint.report.verdict import classifier_verdict, restoration_verdict
from tfinpaint.storage.safe_json import read_json

log = logging.getLogger(__name__)

COLUMNS: Mapping[str, Mapping[str, str]] = {  # kind of run -> key of its summary -> heading, most important first
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
COMMON_COLUMNS = {
    "best_epoch": "best epoch",
    "best_test_loss": "its test loss",
    "epochs": "epochs",
    "images_per_second": "images/s",
    "world_size": "ranks",
}
MOST_PICTURE_BYTES = 32 * 2**20  # in a report; for further runs it only names the folders of their pictures


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs.

    Attributes:
        tables: kind of run -> a heading row, then a row for each run; "" if a run lacks the value.
        sentences: conclusions from the tables.
    """

    tables: Mapping[str, Sequence[Sequence[Any]]]
    sentences: Sequence[str]


def write_comparison(folders: Sequence[Path], report: Path) -> Comparison:
    """Compare the runs in these folders, and write the page `report` about them.

    Folders without a finished run are left out with a warning.

    Raises:
        UserError: No folder holds a finished run, or `report` is a folder.
        OSError: The report cannot be written.
    """
    if report.is_dir():
        raise UserError(f"{report}: is a folder; name the HTML file to write")
    folders = _finished(folders)
    summaries = dict(zip(_labels(folders), map(_summary, folders), strict=True))
    compared = Comparison(comparison_tables(summaries), _sentences(summaries))
    text = "\n".join(compared.sentences)
    sections = [Section("Result", text=text, figures=_charts(summaries, report))]
    sections += [Section(kind, table=table) for kind, table in compared.tables.items()]
    room = MOST_PICTURE_BYTES
    for folder, (label, summary) in zip(folders, summaries.items(), strict=True):
        pictures = sorted((folder / FIGURES).glob("*.png"))
        room -= sum(picture.stat().st_size for picture in pictures)
        omitted = f"Pictures: {folder / FIGURES}" if room < 0 and pictures else ""
        sections.append(Section(label, table=summary_table(summary), figures=[] if omitted else pictures, text=omitted))
    write_page(report, "Comparison of runs", sections)
    return compared


def comparison_tables(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, list[list[Any]]]:
    """Return a table for each kind of run: a heading row, then a row for each run, without empty columns.

    Args:
        summaries: name of a run -> its summary.
    """
    tables = {}
    for kind, own in COLUMNS.items():
        rows = {name: _with_start(summary) for name, summary in summaries.items() if _kind(summary) == kind}
        columns = {
            key: heading
            for key, heading in {**own, **COMMON_COLUMNS}.items()
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
    """Draw the accuracies of the classifiers into files beside the report; return these files."""
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
    restored = {name: restoration_verdict(summary) for name, summary in summaries.items()}
    return [
        *classifier_verdict(list(summaries.values())),
        *(f"{name}: {sentence}" for name, sentence in restored.items() if sentence),
    ]


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return the names of the folders, or their paths if two have the same name."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _finished(folders: Sequence[Path]) -> list[Path]:
    """Return the folders that hold a finished run; warn of the others.

    Raises:
        UserError: There is none.
    """
    found = [folder for folder in folders if isinstance(read_json(folder / SUMMARY), dict)]
    for folder in folders:
        if folder not in found:
            line = f"{folder}: holds no finished run; expected a readable {SUMMARY}"
            if not found:
                raise UserError(line)
            log.warning(f"{line}; it is left out")
    return found


def _summary(folder: Path) -> dict[str, Any]:
    summary = read_json(folder / SUMMARY)
    assert isinstance(summary, dict)
    return summary
