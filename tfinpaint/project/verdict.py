"""Say in plain words what came out of a project, what to open and what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfinpaint.layout import CLASSIFY_CONFIG, CLASSIFY_RUN, COMPARISON, PRETRAIN_RUN, REPORT
from tfinpaint.project.choice import better_classifier
from tfinpaint.project.files import Project
from tfinpaint.project.images import how_to_add
from tfinpaint.project.stages import Training, trainings
from tfinpaint.report.intervals import accuracy_interval
from tfinpaint.report.verdict import few_images_warning
from tfinpaint.sweeping.plan import SCRATCH_STEPS
from tfinpaint.system.paths import display_path, typed_path


def conclude(folder: Path, project: Project, sentences: Sequence[str]) -> list[str]:
    """Return the result of a project whose stages are finished, in lines for the terminal.

    Args:
        sentences: about the compared runs, as `write_comparison` returns them; () without classes.
    """
    if not project.has_classes:
        return [
            "",
            "The encoder is pretrained. Without class folders nothing tells how good its features are.",
            "",
            "Open in a browser:",
            f"  {display_path(folder / PRETRAIN_RUN / REPORT)}    curves",
            "Next:",
            f"  tfinpaint features {typed_path(folder / PRETRAIN_RUN)} {typed_path(Path(project.images))} "
            "--output features.npz",
            "      the features of all images, for other programs",
        ]
    classifiers = trainings(folder, project)[1:]
    return [
        "",
        *sentences,
        *([how_to_add(folder, project)] if any(map(_lacks_images, classifiers)) else []),
        *_how_sure(classifiers),
        "",
        "Open in a browser:",
        f"  {display_path(folder / COMPARISON)}    all runs side by side",
        f"  {display_path(folder / CLASSIFY_RUN / REPORT)}    the classifier: each class, and images that it got wrong",
        "Next:",
        *_predicting(classifiers),
        f"  tfinpaint sweep --config {typed_path(folder / CLASSIFY_CONFIG)} "
        f"--workdir {typed_path(folder / 'sweep')} --dry-run",
        "      how long a surer answer takes: several seeds, shares of the labels and learning rates; the test images,",
        "      whose number limits what can be distinguished, are the same",
    ]


def _lacks_images(classifier: Training) -> bool:
    return bool(few_images_warning(classifier.summary() or {}))


def _predicting(classifiers: Sequence[Training]) -> list[str]:
    """Return the command for new photos, with the reason for its classifier; [] if none has its weights."""
    chosen = better_classifier(classifiers)
    if chosen is None:
        return []
    training, reason = chosen
    lines = [f"  tfinpaint predict {typed_path(training.run)} PHOTO    the class of a new photo"]
    return [*lines, f"      {reason}"] if reason else lines


def _how_sure(classifiers: Sequence[Training]) -> list[str]:
    """Return sentences about what the comparison of two single runs can tell."""
    ours, theirs = map(_interval, classifiers)
    lines = []
    if ours and theirs:
        lines.append(f"The 95 % interval of the accuracy is {ours} with pretraining and {theirs} from scratch.")
    lines.append(
        f"This is one seed: each classifier was trained once, the one from scratch with {SCRATCH_STEPS} times the "
        "steps and without tuning. Another seed changes either accuracy by a few points."
    )
    return lines


def _interval(classifier: Training) -> str:
    """Return the interval of a classifier's test accuracy in words; "" where the accuracy is not known."""
    found = classifier.right()
    if not found:
        return ""
    low, high = accuracy_interval(*found)
    return f"{low:.2f} to {high:.2f}"
