"""The sections of a pretraining's page: sentences, restored images, image metrics beside baselines, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfinpaint.layout import ANIMATION, RESTORATIONS
from tfinpaint.report.cells import decimals_alike
from tfinpaint.report.html import Section
from tfinpaint.report.parts_of_loss import RECONSTRUCTION
from tfinpaint.report.quantities import IMAGE_METRICS, legend, mark_best_of_rows
from tfinpaint.report.verdict import probe_verdict, restoration_verdict
from tfinpaint.system.wording import counted

TRAINED = (f"train_{RECONSTRUCTION}", "pretrain_loss", "train_loss")
TESTED = (f"test_{RECONSTRUCTION}", "test_loss")
NEXT = (
    "What the encoder has learnt for other tasks is shown by a classifier that begins from it: tfinpaint classify, "
    "then tfinpaint compare with one that was trained from scratch."
)


def pretraining_sections(figures: Path, summary: Mapping[str, Any], curves: Sequence[str]) -> list[Section]:
    """Return the sections, the result first.

    Args:
        figures: folder of the figures.
        summary: of the run, as in summary.json.
        curves: names of the figures with curves; those that do not exist are not shown.
    """
    pictures = [figures / f"{RESTORATIONS}.png", figures / f"{ANIMATION}.gif"]
    sentences = [each for each in (restoration_verdict(summary), probe_verdict(summary)) if each]
    following = [NEXT] if "pretrain_loss" in summary else []
    sections = [Section("Result", sentences=[*(sentences or _losses(summary)), *following])]
    sections.append(Section("Images", figures=pictures, sentences=_cells(summary)))
    if "measurements" in summary:
        sections.append(_metrics(summary))
    return [*sections, Section("Curves", figures=[figures / name for name in curves])]


def _cells(summary: Mapping[str, Any]) -> list[str]:
    """Return sentences about images whose cells were normalised; none for others."""
    size = summary.get("normalize_patches")
    if size is None:
        return []
    return [
        f"The network restores the details of each cell of {size} x {size} pixels, not its brightness and contrast "
        "(loss.normalize_patches). In the pictures, the brightness and the contrast of each cell are those of the "
        "original; image metrics are not computed for that reason, nor are classical baselines."
    ]


def _losses(summary: Mapping[str, Any]) -> list[str]:
    """Return sentences about losses and label maps, where no restorations were measured."""
    trained, tested = (_loss(summary, *names) for names in (TRAINED, TESTED))
    found, images = [], summary.get("test_images")
    on = counted(images, "test image") if images else "test images"
    if "test_dice" in summary:
        share = f"{100 * summary['test_pixel_accuracy']:.1f} % of the pixels of {on} have the right class"
        found.append(f"{share}; the mean Dice coefficient is {summary['test_dice']:.3f} of at most 1.")
    name = f"{summary.get('loss_function')} loss"
    if f"train_{RECONSTRUCTION}" in summary or f"test_{RECONSTRUCTION}" in summary:
        name = f"reconstruction loss ({summary.get('loss_function')})"
    both = f", and {trained:.4g} on the training images" if trained is not None else ""
    if tested is not None:
        found.append(f"The {name} on {on} is {tested:.4g}{both}; lower is better.{_of_flat_cells(summary)}")
    elif trained is not None:
        found.append(f"The {name} on the training images is {trained:.4g}.")
    if f"train_{RECONSTRUCTION}" in summary:
        total = _loss(summary, "pretrain_loss", "train_loss")
        found.append(
            f"The total training loss, {total:.4g}, also contains the agreement of two views of each image, which is "
            "not computed on test images."
        )
    if tested is None:
        found.append("There are no test images, so nothing shows how the network does on images that it has not seen.")
    return found


def _loss(summary: Mapping[str, Any], *names: str) -> float | None:
    """Return the first of some losses that a summary has."""
    return next((summary[name] for name in names if name in summary), None)


def _of_flat_cells(summary: Mapping[str, Any]) -> str:
    """Return what the loss of a network would be that has learnt nothing, where that is known; "" elsewhere."""
    if "normalize_patches" not in summary or summary.get("loss_function") != "MSE":
        return ""
    return " A network that has learnt nothing, and fills each cell with its mean brightness, reaches about 1."


def _metrics(summary: Mapping[str, Any]) -> Section:
    measured: Mapping[str, Mapping[str, float]] = summary["measurements"]
    shown = {name: each for name, each in IMAGE_METRICS.items() if name in measured["network"]}
    table: list[list[Any]] = [
        ["", *(name.replace("_", " ") for name in measured)],
        *([each.heading, *(values[name] for values in measured.values())] for name, each in shown.items()),
    ]
    images = f"Test images: {summary.get('test_images', 0):,} for the network, "
    images += f"{summary['baseline_images']:,} for the baselines."
    marked = mark_best_of_rows(table, [each.better for each in shown.values()])
    written = [marked[0], *([row[0], *decimals_alike(row[1:])] for row in marked[1:])]
    return Section("Image metrics", table=written, note=f"{legend(marked)} {images}")
