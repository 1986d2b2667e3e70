"""The jobs of a sweep that are left to do: frozen rows, trainings of the grids, and a test of each chosen one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tfinpaint.config.loader import dump_config
from tfinpaint.config.schema import Config
from tfinpaint.errors import UserError
from tfinpaint.layout import CHECKPOINTS, METRICS_LOG, SUMMARY
from tfinpaint.storage.atomic import write_text
from tfinpaint.sweeping.configurations import PREDICTIONS, test_config, training_config
from tfinpaint.sweeping.frozen import missing_rows
from tfinpaint.sweeping.plan import METHODS, TRAINED, Cell, Method, Plan, Setting
from tfinpaint.sweeping.processes import Job, read_end, training_command
from tfinpaint.sweeping.rows import (
    Row,
    Trained,
    at_edge,
    choose,
    read_predictions,
    read_training,
    row_path,
    write_row,
)
from tfinpaint.sweeping.times import add_time
from tfinpaint.system.wording import percent

FROZEN_ENCODERS = 7  # the pretrained one, and three random ones with two kinds of batch-norm statistics
NOT_FINITE = "not finite (inf or nan)"  # in the message with which `classify` ends
FORWARD = 1 / 3  # of the work of a training step, for each image


@dataclass(frozen=True)
class Group:
    """All trainings of one method with one draw of the labels, and the test of the chosen one."""

    plan: Plan
    cell: Cell
    method: Method

    @property
    def folder(self) -> Path:
        """The folder of the runs."""
        return self.plan.folder / self.cell.name / self.method

    @property
    def title(self) -> str:
        """A name for messages."""
        return f"{percent(self.cell.share)} of the labels, draw {self.cell.number + 1}, {METHODS[self.method]}"

    @property
    def grid(self) -> Sequence[Setting]:
        """The settings to try."""
        return self.plan.grids[self.method]

    @property
    def row(self) -> Path:
        """The file of the final row."""
        return row_path(self.plan.folder, self.cell, self.method)

    def run(self, setting: Setting) -> Path:
        """Return the run folder of a training."""
        return self.folder / setting.name

    def log(self, setting: Setting) -> Path:
        """Return the file with the output of a training."""
        return self.folder / f"{setting.name}.log"

    def config(self, setting: Setting) -> Config:
        """Return the configuration of a training."""
        return training_config(self.plan, self.cell, self.method, setting, self.run(setting))

    def is_over(self, setting: Setting) -> bool:
        """Return whether a training has ended, well or with values that were not finite."""
        run = self.run(setting)
        return read_training(run, setting) is not None or _has_diverged(run, self.log(setting))

    def chosen(self) -> Trained:
        """Return the training that the validation images choose.

        Raises:
            UserError: Values were not finite in all of them.
        """
        found = [each for setting in self.grid if (each := read_training(self.run(setting), setting))]
        if not found:
            raise UserError(f"{self.title}: values were not finite in any of its trainings; try lower learning rates")
        return choose(found)


def training_work(plan: Plan, cell: Cell, method: Method) -> float:
    """Return the work of a training: the images of its steps, and the evaluations of the validation images."""
    batch = min(plan.config.data.batch_size, cell.trained)
    return plan.steps_of(method) * batch + FORWARD * plan.epochs * cell.validated


def frozen_work(plan: Plan) -> float:
    """Return the work of all features."""
    return FORWARD * FROZEN_ENCODERS * (len(plan.train) + len(plan.test))


def jobs_to_do(plan: Plan) -> list[Job]:
    """Return the jobs of a plan whose results are missing; each begins where it was stopped."""
    jobs = list[Job]()
    if missing_rows(plan):
        command = (sys.executable, "-m", "tfinpaint.sweeping.frozen", str(plan.folder))
        jobs.append(
            Job(
                "frozen encoders", lambda: command, lambda _: not missing_rows(plan), plan.folder / "frozen.log",
                frozen_work(plan),
            )
        )  # fmt: skip
    for cell in plan.cells:
        for method in TRAINED:
            group = Group(plan, cell, method)
            if not group.row.exists():
                jobs.extend(_group_jobs(group))
    return jobs


def drop_finished(plan: Plan) -> None:
    """Delete the checkpoints of finished rows, if the sweep was stopped before it could."""
    groups = (Group(plan, cell, method) for cell in plan.cells for method in TRAINED)
    for group in groups:
        if group.row.exists():
            _drop_checkpoints(group)


def _group_jobs(group: Group) -> list[Job]:
    work = training_work(group.plan, group.cell, group.method)
    trainings = [
        Job(
            f"{group.title}, learning rate {setting.learning_rate:g}, weight decay {setting.weight_decay:g}",
            partial(_begin, group.config(setting), group.folder / f"{setting.name}.yaml"),
            partial(_end_training, group, setting, work), group.log(setting), work,
            group.cell.share,
        )
        for setting in group.grid
        if not group.is_over(setting)
    ]  # fmt: skip
    test = Job(
        f"{group.title}, test", partial(_begin_test, group), partial(_end_test, group), group.folder / "test.log",
        FORWARD * len(group.plan.test), group.cell.share, trainings,
    )  # fmt: skip
    return [*trainings, test]


def _begin(config: Config, file: Path) -> Sequence[str]:
    write_text(file, dump_config(config))
    return training_command("classify", file, "--resume")


def _end_training(group: Group, setting: Setting, work: float, seconds: float) -> bool:
    run = group.run(setting)
    if read_training(run, setting) is not None:
        add_time(group.plan.folder, work, seconds, run / METRICS_LOG)
        return True
    return _has_diverged(run, group.log(setting))


def _begin_test(group: Group) -> Sequence[str]:
    folder = group.folder / "test"
    if folder.exists():  # the test was stopped; it has no checkpoints to continue from
        shutil.rmtree(folder)
    file = group.folder / "test.yaml"
    write_text(file, dump_config(test_config(group.plan, group.config(group.chosen().setting), folder)))
    return training_command("classify", file)


def _end_test(group: Group, seconds: float) -> bool:
    """Write the final row, after which the checkpoints of its trainings are not needed any more."""
    folder, plan, cell = group.folder / "test", group.plan, group.cell
    if not (folder / SUMMARY).exists():
        return False
    chosen = group.chosen()
    predicted = read_predictions(folder / PREDICTIONS, plan.test)
    settings: dict[str, float | str] = {
        "learning_rate": chosen.setting.learning_rate,
        "weight_decay": chosen.setting.weight_decay,
        "epoch": chosen.epoch,
    }
    row = Row(
        cell.share, cell.number, cell.seed, cell.labelled, group.method, settings,
        at_edge(chosen.setting, group.grid), chosen.accuracy, float(np.mean(predicted == plan.test.labels)),
        tuple(predicted.tolist()),
    )  # fmt: skip
    write_row(group.row, row)
    _drop_checkpoints(group)
    return True


def _drop_checkpoints(group: Group) -> None:
    for setting in group.grid:
        shutil.rmtree(group.run(setting) / CHECKPOINTS, ignore_errors=True)


def _has_diverged(run: Path, log: Path) -> bool:
    """Return whether a training has ended because values were not finite, as the end of its log says."""
    return not (run / SUMMARY).exists() and NOT_FINITE in read_end(log)
