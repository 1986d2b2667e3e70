"""When a run is saved, and how training goes on meanwhile.

What has to be the same moment on all ranks, and in all variables, is taken between two steps; the files are written by
a thread, from weights of their own.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfinpaint import checkpoint, rendezvous, room
from tfinpaint.checkpoint import Contents, FrozenOptimizer, Header, Progress, RankState, optimizer_state
from tfinpaint.cli import EXIT_INTERRUPTED, resume_command
from tfinpaint.config_file import as_values
from tfinpaint.dist import HostsChangedError
from tfinpaint.errors import StoppedError, UserError
from tfinpaint.files import shown
from tfinpaint.report.metrics import MetricsLog
from tfinpaint.train.build import contents, describe, encoder_of
from tfinpaint.train.dataset import DataSet
from tfinpaint.train.loop import Asked, Trainer
from tfinpaint.train.run import Run
from tfinpaint.train.signals import StopRequest
from tfinpaint.train.totals import SUM_PARTS, EpochSoFar, Result, nothing_so_far

log = logging.getLogger(__name__)

MOST_STATISTICS_BYTES = 64 * 2**20  # of the batch norms of all ranks; with more, all go on with those of rank 0
SLOW_SECONDS = 5.0  # of waiting for the disk, from which on it is said


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
        self._header = describe(run, steps=steps, classes=classes)
        self._saved = run.first_step(steps)  # the step that the newest checkpoint holds
        self._began = time.monotonic()  # of the time to the next one
        self._best = run.resumed.progress.best_epoch if run.resumed else None
        self._writer = None
        if run.world.is_first:
            live = contents(run, trainer)
            self._writer = Writer(live, self._copy)
            _warn_of_shortage(run, live)

    def _copy(self, live: Contents) -> Contents:
        """The same models with weights of their own, in the host's memory."""
        with keras.device("cpu"):
            model = keras.models.clone_model(live.model)
            judge = keras.models.clone_model(live.discriminator) if live.discriminator else None
        return replace(live, model=model, encoder=encoder_of(self._run, model), discriminator=judge)

    def ask(self) -> Asked:
        """What this rank wants before the next step.

        Raises:
            UserError: the newest checkpoint could not be written.
        """
        if self._writer:
            self._writer.raise_failure()
        minutes = self._run.config.checkpoints.interval_minutes
        overdue = minutes is not None and time.monotonic() - self._began > 60 * minutes
        world = self._run.world
        return Asked(save=overdue and world.is_first, stop=bool(self._stop.name), rejoin=world.hosts_changed())

    def between_steps(self, epoch: int, step: int, asked: Asked, so_far: Callable[[], EpochSoFar]) -> None:
        """Save where that is due after `step` steps of `epoch`.

        Raises:
            StoppedError: a rank was told to stop, and it is saved.
            HostsChangedError: more or fewer ranks are to go on, and it is saved. A rank of an elastic run that was told
                to stop alone ends instead, by the signal that has told it.
        """
        every = self._run.config.checkpoints.interval_steps
        if any(asked) or (every and self._at(epoch, step) % every == 0):
            self._trainer.check_in_step(within_epoch=True)
            self._save(epoch - 1, self._at(epoch, step), so_far())
        self._end(asked, f"in epoch {epoch}, after step {step}")

    def epoch_end(self, epoch: int, train: Result, test: Result | None) -> None:
        """Save where that is due after an epoch and its evaluation.

        Raises:
            StoppedError, HostsChangedError: as `between_steps`.
        """
        config, world = self._run.config, self._run.world
        last = epoch == config.num_epochs
        asked = Asked() if last else Asked(*np.any(world.gather(list(self.ask())), axis=0).tolist())
        if last or any(asked) or epoch % config.checkpoints.interval == 0:
            self._trainer.check_in_step()
            self._note_best(epoch)
            self._save(epoch, self._at(epoch + 1, 0), nothing_so_far())
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

    def _save(self, epochs: int, step: int, so_far: EpochSoFar) -> None:
        folder, world = self._run.config.checkpoints.save, self._run.world
        if folder is None or (step == self._saved and epochs * self._header.steps_per_epoch != step):
            return
        within_epoch = epochs * self._header.steps_per_epoch != step
        statistics = within_epoch and self._keeps_statistics()
        own = world.gather_rows(self._trainer.own_state(statistics=statistics))
        counts = world.gather_rows(np.array([so_far.images])).astype(np.int64)
        state = RankState(own, world.gather_rows(so_far.sums), counts)
        self._saved, self._began = step, time.monotonic()
        if self._writer:
            progress = Progress(
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
        world.meet()  # rank 0 may have waited for the disk

    def _end(self, asked: Asked, where: str) -> None:
        if not (asked.stop or asked.rejoin):
            return
        self.finish()
        if asked.rejoin:
            raise HostsChangedError
        told = self._run.world.gather(self._stop.name)
        if rendezvous.is_elastic() and not all(told):  # some machines are taken away, and not the run ended
            self._stop.obey()
            raise HostsChangedError
        names = [name for name in told if name]
        command = resume_command("pretrain" if self._run.kind == "inpainter" else "classify", self._run.folder)
        saved = self._run.config.checkpoints.save
        kept = f"everything is saved, resume with: {command}" if saved else "nothing is saved (checkpoints.save: null)"
        code = EXIT_INTERRUPTED if "SIGINT" in names else 0  # so that a script that Ctrl-C was meant for ends too
        raise StoppedError(f"Stopped {where}, as {names[0]} asked; {kept}", code)


class Writer:
    """Writes checkpoints one after another, each in a thread, while training changes the weights."""

    def __init__(self, live: Contents, make_copy: Callable[[Contents], Contents]) -> None:
        """
        Args:
            live: what is trained.
            make_copy: makes models like these, for the thread.
        """
        self._live, self._make_copy = live, make_copy
        self._copy: Contents | None = None
        self._values: dict[str, list[np.ndarray]] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def write(self, folder: Path, header: Header, progress: Progress, ranks: RankState, keep: int | None) -> None:
        """Take the weights as they are and begin to write them.

        Raises:
            UserError: the checkpoint before this one could not be written.
        """
        self.wait()
        if self._copy is None:
            self._copy = self._make_copy(self._live)
            self._values = {n: [np.empty(v.shape, v.dtype) for v in part] for n, part in _states(self._live).items()}
        copy = self._copy
        # Into memory that stays: new pages take ten times as long. So would TensorFlow, left to copy what is changed
        # while a value that was read from it is still in use.
        for name, part in _states(self._live).items():
            for variable, value in zip(part, self._values[name], strict=True):
                np.copyto(value, np.asarray(variable.value.read_value()))

        def write() -> None:
            try:
                path = checkpoint.save(folder, header, progress, ranks, _fill(copy, self._values), keep)
                log.log(logging.DEBUG if header.step_in_epoch else logging.INFO, f"Saved {shown(path)}")
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=write, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the checkpoint under way is on the disk.

        Raises:
            UserError: it could not be written.
        """
        if self._thread:
            began = time.monotonic()
            self._thread.join()
            self._thread = None
            if (waited := time.monotonic() - began) > SLOW_SECONDS:
                log.info(f"Training waited {waited:.0f} s until a checkpoint was written")
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise what has kept the checkpoint before from being written; do not wait for the one under way.

        Raises:
            UserError: it could not be written.
        """
        if self._error:
            error, self._error = self._error, None
            raise error


def _warn_of_shortage(run: Run, live: Contents) -> None:
    """Say before training that its checkpoints do not fit; whatever is in the way may be gone until they are due."""
    folder, keep = run.config.checkpoints.save, run.config.checkpoints.keep
    if folder is None:
        return
    # An earlier one is deleted once the next is whole; a resumed run has its earlier ones already.
    sets = 1 if run.resumed else (keep or 1) + 1
    if lacking := room.shortage(folder, live.file_bytes, sets):
        log.warning(f"The checkpoints will not fit into {folder}: {lacking}")


def _states(live: Contents) -> dict[str, list[keras.Variable]]:
    """The variables that are saved, by the part of `Contents` that they belong to."""
    found = {"model": live.model.variables, "optimizer": optimizer_state(live.optimizer)}
    if live.discriminator:
        found["discriminator"] = live.discriminator.variables
        found["discriminator_optimizer"] = optimizer_state(live.discriminator_optimizer)
    return found


def _fill(copy: Contents, values: Mapping[str, Sequence[np.ndarray]]) -> Contents:
    """Models and optimizers with these values."""
    for model, name in ((copy.model, "model"), (copy.discriminator, "discriminator")):
        for variable, value in zip(model.variables if model else (), values.get(name, ()), strict=True):
            variable.assign(value)
    states: dict[str, Any] = {n: FrozenOptimizer(values[n]) for n in values if n.endswith("optimizer")}
    return replace(copy, **states)
