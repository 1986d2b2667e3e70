"""Choose the classifier of a project that tells about new photos: the one that was right more often."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.errors import UserError
from tfinpaint.layout import PROJECT
from tfinpaint.project.files import read_project
from tfinpaint.project.stages import Training, run_first, trainings
from tfinpaint.system.paths import display_path

log = logging.getLogger(__name__)


def better_classifier(classifiers: Sequence[Training]) -> tuple[Training, str] | None:
    """Return the classifier that was right on more test images, and a sentence that says so, or "".

    A classifier that has lost its weights is passed over. The first one is preferred where nothing tells them apart.

    Args:
        classifiers: those of a project; the first is the pretrained one.

    Returns:
        None if no classifier is finished and has its weights.
    """
    usable = [each for each in classifiers if each.summary() is not None and not each.what_is_lost()]
    if not usable:
        return None
    right = {each.name: each.right() for each in usable}
    counts = [found for found in right.values() if found]
    if len(counts) < 2 or len({images for _, images in counts}) > 1:
        return usable[0], ""
    best = max(usable, key=lambda each: (right[each.name] or (0, 0))[0])
    others = [f"{each.name} on {(right[each.name] or (0, 0))[0]:,}" for each in usable if each is not best]
    number, images = right[best.name] or (0, 0)
    if all(count == number for count, _ in counts):
        return best, f"both classifiers were right on {number:,} of {images:,} test images"
    return best, f"{best.name} was right on {number:,} of {images:,} test images, {' and '.join(others)}"


def predicting_run(path: Path) -> Path:
    """Return the run that tells about photos: of a project its better classifier, or its inpainter without classes.

    Any other path stands for itself.

    Raises:
        UserError: It is a project, and this run has no checkpoint yet, or has lost its checkpoints.
    """
    if not (path / PROJECT).is_file():
        return path
    first, *others = trainings(path, read_project(path))
    chosen = better_classifier(others)
    if chosen and chosen[1]:
        log.info(f"{display_path(path)}: {chosen[1]}; using {chosen[0].name}")
    training = chosen[0] if chosen else [first, *others][min(1, len(others))]
    if training.has_checkpoints():
        return training.run
    if training.summary() is not None:
        raise UserError(training.what_is_lost())
    raise UserError(f"{path}: {training.name} has no checkpoint yet; {run_first(path)}")
