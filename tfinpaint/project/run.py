"""Run the stages of a project that are left to do, one after the other, and say what came out of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.cli.options import saved_so_far
from tfinpaint.data.ingest.copy import prepare
from tfinpaint.data.ingest.source import DIGITS
from tfinpaint.data.ingest.summary import few_images_warning
from tfinpaint.errors import UserError
from tfinpaint.layout import CLASSIFY_CONFIG, COMPARISON, PREPARED, PRETRAIN_CONFIG, PROJECT
from tfinpaint.project.files import Project, read_project
from tfinpaint.project.images import check_same_images, how_to_add, other_classes, what_has_changed
from tfinpaint.project.stages import Training, trainings
from tfinpaint.project.verdict import conclude
from tfinpaint.runs.lock import RunLock, is_locked
from tfinpaint.sweeping.processes import continued_by, run_training
from tfinpaint.system.paths import display_path, shorten_paths, typed_path

log = logging.getLogger(__name__)


def run_project(folder: Path, ranks: int = 1) -> list[str]:
    """Run what is left of a project.

    Args:
        folder: as `write_project` has made it.
        ranks: number of processes that train as one.

    Returns:
        What came out, in lines for the terminal.

    Raises:
        UserError: The folder holds no project, a configuration cannot be used, or a stage has failed.
        StoppedError, SystemExit: A stage was asked to stop; it has said how to continue, or the error says it.
    """
    project = read_project(folder)
    _check_files(folder, project)
    again = f"tfinpaint run {typed_path(folder)}{f' --ranks {ranks}' if ranks > 1 else ''}"
    with RunLock() as lock, continued_by(again):
        try:
            lock.take(folder)
        except UserError:
            raise UserError(f"{folder}: `tfinpaint run` is at work there; wait until it has ended") from None
        lock.begin()
        return _run_stages(folder, project, ranks)


def _check_files(folder: Path, project: Project) -> None:
    names = (PRETRAIN_CONFIG, CLASSIFY_CONFIG) if project.has_classes else (PRETRAIN_CONFIG,)
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: is missing; restore it, or make a new project with: tfinpaint init")


def _run_stages(folder: Path, project: Project, ranks: int) -> list[str]:
    runs = trainings(folder, project)
    count = len(runs) + 2 * project.has_classes
    if project.has_classes:
        _prepare(folder, project, count)
    check_same_images(folder, project, runs)
    for training in runs:  # before the first of them takes hours
        training.check(ranks)
        if is_locked(training.run):
            raise UserError(
                f"{training.run}: another process is training there; wait until it has ended, then type: "
                f"tfinpaint run {typed_path(folder)}"
            )
        if not training.is_finished() and not training.has_checkpoints():
            _require_encoder(training, runs)
    for number, training in enumerate(runs, 1 + project.has_classes):
        _train(training, f"[{number} of {count}] {training.title}", ranks)
    if not project.has_classes:
        return conclude(folder, project, ())
    log.info(f"\n[{count} of {count}] Compare: both classifiers on the test images, which no training has seen")
    from tfinpaint.report.comparison import write_comparison  # loads matplotlib

    try:
        compared = write_comparison([training.run for training in runs], folder / COMPARISON)
    except OSError as error:
        raise UserError(f"{folder / COMPARISON}: cannot be written: {error.strerror}") from None
    return conclude(folder, project, compared.sentences)


def _require_encoder(training: Training, runs: Sequence[Training]) -> None:
    """Raise UserError where a training that is left to do begins from a finished run that has lost its weights."""
    source = next((each for each in runs if each.name == training.begins_from), None)
    if source and source.is_finished() and (lost := source.what_is_lost()):
        raise UserError(f"{training.title} begins with the weights of {source.title}, which are lost: {lost}")


def _prepare(folder: Path, project: Project, count: int) -> None:
    """Divide the images into those to train on and those to test on, unless that was done before."""
    head, dest = f"[1 of {count}] Prepare", folder / PREPARED
    if dest.is_dir() and any(dest.iterdir()):
        log.info(f"{head}: done before, in {display_path(dest)}")
        for line in filter(None, (other_classes(folder, project), what_has_changed(folder, project))):
            log.warning(f"  {line}")
        return
    log.info(f"{head}: the images are copied; {100 * project.test_fraction:.0f} % of each class are kept for the test")
    source = Path(project.images)
    if not source.exists() and project.images != DIGITS:
        raise UserError(
            f"{source}: no such folder or archive, and {display_path(folder / PROJECT)} names it as the place of the "
            "images; bring it back, or make a new project of the images where they are now: tfinpaint init IMAGES"
        )
    report = prepare(source, dest, test_fraction=project.test_fraction, skip_empty_classes=project.skip_empty_classes)
    few = [how_to_add(folder, project)] if few_images_warning(report.counts) else []
    for line in [*report.lines(), *few, *filter(None, [other_classes(folder, project)])]:
        log.info(f"  {shorten_paths(line)}")


def _train(training: Training, head: str, ranks: int) -> None:
    """Begin or continue a training in a process of its own, unless it is finished."""
    if training.is_finished():
        log.info(f"\n{head}: done before, in {display_path(training.run)}")
        if lost := training.what_is_lost():
            log.warning(f"  Its results are there, but its weights are lost: {shorten_paths(lost)}")
        return
    log.info(f"\n{head}: {training.purpose}")
    run_training(
        training.title, training.command(ranks), ranks, lambda: training.summary() is not None,
        lambda: saved_so_far(training.task, training.config()),
    )  # fmt: skip
