"""When a run is saved, and how training goes on meanwhile.

What has to be the same moment on all ranks, and in all variables, is taken between two steps; the files are written by
a thread, from weights of their own.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np

from tfinpaint.checkpoint.async_writer import AsyncWriter
from tfinpaint.checkpoint.header import RankState, SavedProgress
from tfinpaint.checkpoint.store import TrainingState
from tfinpaint.cli.command import EXIT_INTERRUPTED, resume_command
from tfinpaint.config.diff import as_values
from tfinpaint.distributed import rendezvous
from tfinpaint.distributed.failures import HostsChangedError
from tfinpaint.errors import StoppedError, UserError
from tfinpaint.report.metrics_log import MetricsLog
from tfinpaint.runs.build import describe_model, encoder_of, training_state
from tfinpaint.runs.data import DataSet
from tfinpaint.runs.run import Run
from tfinpaint.runs.signals import StopRequest
from tfinpaint.storage.disk_space import find_shortage
from tfinpaint.train.step import ControlFlags
from tfinpaint.train.totals import SUM_PARTS, EpochResult, PartialEpoch, empty_epoch
from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)

MOST_STATISTICS_BYTES = 64 * 2**20  # of the batch norms of all ranks; with more, all go on with those of rank 0


class Saver:
    """Saves a run between steps and after epochs, on every rank; rank 0 writes."""

    def __init__(
        self,
        run: Run,
        trainer: Trainer,
        data: DataSet,
        metrics: MetricsLog,
        *,
        steps: int,
        classes: tuple[str, ...],
        stop: StopRequest,
    ) -> None:
        """
        Args:
            data: what is trained on.
            steps: per epoch.
            stop: what this process was told.
        """
        self._run, self._trainer, self._metrics, self._stop = run, trainer, metrics, stop
        self._data, self._digest = data, data.digest
        self._header = describe_model(run, steps=steps, classes=classes)
        self._saved = run.first_step(steps)  # the step that the newest checkpoint holds
        self._began = time.monotonic()  # of the time to the next one
        self._best = run.resumed.progress.best_epoch if run.resumed else None
        self._writer = None
        if run.world.is_rank0:
            live = training_state(run, trainer)
            self._writer = AsyncWriter(live, self._copy)
            _warn_of_shortage(run, live)

    def _copy(self, live: TrainingState) -> TrainingState:
        """The same models with weights of their own, in the host's memory."""
        with keras.device("cpu"):
            model = keras.models.clone_model(live.model)
            perceptual_term = keras.models.clone_model(live.discriminator) if live.discriminator else None
        return replace(live, model=model, encoder=encoder_of(self._run, model), discriminator=perceptual_term)

    def ask(self) -> ControlFlags:
        """What this rank wants before the next step.

        Raises:
            UserError: the newest checkpoint could not be written.
        """
        if self._writer:
            self._writer.raise_failure()
        minutes = self._run.config.checkpoints.interval_minutes
        overdue = minutes is not None and time.monotonic() - self._began > 60 * minutes
        world = self._run.world
        return ControlFlags(save=overdue and world.is_rank0, stop=bool(self._stop.name), rejoin=world.hosts_changed())

    def between_steps(self, epoch: int, step: int, asked: ControlFlags, so_far: Callable[[], PartialEpoch]) -> None:
        """Save where that is due after `step` steps of `epoch`.

        Raises:
            StoppedError: a rank was told to stop, and it is saved.
            HostsChangedError: more or fewer ranks are to go on, and it is saved. A rank of an elastic run that was told
                to stop alone ends instead, by the signal that has told it.
        """
        every = self._run.config.checkpoints.interval_steps
        if any(asked) or (every and self._at(epoch, step) % every == 0):
            self._trainer.check_replicas_equal(within_epoch=True)
            self._save(epoch - 1, self._at(epoch, step), so_far())
        self._end(asked, f"in epoch {epoch}, after step {step}")

    def epoch_end(self, epoch: int, train: EpochResult, test: EpochResult | None) -> None:
        """Save where that is due after an epoch and its evaluation.

        Raises:
            StoppedError, HostsChangedError: as `between_steps`.
        """
        config, world = self._run.config, self._run.world
        last = epoch == config.num_epochs
        asked = ControlFlags() if last else ControlFlags(*np.any(world.all_gather(list(self.ask())), axis=0).tolist())
        if last or any(asked) or epoch % config.checkpoints.interval == 0:
            self._trainer.check_replicas_equal()
            self._note_best(epoch)
            self._save(epoch, self._at(epoch + 1, 0), empty_epoch())
        self._end(asked, f"after epoch {epoch}")

    def finish(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            UserError: it could not be written.
        """
        if self._writer:
            self._writer.wait()

    def close(self) -> None:
        """Let a checkpoint that is being written become whole, whatever has happened to training in this process."""
        if self._writer:
            with contextlib.suppress(UserError):  # told already, or training has ended for a reason of its own
                self._writer.wait()

    def _keeps_statistics(self) -> bool:
        """Whether the batch-norm statistics of each rank within an epoch are part of the checkpoint.

        They are not needed where they are estimated anew at the end of the epoch, nor where all ranks have the same.
        """
        config, world = self._run.config, self._run.world
        if config.model.batchnorm_batches or config.distributed.sync_batchnorm:
            return False
        return world.size * self._trainer.own_state(statistics=True).nbytes <= MOST_STATISTICS_BYTES

    def _at(self, epoch: int, step: int) -> int:
        """Steps since the start of the run."""
        return (epoch - 1) * self._header.steps_per_epoch + step

    def _note_best(self, epoch: int) -> None:
        losses = {r["epoch"]: r["loss"] for r in self._metrics.records if r["phase"] == "test"}
        if epoch in losses and losses[epoch] < losses.get(self._best, float("inf")):
            self._best = epoch

    def _save(self, epochs: int, step: int, so_far: PartialEpoch) -> None:
        folder, world = self._run.config.checkpoints.save, self._run.world
        if folder is None or (step == self._saved and epochs * self._header.steps_per_epoch != step):
            return
        within_epoch = epochs * self._header.steps_per_epoch != step
        statistics = within_epoch and self._keeps_statistics()
        own = world.all_gather_rows(self._trainer.own_state(statistics=statistics))
        counts = world.all_gather_rows(np.array([so_far.images])).astype(np.int64)
        state = RankState(own, world.all_gather_rows(so_far.sums), counts)
        self._saved, self._began = step, time.monotonic()
        if self._writer:
            progress = SavedProgress(
                records=tuple(self._metrics.records),
                config=as_values(self._run.config),
                best_epoch=self._best,
                data=self._digest,
                images=len(self._data),
                listed=self._data.listed,
                left_out=self._data.left_out,
                names=so_far.names,
                seconds=so_far.seconds,
                ranks=world.size,
                own=own.shape[1],
                own_names=self._trainer.own_names(statistics=statistics),
                sum_parts=SUM_PARTS,
                trained=self._trainer.trained(),
                transferred=tuple(self._run.transferred),
            )
            header = self._header.model_copy(update={"epoch": epochs, "step": step})
            self._writer.write(folder, header, progress, state, self._run.config.checkpoints.keep)
        world.wait_for_ranks()  # rank 0 may have waited for the disk

    def _end(self, asked: ControlFlags, where: str) -> None:
        if not (asked.stop or asked.rejoin):
            return
        self.finish()
        if asked.rejoin:
            raise HostsChangedError
        told = self._run.world.all_gather(self._stop.name)
        if rendezvous.is_elastic() and not all(told):  # some machines are taken away, and not the run ended
            self._stop.obey()
            raise HostsChangedError
        names = [name for name in told if name]
        command = resume_command("pretrain" if self._run.kind == "inpainter" else "classify", self._run.folder)
        saved = self._run.config.checkpoints.save
        kept = f"everything is saved, resume with: {command}" if saved else "nothing is saved (checkpoints.save: null)"
        code = EXIT_INTERRUPTED if "SIGINT" in names else 0  # so that a script that Ctrl-C was meant for ends too
        raise StoppedError(f"Stopped {where}, as {names[0]} asked; {kept}", code)


def _warn_of_shortage(run: Run, live: TrainingState) -> None:
    """Say before training that its checkpoints do not fit; whatever is in the way may be gone until they are due."""
    folder, keep = run.config.checkpoints.save, run.config.checkpoints.keep
    if folder is None:
        return
    # An earlier one is deleted once the next is whole; a resumed run has its earlier ones already.
    sets = 1 if run.resumed else (keep or 1) + 1
    if lacking := find_shortage(folder, live.file_bytes, sets):
        log.warning(f"The checkpoints will not fit into {folder}: {lacking}")
