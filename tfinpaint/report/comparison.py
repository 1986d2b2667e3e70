"""Compare finished runs: tables, sentences and charts from their summaries, and one page of them all."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfinpaint.errors import UserError
from tfinpaint.layout import (
    FIGURES,
    IMAGE_RESULTS,
    PROBE_FIGURE,
    PROJECT,
    REPORT,
    RESOLVED_CONFIG,
    RESTORATIONS,
    SUMMARY,
)
from tfinpaint.report.about import about, command_line, now
from tfinpaint.report.cells import Link, columns_alike, link_to, shown
from tfinpaint.report.classifier_page import CONFUSED, MATRIX, RELIABILITY, SAMPLE
from tfinpaint.report.colours import of_start
from tfinpaint.report.figures import draw_bars, draw_label_fractions
from tfinpaint.report.html import Section, write_page
from tfinpaint.report.image_results import read_image_results
from tfinpaint.report.intervals import accuracy_interval
from tfinpaint.report.metrics_log import read_metrics
from tfinpaint.report.paired import Tested
from tfinpaint.report.parts_of_loss import like_for_like, reconstruction_figures
from tfinpaint.report.quantities import (
    SUMMARY_FIGURES,
    legend,
    mark_best_of_columns,
    summary_table,
    written,
)
from tfinpaint.report.summaries import read_summary
from tfinpaint.report.verdict import classifier_verdict, few_images_warning, restoration_verdict
from tfinpaint.system.paths import display_path, typed_path
from tfinpaint.system.wording import counted

log = logging.getLogger(__name__)

COLUMNS: Mapping[str, Sequence[str]] = {  # kind of run -> keys of its summary, most important first
    "Classifiers": (
        *("test_accuracy", "accuracy_interval", "from_scratch", "labels", "label_fraction", "test_images"),
        *("train_accuracy", "test_loss", "loss_function"),
    ),
    "Inpainting": (
        *("test_hole_psnr_db", "best_baseline_hole_psnr_db", "test_images", "train_reconstruction_loss"),
        *("test_reconstruction_loss", "total_train_loss", "pretrain_loss", "test_loss"),
        *("loss_function", "normalize_patches"),
    ),
    "Image to image": ("train_loss", "test_loss", "test_images", "loss_function"),
}
COMMON_COLUMNS = (
    "best_epoch",
    "best_test_reconstruction_loss",
    "best_test_loss",
    "epochs",
    "images_per_second",
    "world_size",
)
TITLES = {  # file of a figure -> heading above it, where the figures of a run have no sections of their own
    f"{RESTORATIONS}.png": "Restored images",
    SAMPLE: "Some test images",
    CONFUSED: "Test images that are classified wrongly",
    MATRIX: "Confusion matrix of the test images",
    RELIABILITY: "Calibration",
    "accuracy.png": "Accuracy over the epochs",
    "reconstruction_loss.png": "Reconstruction loss over the epochs",
    "loss.png": "Loss over the epochs",
    "agreement_loss.png": "Agreement of two views over the epochs",
    "rankme.png": "Effective rank of the features over the epochs",
    "hole_psnr_db.png": "PSNR in the hole over the epochs",
    "hole_ssim.png": "SSIM in the hole over the epochs",
    PROBE_FIGURE: "Accuracy of the probe over the epochs",
}
MOST_NAMED = 5  # runs, or projects, in a folder that is none
_INSIDE = {"runs": SUMMARY, "projects": PROJECT}  # what may be named in its place -> the file that it has
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
    finished = _finished(folders)
    labels = dict(zip(_labels(list(finished)), finished, strict=True))
    summaries = {label: _with_losses(folder, finished[folder]) for label, folder in labels.items()}
    compared = Comparison(comparison_tables(summaries), _sentences(summaries, labels))
    restorations = _restorations({folder: summaries[label] for label, folder in labels.items()})
    figures = [*restorations, *_charts(summaries, report)]
    sections = [Section("Result", sentences=compared.sentences, figures=figures)]
    reports = {label: link_to(folder / REPORT, report.parent, label) for label, folder in labels.items()}
    sections += [_table_section(kind, table, reports) for kind, table in compared.tables.items()]
    room = MOST_PICTURE_BYTES
    for label, folder in labels.items():
        table = _with_report(summary_table(summaries[label]), reports[label])
        pictures = _in_order(set((folder / FIGURES).glob("*.png")) - set(restorations))
        room -= sum(picture.stat().st_size for picture in pictures)
        omitted = room < 0 and bool(pictures)
        note = f"Pictures of this run are in {folder / FIGURES}. " if omitted else ""
        drawn = [] if omitted else pictures
        sections.append(Section(label, table=table, figures=drawn, note=note + legend(table), titles=TITLES))
    sections.append(about({}, finished=now(), command=command_line()))
    write_page(report, "Comparison of runs", sections)
    return compared


def _restorations(summaries: Mapping[Path, Mapping[str, Any]]) -> list[Path]:
    """Return the restored images of the one run whose pixels are measured, as photos are; [] for several or none.

    Args:
        summaries: folder of a run -> its summary.
    """
    found = {path: each for folder, each in summaries.items() if (path := _restored(folder)).is_file()}
    return [path for path, summary in found.items() if "measurements" in summary and len(found) == 1]


def _restored(folder: Path) -> Path:
    return folder / FIGURES / f"{RESTORATIONS}.png"


def _in_order(pictures: Iterable[Path]) -> list[Path]:
    """Return figures as a run's own report has them: images first."""
    order = list(TITLES)
    return sorted(pictures, key=lambda path: (order.index(path.name) if path.name in order else len(order), path.name))


def _with_report(table: list[list[Any]], report: Link | str) -> list[list[Any]]:
    """Return the table of a run with a link to its report, if there is one."""
    return [*table, ["report", report]] if isinstance(report, Link) else table


def _table_section(kind: str, table: Sequence[Sequence[Any]], reports: Mapping[str, Link | str]) -> Section:
    """Return the section of a table, with the best results on test images marked, and links to the reports."""
    keys = {SUMMARY_FIGURES[key].label: key for key in (*COLUMNS[kind], *COMMON_COLUMNS)}
    comparable = _comparable([keys.get(label, "") for label in table[0]], table[1:])
    table, same = _without_equal(table)
    head = table[0]
    names = [keys.get(label, "") for label in head]
    better = [SUMMARY_FIGURES[key].better if key in comparable else None for key in names]
    marked = columns_alike(mark_best_of_columns(table, better))[1:]
    headings = [SUMMARY_FIGURES[key].heading if key else label for key, label in zip(names, head, strict=True)]
    linked = [[reports[row[0]], *row[1:]] for row in marked]
    return Section(kind, table=[headings, *linked], note=f"{legend([headings, *linked])} {same}".strip())


def _without_equal(table: Sequence[Sequence[Any]]) -> tuple[list[list[Any]], str]:
    """Return a table of several runs without the columns that are equal in all, and a sentence with these values."""
    head, *rows = table
    same = [place for place in range(1, len(head)) if len(rows) > 1 and len({row[place] for row in rows}) == 1]
    told = ", ".join(f"{head[place]} {shown(rows[0][place])}" for place in same)
    kept = [[cell for place, cell in enumerate(row) if place not in same] for row in table]
    return kept, f"Equal in all runs: {told}." if told else ""


def _comparable(keys: Sequence[str], rows: Sequence[Sequence[Any]]) -> set[str]:
    """Return the columns whose values decide which run is better: those of test images, as far as runs are alike."""

    def differ(key: str) -> bool:
        return key in keys and len({row[keys.index(key)] for row in rows}) > 1

    if differ("test_images"):
        return set()
    found = {key for key in keys if key.startswith("test_") and key != "test_images"}
    is_other = differ("loss_function") or differ("normalize_patches")
    return found - ({"test_loss", "test_reconstruction_loss"} if is_other else set())


def comparison_tables(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, list[list[Any]]]:
    """Return a table for each kind of run: a heading row, then a row for each run, without empty columns.

    Args:
        summaries: name of a run -> its summary.
    """
    tables = {}
    for kind, own in COLUMNS.items():
        rows = {
            name: like_for_like(_with_interval(summary))
            for name, summary in summaries.items()
            if _kind(summary) == kind
        }
        columns = [
            key for key in (*own, *COMMON_COLUMNS) if any(row.get(key) not in (None, "") for row in rows.values())
        ]
        if "labels" in columns and "label_fraction" in columns:
            columns.remove("label_fraction")
        if rows:
            cells = [[name, *(_cell(key, row.get(key)) for key in columns)] for name, row in rows.items()]
            tables[kind] = [["run", *(SUMMARY_FIGURES[key].label for key in columns)], *cells]
    return tables


def _kind(summary: Mapping[str, Any]) -> str:
    if "test_accuracy" in summary or "train_accuracy" in summary:
        return "Classifiers"
    inpaints = "pretrain_loss" in summary or "test_hole_psnr_db" in summary
    return "Inpainting" if inpaints else "Image to image"


def _with_interval(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary with the interval of the test accuracy, where it is known."""
    accuracy, images = summary.get("test_accuracy"), summary.get("test_images")
    if not isinstance(images, int) or images < 1 or not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
        return dict(summary)
    low, high = accuracy_interval(round(accuracy * images), images)
    return {**summary, "accuracy_interval": f"{low:.3f} to {high:.3f}"}


def _cell(key: str, value: Any) -> Any:
    return "" if value is None else written(key, value)


def _charts(summaries: Mapping[str, Mapping[str, Any]], report: Path) -> list[Path]:
    """Draw the accuracies of the classifiers into files beside the report; return these files."""
    tested = {run: s for run, s in summaries.items() if isinstance(s.get("test_accuracy"), int | float)}
    if not tested:
        return []
    charts = [report.with_name(f"{report.stem}_accuracies.png")]
    colours = {run: of_start(s.get("from_scratch")) for run, s in tested.items()}
    draw_bars({run: s["test_accuracy"] for run, s in tested.items()}, "test accuracy", charts[0], colours)
    trained = [s for s in tested.values() if isinstance(s.get("label_fraction"), int | float)]
    if len({s["label_fraction"] for s in trained}) > 1:
        charts.append(report.with_name(f"{report.stem}_label_fractions.png"))
        draw_label_fractions(trained, charts[-1])
    return charts


def _sentences(summaries: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path]) -> list[str]:
    tested = [_tested(folders[name], summary) for name, summary in summaries.items()]
    restored = {name: restoration_verdict(summary) for name, summary in summaries.items()}
    return [
        *classifier_verdict(list(summaries.values()), tested),
        *dict.fromkeys(line for summary in summaries.values() for line in few_images_warning(summary)),
        *(f"{name}: {sentence}" for name, sentence in restored.items() if sentence),
    ]


def _tested(folder: Path, summary: Mapping[str, Any]) -> Tested:
    """Return which test images a classifier has right, or why its table of them cannot be used."""
    accuracy, images, path = summary.get("test_accuracy"), summary.get("test_images"), folder / FIGURES / IMAGE_RESULTS
    try:
        found = read_image_results(path) if images and accuracy is not None else None
    except UserError as error:
        return str(error)
    if found and (len(found.right) != images or found.right.mean() != accuracy):
        right = f"{found.right.sum():,} of {counted(len(found.right), 'image')}"
        return f"{display_path(path)} does not fit {SUMMARY}: it has {right} right"
    return found


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return the names of the folders, or their paths if two have the same name."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _finished(folders: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """Return the folders that hold a finished run, with its summary; warn of the others.

    Raises:
        UserError: There is none.
    """
    found, faults = {}, []
    for folder in folders:
        try:
            summary = read_summary(folder)
        except UserError as error:
            faults.append(str(error))
            continue
        if summary is None:
            faults.append(f"{folder}: {_why_not_finished(folder)}")
        else:
            found[folder] = summary
    if not found:
        raise UserError(faults[0])
    for fault in faults:
        log.warning(f"{fault}; it is left out")
    return found


def _why_not_finished(folder: Path) -> str:
    if not folder.is_dir():
        return "is a file; name a run folder" if folder.exists() else "no such folder; name a run folder"
    if (folder / RESOLVED_CONFIG).is_file() and not (folder / SUMMARY).exists():
        return f"this run is not finished ({SUMMARY} is missing); continue it first"
    inside = {what: sorted(found.parent for found in folder.glob(f"*/{file}")) for what, file in _INSIDE.items()}
    named = {what: ", ".join(map(typed_path, found[:MOST_NAMED])) for what, found in inside.items() if found}
    hint = "".join(f"; name {what} in it: {words}" for what, words in named.items())
    return f"holds no finished run; expected a readable {SUMMARY}{hint}"


def _with_losses(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    return {**reconstruction_figures(read_metrics(folder), summary.get("best_epoch")), **summary}
