"""Say in plain words what came out of a project, what to open and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.layout import (
    CLASSIFY_CONFIG,
    CLASSIFY_RUN,
    COMPARISON,
    PRETRAIN_RUN,
    REPORT,
    SCRATCH_RUN,
    SUMMARY,
)
from tfinpaint.project.files import Project
from tfinpaint.report.intervals import accuracy_interval
from tfinpaint.storage.safe_json import read_json
from tfinpaint.sweeping.plan import SCRATCH_STEPS
from tfinpaint.system.paths import display_path


def conclude(folder: Path, project: Project, sentences: Sequence[str]) -> list[str]:
    """Return the result of a project whose stages are finished, in lines for the terminal.

    Args:
        sentences: about the compared runs, as `write_comparison` returns them; () without classes.
    """
    place = shlex.quote(display_path(folder))
    if not project.has_classes:
        return [
            "",
            "The encoder is pretrained. Without class folders nothing tells how good its features are.",
            "",
            "Open in a browser:",
            f"  {place}/{PRETRAIN_RUN}/{REPORT}    curves",
            "Next:",
            f"  tfinpaint features {place}/{PRETRAIN_RUN} {shlex.quote(_shown(project.images))} --output features.npz",
            "      the features of all images, for other programs",
        ]
    return [
        "",
        *sentences,
        *_how_sure(folder),
        "",
        "Open in a browser:",
        f"  {place}/{COMPARISON}    all runs side by side",
        f"  {place}/{CLASSIFY_RUN}/{REPORT}    the classifier: each class, and images that it got wrong",
        "Next:",
        f"  tfinpaint predict {place}/{CLASSIFY_RUN} PHOTO    the class of a new photo",
        f"  tfinpaint sweep --config {place}/{CLASSIFY_CONFIG} --workdir {place}/sweep --dry-run",
        "      how long a sure answer takes: several seeds, shares of the labels, and learning rates",
    ]


def _shown(images: str) -> str:
    return display_path(Path(images)) if Path(images).is_absolute() else images


def _how_sure(folder: Path) -> list[str]:
    """Return sentences about what the comparison of two single runs can tell."""
    ours, theirs = (_interval(folder / name) for name in (CLASSIFY_RUN, SCRATCH_RUN))
    lines = []
    if ours and theirs:
        lines.append(f"The 95 % interval of the accuracy is {ours} with pretraining and {theirs} from scratch.")
    lines.append(
        f"This is one seed: each classifier was trained once, the one from scratch with {SCRATCH_STEPS} times the "
        "steps and without tuning. Another seed changes either accuracy by a few points."
    )
    return lines


def _interval(run: Path) -> str:
    """Return the interval of a run's test accuracy in words; "" where the accuracy is not known."""
    summary = read_json(run / SUMMARY)
    found = summary if isinstance(summary, dict) else {}
    accuracy, images = found.get("test_accuracy"), found.get("test_images")
    if not isinstance(accuracy, int | float) or not isinstance(images, int) or images < 1 or not 0 <= accuracy <= 1:
        return ""
    low, high = accuracy_interval(round(accuracy * images), images)
    return f"{low:.2f} to {high:.2f}"
