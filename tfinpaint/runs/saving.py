"""When a run is saved, and when it stops.

What has to be the same moment on all ranks, and in all variables, is copied between two steps; a thread writes the
files while training continues.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import keras
import numpy as np

from tfinpaint.checkpoint.async_writer import AsyncWriter
from tfinpaint.checkpoint.find import list_checkpoints
from tfinpaint.checkpoint.header import RankState, SavedProgress
from tfinpaint.checkpoint.store import TrainingState
from tfinpaint.cli.command import EXIT_INTERRUPTED
from tfinpaint.cli.options import resume_command
from tfinpaint.config.diff import as_values
from tfinpaint.distributed import rendezvous
from tfinpaint.distributed.failures import HostsChangedError
from tfinpaint.distributed.world import World
from tfinpaint.errors import StoppedError, UserError
from tfinpaint.report.metrics_log import MetricsLog
from tfinpaint.runs.build import describe_model, encoder_of
from tfinpaint.runs.data import DataSet
from tfinpaint.runs.early_stopping import VALIDATION, EarlyStopping
from tfinpaint.runs.online_probe import BestProbe
from tfinpaint.runs.run import Run
from tfinpaint.runs.signals import StopRequest
from tfinpaint.runs.trainer import training_state
from tfinpaint.storage.disk_space import find_shortage
from tfinpaint.system.paths import display_path
from tfinpaint.train.rank_state import rank_state, rank_state_names
from tfinpaint.train.step import ControlFlags
from tfinpaint.train.totals import SUM_PARTS, EpochResult, PartialEpoch, empty_epoch

if TYPE_CHECKING:
    from tfinpaint.runs.session import Session

log = logging.getLogger(__name__)

MOST_STATISTICS_BYTES = 64 * 2**20  # of the batch norms of all ranks; where they have more, those of rank 0 are saved


class Saver:
    """Saves a run between steps and after epochs, on every rank; rank 0 writes."""

    def __init__(
        self,
        session: Session,
        data: DataSet,
        metrics: MetricsLog,
        stop: StopRequest,
        stopping: EarlyStopping | None = None,
    ) -> None:
        """
        Args:
            data: the training images.
            metrics: the metrics of the run so far.
            stopping: the losses on validation images; None without these.
        """
        run, trainer = session.run, session.trainer
        self._run, self._trainer, self._world, self._data = run, trainer, trainer.world, data
        self._digest = data.digest  # a second for a million images
        self._metrics, self._stop, self._transferred = metrics, stop, session.transferred
        self._stopping = stopping
        self._header = describe_model(run, steps=session.steps, classes=session.classes)
        self._steps = session.steps
        self._saved = run.first_step(self._steps)  # the step that the newest checkpoint holds
        self._began = time.monotonic()  # of the time to the next one
        self._best = run.resumed.progress.best_epoch if run.resumed else None
        self._best_probe = BestProbe.before(run)
        self._writer = None
        if self._world.is_rank0:
            live = training_state(run, trainer)
            self._writer = AsyncWriter(live, self._copy)
            _warn_of_shortage(run, live)

    def _copy(self, live: TrainingState) -> TrainingState:
        """Return the same models with weights of their own, in the host's memory."""
        with keras.device("cpu"):
            model = keras.models.clone_model(live.model)
            companions = {
                name: replace(companion, model=keras.models.clone_model(companion.model))
                for name, companion in live.companions.items()
            }
        return replace(live, model=model, encoder=encoder_of(self._run, model), companions=companions)

    def ask(self) -> ControlFlags:
        """Return what this rank wants before the next step.

        Raises:
            UserError: the newest checkpoint could not be written.
        """
        if self._writer:
            self._writer.raise_failure()
        minutes, world = self._run.config.checkpoints.interval_minutes, self._world
        overdue = minutes is not None and time.monotonic() - self._began > 60 * minutes
        return ControlFlags(save=overdue and world.is_rank0, stop=bool(self._stop.name), rejoin=world.hosts_changed())

    def between_steps(self, epoch: int, step: int, flags: ControlFlags, so_far: Callable[[], PartialEpoch]) -> None:
        """Save where that is due after `step` steps of `epoch`.

        Raises:
            StoppedError, HostsChangedError: as `end_run_if_asked`, after saving.
        """
        every, done = self._run.config.checkpoints.interval_steps, (epoch - 1) * self._steps + step
        if any(flags) or (every and done % every == 0):
            self._trainer.check_replicas_equal(within_epoch=True)
            self._save(epoch - 1, done, so_far())
        self._end(flags, f"in epoch {epoch}, after step {step}")

    def epoch_end(self, epoch: int, train: EpochResult, test: EpochResult | None) -> None:
        """Save where that is due after an epoch and its evaluation.

        Raises:
            StoppedError, HostsChangedError: as `end_run_if_asked`, after saving.
        """
        config = self._run.config
        last, flags = epoch == config.num_epochs, ControlFlags()
        best = False
        if self._stopping:
            last, best = last or self._stopping.is_over(), epoch == self._stopping.best
        best |= self._best_probe.is_new(epoch, train)
        if not last:
            flags = ControlFlags(*np.any(self._world.all_gather(list(self.ask())), axis=0).tolist())
        if last or best or any(flags) or epoch % config.checkpoints.interval == 0:
            self._trainer.check_replicas_equal()
            phase = VALIDATION if self._stopping else "test"
            losses = {r["epoch"]: r["loss"] for r in self._metrics.records if r["phase"] == phase}
            if epoch in losses and losses[epoch] < losses.get(self._best, float("inf")):
                self._best = epoch
            self._save(epoch, epoch * self._steps, empty_epoch())
        self._end(flags, f"after epoch {epoch}")

    def finish(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            UserError: it could not be written.
        """
        if self._writer:
            self._writer.wait()

    def close(self) -> None:
        """Let a checkpoint that is being written become complete, whatever has happened to training."""
        with contextlib.suppress(UserError):  # reported already, or training has ended for a reason of its own
            self.finish()

    def _end(self, flags: ControlFlags, where: str) -> None:
        if flags.stop or flags.rejoin:
            self.finish()
            end_run_if_asked(flags, where, self._run, self._world, self._stop)

    def _keeps_statistics(self) -> bool:
        """Return whether the batch-norm statistics of each rank are part of a checkpoint within an epoch.

        They are not needed where they are recalibrated at the end of the epoch, nor where all ranks have the same.
        """
        config = self._run.config
        if config.model.batchnorm_batches or config.distributed.sync_batchnorm:
            return False
        return self._world.size * rank_state(self._trainer.model, statistics=True).nbytes <= MOST_STATISTICS_BYTES

    def _save(self, epochs: int, step: int, so_far: PartialEpoch) -> None:
        checkpoints, world, model = self._run.config.checkpoints, self._world, self._trainer.model
        within_epoch = epochs * self._steps != step
        if checkpoints.save is None or (step == self._saved and within_epoch):
            return
        statistics = within_epoch and self._keeps_statistics()
        own = world.all_gather_rows(rank_state(model, statistics=statistics))
        counts = world.all_gather_rows(np.array([so_far.images])).astype(np.int64)
        state = RankState(own, world.all_gather_rows(so_far.sums), counts)
        self._saved, self._began = step, time.monotonic()
        if self._writer:
            check = self._data.check
            progress = SavedProgress(
                records=tuple(self._metrics.records), config=as_values(self._run.config),
                best_epoch=self._best, best_probe_epoch=self._best_probe.epoch,
                data=self._digest, images=len(self._data),
                listed=check.listed if check else "", left_out=check.excluded if check else (),
                names=so_far.names, seconds=so_far.seconds, ranks=world.size,
                own=own.shape[1], own_names=rank_state_names(model, statistics=statistics),
                sum_parts=SUM_PARTS, trained=self._trainer.trained(), transferred=self._transferred,
            )  # fmt: skip
            header = self._header.model_copy(update={"epoch": epochs, "step": step})
            self._trainer.use_averages(True)
            self._writer.write(checkpoints.save, header, progress, state, checkpoints.keep)  # copies all at once
            self._trainer.use_averages(not within_epoch)
        world.wait_for_ranks()  # rank 0 may have waited for the disk


def end_run_if_asked(flags: ControlFlags, where: str, run: Run, world: World, stop: StopRequest) -> None:
    """End the run after it was saved, on all ranks, where one of them has asked for it.

    Raises:
        HostsChangedError: the run continues with other ranks. A rank of an elastic run that was asked to stop alone
            ends instead, by the signal that has asked it.
        StoppedError: the run stops.
    """
    if flags.rejoin:
        raise HostsChangedError
    signals = world.all_gather(stop.name)
    if rendezvous.is_elastic() and not all(signals):  # some machines are taken away, but the run is not ended
        stop.obey()
        raise HostsChangedError
    names = [name for name in signals if name]
    workdir, saved = run.config.workdir, run.config.checkpoints.save
    assert workdir is not None
    newest = next(reversed(list_checkpoints(saved)), None) if saved else None
    kept = "nothing is saved (checkpoints.save: null)"
    if newest:
        kept = f"everything is saved in {display_path(newest)}; resume with: {resume_command(run.task, workdir)}"
    code = EXIT_INTERRUPTED if "SIGINT" in names else 0  # so that a script that Ctrl-C was meant for ends too
    name = "SIGINT (Ctrl-C)" if names[0] == "SIGINT" else names[0]
    raise StoppedError(f"Stopped {where}, as {name} asked; {kept}", code)


def _warn_of_shortage(run: Run, live: TrainingState) -> None:
    """Warn before training that the checkpoints do not fit; they may fit by the time they are due."""
    folder, keep = run.config.checkpoints.save, run.config.checkpoints.keep
    if folder is None:
        return
    # An earlier checkpoint is deleted once the next is complete; a resumed run has its earlier ones already.
    sets = 1 if run.resumed else (keep or 1) + (2 if run.config.probe else 1)
    if lacking := find_shortage(folder, live.file_bytes, sets):
        log.warning(f"The checkpoints will not fit into {display_path(folder)}: {lacking}")
