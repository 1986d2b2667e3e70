"""Tell whether the images of a project are still those that it was prepared from and that its trainings began with."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.data.ingest.changes import changes_since
from tfinpaint.data.ingest.split import SIDES
from tfinpaint.data.records.reader import is_records
from tfinpaint.errors import UserError
from tfinpaint.layout import PREPARED
from tfinpaint.project.files import Project
from tfinpaint.project.stages import Training
from tfinpaint.runs.known_images import other_images
from tfinpaint.system.paths import display_path, typed_path
from tfinpaint.system.wording import counted

log = logging.getLogger(__name__)

MOST_NAMED = 12  # classes


def another_project(folder: Path, project: Project) -> str:
    """Return the command that makes another project of the same images."""
    names = (folder.with_name(f"{folder.resolve().name}_{number}") for number in itertools.count(2))
    free = next(path for path in names if not path.exists())
    return f"tfinpaint init {typed_path(Path(project.images))} {typed_path(free)}"


def how_to_add(folder: Path, project: Project) -> str:
    """Return how to train with more images, where some are missing."""
    return (
        f"To add images: put them into {display_path(Path(project.images))}, and make another project, because this "
        f"one keeps to those that it has: {another_project(folder, project)}"
    )


def other_classes(folder: Path, project: Project) -> str:
    """Return which classes that `init` has found were not prepared, and which others were; "" for none, or unknown."""
    training = folder / PREPARED / SIDES[0]
    if not project.classes or not training.is_dir() or is_records(training):
        return ""
    there = {each.name for each in training.iterdir() if each.is_dir()}
    gone, new = sorted(set(project.classes) - there), sorted(there - set(project.classes))
    differences = [f"{_some(names)} {_is(len(names))} {how}" for names, how in ((gone, "gone"), (new, "new")) if names]
    if not differences:
        return ""
    found = counted(len(project.classes), "class", "classes")
    return (
        f"`tfinpaint init` found {found}; {' and '.join(differences)}: this project trains on {len(there)}; to change "
        f"that, make the folders in {display_path(Path(project.images))} what they should be, and make another "
        f"project: {another_project(folder, project)}"
    )


def _some(parts: Sequence[str]) -> str:
    """Return the first few parts, one of each class, as a text."""
    more = [f"{len(parts) - MOST_NAMED} more classes"] if len(parts) > MOST_NAMED else []
    return ", ".join([*parts[:MOST_NAMED], *more])


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def what_has_changed(folder: Path, project: Project) -> str:
    """Return how the prepared images of a project differ from its source; "" for not at all, or where that is gone.

    Whether an image was added to the source or removed from those that were prepared cannot be told.
    """
    source = Path(project.images)
    if not source.exists():
        return ""
    name = display_path(source)
    try:
        changes = changes_since(source, folder / PREPARED)
    except UserError as error:
        return f"{name} has changed since it was prepared, which this project does not use: {error}"
    if not changes:
        return ""
    classes = [f"{name} {number}" for name, number in sorted(changes.lacking.items())]
    lacking = sum(changes.lacking.values())
    differences = [
        *([f"lacks {counted(lacking, 'image')} of {name} ({_some(classes)})"] if lacking else []),
        *([f"has {changes.more:,} that {_is(changes.more)} not there"] if changes.more else []),
        *([f"has {changes.changed:,} of another size"] if changes.changed else []),
    ]
    return (
        f"{display_path(folder / PREPARED)} {', '.join(differences)}: this project keeps to what it has; to use the "
        f"images of {name} as they are now, make another one: {another_project(folder, project)}"
    )


def check_same_images(folder: Path, project: Project, runs: Sequence[Training]) -> None:
    """Refuse images that are not those that the trainings of a project began with.

    The images of a project without classes are used where they are, and are expected to become more: a finished
    training then has a warning.

    Raises:
        UserError: The message says which folders to remove.
    """
    begun = [each for each in runs if each.summary() is not None or each.has_checkpoints()]
    others = {each: reason for each in begun if (reason := other_images(each.run, each.config()))}
    if not others:
        return
    first, reason = next(iter(others.items()))
    removed = " and ".join(typed_path(each.run) for each in others)
    if not project.has_classes and first.summary() is not None:
        log.warning(
            f"{display_path(Path(project.images))}: {first.name} was trained on other images: {reason}; to use these, "
            f"make another project: {another_project(folder, project)}"
        )
        return
    data = folder / PREPARED if project.has_classes else Path(project.images)
    seen = "; images that are for testing now may have been trained on" if project.has_classes else ""
    raise UserError(
        f"{display_path(first.run)}: began with other images than those in {display_path(data)}: {reason}{seen}; bring "
        f"the former images back, or remove {removed} to train again"
    )
