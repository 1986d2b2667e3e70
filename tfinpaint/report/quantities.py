"""How a report names and writes the figures of a run, and whether a higher or a lower value of each is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tfinpaint.report.cells import Best
from tfinpaint.report.parts_of_loss import like_for_like
from tfinpaint.system.progress import duration
from tfinpaint.system.wording import percent

Better = Literal["higher", "lower"]
_ARROWS: Mapping[Better | None, str] = {"higher": " ↑", "lower": " ↓", None: ""}


@dataclass(frozen=True)
class Quantity:
    """A figure of a run.

    Attributes:
        label: its name for readers, with the unit.
        better: which values are better; None where that cannot be said.
        kind: type of its values.
    """

    label: str
    better: Better | None = None
    kind: type = float

    @property
    def heading(self) -> str:
        """Return the label with an arrow for the direction in which values are better."""
        return self.label + _ARROWS[self.better]


IMAGE_METRICS: Mapping[str, Quantity] = {
    "hole_l1_percent": Quantity("hole: mean L1, %", "lower"),
    "hole_l2_percent": Quantity("hole: mean L2, %", "lower"),
    "hole_psnr_db": Quantity("hole: PSNR, dB", "higher"),
    "hole_ssim": Quantity("hole: SSIM", "higher"),
    "image_l1_percent": Quantity("image: mean L1, %", "lower"),
    "image_l2_percent": Quantity("image: mean L2, %", "lower"),
    "image_psnr_db": Quantity("image: PSNR, dB", "higher"),
    "image_ssim": Quantity("image: SSIM", "higher"),
}

SUMMARY_FIGURES: Mapping[str, Quantity] = {  # key of summary.json -> figure, in the order of the report
    "test_accuracy": Quantity("test accuracy", "higher"),
    "accuracy_interval": Quantity("95 % interval", kind=str),
    "test_accuracy_interval": Quantity("95 % interval of the test accuracy", kind=list),
    "test_hole_psnr_db": Quantity("PSNR in the hole, dB", "higher"),
    "best_baseline_hole_psnr_db": Quantity("best baseline, dB"),
    "test_pixel_accuracy": Quantity("share of pixels of the right class", "higher"),
    "test_dice": Quantity("Dice coefficient", "higher"),
    "from_scratch": Quantity("started from", kind=bool),
    "labels": Quantity("labelled images", kind=int),
    "label_fraction": Quantity("share of the labels"),
    "training_images": Quantity("training images", kind=int),
    "test_images": Quantity("test images", kind=int),
    "test_mean_recall": Quantity("mean recall of the classes", "higher"),
    "test_mean_f1": Quantity("mean F1 of the classes", "higher"),
    "test_expected_calibration_error": Quantity("expected calibration error", "lower"),
    "train_accuracy": Quantity("training accuracy", "higher"),
    "train_reconstruction_loss": Quantity("training reconstruction loss", "lower"),
    "test_reconstruction_loss": Quantity("test reconstruction loss", "lower"),
    "total_train_loss": Quantity("total training loss", "lower"),
    "pretrain_loss": Quantity("training loss", "lower"),
    "train_loss": Quantity("training loss", "lower"),
    "test_loss": Quantity("test loss", "lower"),
    "loss_function": Quantity("loss function", kind=str),
    "normalize_patches": Quantity("normalised cells, pixels", kind=int),
    "validation_images": Quantity("validation images", kind=int),
    "validation_accuracy": Quantity("validation accuracy", "higher"),
    "validation_loss": Quantity("validation loss", "lower"),
    "best_checkpoint": Quantity("best checkpoint", kind=str),
    "best_by": Quantity("chosen by", kind=str),
    "best_epoch": Quantity("best epoch", kind=int),
    "best_test_reconstruction_loss": Quantity("reconstruction loss in the best epoch", "lower"),
    "best_test_loss": Quantity("test loss in the best epoch", "lower"),
    "best_validation_loss": Quantity("validation loss in the best epoch", "lower"),
    "best_probe_checkpoint": Quantity("checkpoint with the best features", kind=str),
    "best_probe_epoch": Quantity("epoch with the best features", kind=int),
    "best_probe_accuracy": Quantity("accuracy of the probe on them", "higher"),
    "random_probe_accuracy": Quantity("accuracy of the probe on a random encoder", "higher"),
    "baseline_images": Quantity("test images of the baselines", kind=int),
    "epochs": Quantity("epochs", kind=int),
    "images_per_second": Quantity("images/s", "higher"),
    "seconds": Quantity("time in epochs"),
    "world_size": Quantity("ranks", kind=int),
    "parameters": Quantity("parameters", kind=int),
    "trainable_parameters": Quantity("trained parameters", kind=int),
}
TOLD_ELSEWHERE = frozenset({"finished", "command"})  # the report has a section about them


def summary_table(summary: Mapping[str, Any]) -> list[list[Any]]:
    """Return a row for each single value of a summary; groups of values have tables of their own."""
    single = {
        name: value
        for name, value in like_for_like(summary).items()
        if value is not None and not isinstance(value, Mapping | list) and name not in TOLD_ELSEWHERE
    }
    if not summary.get("epochs", 1):  # an evaluation trains nothing
        single = {name: value for name, value in single.items() if name not in ("epochs", "seconds")}
    known = [name for name in SUMMARY_FIGURES if name in single]
    others = [name for name in single if name not in SUMMARY_FIGURES]
    rows = [[SUMMARY_FIGURES[name].heading, written(name, single[name])] for name in known]
    return [["figure", "value"], *rows, *([name.replace("_", " "), single[name]] for name in others)]


def written(name: str, value: Any) -> Any:
    """Return a value of a summary as a reader expects it, such as a duration or a percentage."""
    match name:
        case "seconds" if isinstance(value, int | float) and math.isfinite(value):
            return duration(value)
        case "label_fraction" if isinstance(value, int | float):
            return percent(value)
        case "test_accuracy_interval" if isinstance(value, tuple | list):
            return " to ".join(f"{limit:.3f}" for limit in value)
        case "from_scratch":
            return "random weights" if value else "pretraining"
    return value


def legend(table: Sequence[Sequence[Any]]) -> str:
    """Return a sentence that explains the arrows and the marks of a table; "" if it has none."""
    cells = [cell for row in table for cell in row]
    words = [
        f"{arrow.strip()} {way} is better"
        for way, arrow in _ARROWS.items()
        if arrow and any(isinstance(cell, str) and cell.endswith(arrow) for cell in cells)
    ]
    words += ["★ marks the best value"] * any(isinstance(cell, Best) for cell in cells)
    return f"{', '.join(words)}." if words else ""


def mark_best_of_rows(table: Sequence[Sequence[Any]], better: Sequence[Better | None]) -> list[list[Any]]:
    """Mark the best number of each row below the heading row; the first cell of a row is its name.

    Args:
        better: the direction of each row; None marks nothing in it.
    """
    head, *rows = table
    return [
        list(head),
        *([row[0], *_marked(row[1:], direction)] for row, direction in zip(rows, better, strict=True)),
    ]


def mark_best_of_columns(table: Sequence[Sequence[Any]], better: Sequence[Better | None]) -> list[list[Any]]:
    """Mark the best number of each column below the heading row.

    Args:
        better: the direction of each column; None marks nothing in it.
    """
    head, *rows = table
    columns = [_marked(column, way) for column, way in zip(zip(*rows, strict=True), better, strict=True)]
    return [list(head), *map(list, zip(*columns, strict=True))]


def mark_highest(table: Sequence[Sequence[Any]], first: int) -> list[list[Any]]:
    """Mark the highest number of each column from number `first` on, below the heading row."""
    better: list[Better | None] = ["higher" if place >= first else None for place in range(len(table[0]))]
    return mark_best_of_columns(table, better)


def _marked(cells: Sequence[Any], better: Better | None) -> list[Any]:
    """Return the cells, with the best of at least two different numbers marked."""
    values = [_value(cell) for cell in cells]
    numbers = [value for value in values if value is not None]
    if better is None or len(set(numbers)) < 2:
        return list(cells)
    best = max(numbers) if better == "higher" else min(numbers)
    return [Best(cell) if value == best else cell for cell, value in zip(cells, values, strict=True)]


def _value(cell: Any) -> float | None:
    """Return the number in a cell, or that before the deviation in a text such as "0.71 ± 0.02"; None for others."""
    try:
        value = float(cell.partition(" ± ")[0]) if isinstance(cell, str) else float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
