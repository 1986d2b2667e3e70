"""Run a sweep in its folder, continue one, or say what would run and how long it would take."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfinpaint.config.loader import dump_config
from tfinpaint.config.schema import Config
from tfinpaint.errors import StoppedError, UserError
from tfinpaint.layout import SWEEP_PLAN
from tfinpaint.runs.lock import RunLock
from tfinpaint.storage.atomic import write_json, write_text
from tfinpaint.sweeping.configurations import measured_config
from tfinpaint.sweeping.jobs import drop_finished, jobs_to_do
from tfinpaint.sweeping.page import Findings, find, write_findings
from tfinpaint.sweeping.plan import Asked, Plan, read_saved, saved_values
from tfinpaint.sweeping.processes import Job, Slot, make_slots, run_jobs, training_command
from tfinpaint.sweeping.rows import row_path
from tfinpaint.sweeping.times import known_speed, measure_speed
from tfinpaint.system.paths import display_path
from tfinpaint.system.progress import duration
from tfinpaint.system.wording import counted, percent

log = logging.getLogger(__name__)


def run_sweep(plan: Plan, asked: Asked, workers: int | None) -> Findings:
    """Run what is missing of a sweep, and write what was found.

    Args:
        asked: what the plan was made from.
        workers: number of runs at the same time; None: as many as the machine has GPUs or pairs of cores for.

    Raises:
        UserError: The folder holds something else, or a sweep with other settings; or a run has failed.
        StoppedError: The sweep was asked to stop.
    """
    check_folder(plan)
    slots = make_slots(workers)
    with RunLock() as lock:
        lock.take(plan.folder)
        lock.begin()
        write_json(plan.folder / SWEEP_PLAN, saved_values(plan, asked))
        drop_finished(plan)
        jobs = jobs_to_do(plan)
        wanted = plan.rows()
        finished = sum(row_path(plan.folder, *each).exists() for each in wanted)
        log.info(
            f"{display_path(plan.folder)}: {finished} of {len(wanted)} rows are finished; {_left(len(jobs))}, "
            f"{len(slots)} at the same time"
        )
        try:
            run_jobs(jobs, slots, _Progress(plan, jobs, len(slots)))
        except StoppedError as stopped:
            write_findings(plan, find(plan))
            raise StoppedError(
                f"The sweep has stopped; what is finished is in {display_path(plan.folder)}, and the same command "
                "continues",
                stopped.exit_code,
            ) from None
        except UserError:
            write_findings(plan, find(plan))
            raise
        found = find(plan)
        write_findings(plan, found)
    return found


class _Progress:
    """What is called at the end of each job, and logs how many are left."""

    def __init__(self, plan: Plan, jobs: Sequence[Job], workers: int) -> None:
        self._plan, self._left, self._workers, self._count = plan, list(jobs), workers, len(jobs)

    def __call__(self, job: Job) -> None:
        self._left.remove(job)
        speed = known_speed(self._plan.folder)
        seconds = speed.seconds([each.work for each in self._left]) / self._workers if speed else 0.0
        left = f", about {duration(seconds)} left" if speed and self._left else ""
        log.info(f"[{self._count - len(self._left)} of {self._count}{left}] {job.title}")


def check_folder(plan: Plan) -> None:
    """Raise UserError if the folder of a sweep holds something else, or a sweep with other settings."""
    folder, saved = plan.folder, read_saved(plan.folder)
    for images in (plan.train.root, plan.test.root):
        if folder.is_relative_to(images.resolve()):
            raise UserError(f"{folder}: lies in {images}, among the images; name another folder with --workdir")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder with --workdir")
    if not saved:
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder}: holds files, but no sweep; name another folder with --workdir")
        return
    if changed := plan.changes_since(saved):
        key, (before, now) = next(iter(changed.items()))
        more = f" (and {len(changed) - 1} more differ)" if len(changed) > 1 else ""
        raise UserError(
            f"{folder}: holds a sweep with other settings: {key} was {_short(before)}, is {_short(now)}{more}; name "
            "another folder with --workdir (shares and seeds may be added in this one)"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def dry_run(plan: Plan, workers: int | None) -> tuple[str, list[list[Any]], list[str]]:
    """Find out what would run and how long it would take; nothing is written into the folder.

    Returns:
        A title, a table with a row for each share, and sentences.

    Raises:
        UserError: As for `run_sweep`; or the steps that are run to measure the time fail.
    """
    check_folder(plan)
    slots, jobs = make_slots(workers), jobs_to_do(plan)
    speed = known_speed(plan.folder)
    how = "from the runs that are finished"
    if speed is None:
        how = "from a few steps that were run"
        log.info("Running a few steps to measure their time ...")
        speed = measure_speed(lambda run: _run_measured(plan, slots[0], run))
    table: list[list[Any]] = [["labels", "images", "to train on", "for validation", "draws", "runs left", "time"]]
    for share in dict.fromkeys(cell.share for cell in plan.cells):
        cells = [cell for cell in plan.cells if cell.share == share]
        own = [job for job in jobs if job.share == share]
        seconds = speed.seconds([job.work for job in own]) / len(slots)
        table.append([
            percent(share), cells[0].labelled, cells[0].trained, cells[0].validated, len(cells), len(own),
            duration(seconds),
        ])  # fmt: skip
    total = duration(speed.seconds([job.work for job in jobs]) / len(slots))
    rows = plan.rows()
    finished = sum(row_path(plan.folder, *each).exists() for each in rows)
    at_once = f"{len(slots)} runs at the same time" if len(slots) > 1 else "one run at a time"
    sentences = [
        f"{_left(len(jobs))} for {len(rows) - finished} of {len(rows)} rows: about {total} with {at_once} "
        f"({how}: {_rounded(1 / speed.image)} images/s, and {speed.start:.0f} s for each start); early stopping is not "
        "counted.",
        f"Each fine-tuning has {plan.steps_of('fine_tuned'):,} steps, with "
        f"{counted(len(plan.grids['fine_tuned']), 'setting')}; "
        f"each training from scratch {plan.steps_of('from_scratch'):,} steps, with "
        f"{counted(len(plan.grids['from_scratch']), 'setting')}. Fewer --shares, --seeds, --steps or --scratch-rates "
        "take less time.",
        "A draw is one choice of the labelled images, with a seed of its own; a row is the result of one method in one "
        "draw, for which each of its settings is tried in a run.",
        f"All rows are measured on the same {counted(len(plan.test), 'test image')}, whose number limits what can be "
        "distinguished.",
        f"Nothing was written to {display_path(plan.folder)}.",
    ]
    return "What would run", table, sentences


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _run_measured(plan: Plan, slot: Slot, run: Path) -> None:
    """Train a few steps. Raises UserError if that fails."""
    config: Config = measured_config(plan, run)
    file = run.with_name("measured.yaml")
    write_text(file, dump_config(config))
    job = Job(
        "measuring the time of a few steps", lambda: training_command("classify", file),
        lambda _: (run / "summary.json").exists(), run.with_name("log"), 0.0,
    )  # fmt: skip
    run_jobs([job], [slot], lambda _: None)


def _left(runs: int) -> str:
    return f"{counted(runs, 'run')} {'is' if runs == 1 else 'are'} left"
