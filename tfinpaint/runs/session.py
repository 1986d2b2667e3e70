"""Training or evaluating a run: what happens at the end of each epoch besides the fitting itself."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfinpaint.layout import FIGURES
from tfinpaint.report.figures import attempt_figure
from tfinpaint.report.metrics_log import MetricsLog
from tfinpaint.runs.bad_images import BadImageCounter
from tfinpaint.runs.data import Batches, DataSet
from tfinpaint.runs.nonfinite import NonfiniteKeeper
from tfinpaint.runs.progress import RunProgress
from tfinpaint.runs.resume import restore_ranks
from tfinpaint.runs.run import Run, begin_run
from tfinpaint.runs.saving import Saver
from tfinpaint.runs.signals import StopRequest
from tfinpaint.train.batchnorm import StatisticsEstimator, batchnorm_layers
from tfinpaint.train.fit import EpochEnd, fit
from tfinpaint.train.totals import EpochResult
from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)


def train_run(
    run: Run,
    trainer: Trainer,
    data: DataSet,
    test_batches: Batches | None,
    *,
    steps: int,
    classes: tuple[str, ...] = (),
    draw: Callable[[MetricsLog], None],
    add_frame: Callable[[int], None] | None = None,
) -> MetricsLog:
    """Fit, with metrics, pictures and progress at the epoch ends, and checkpoints whenever they are due.

    Args:
        test_batches: None for no evaluation.
        steps: per epoch.
        draw: makes the pictures of the run; called on rank 0 every `figures_interval` epochs and at the end.
        add_frame: called with the number of every epoch, on rank 0, before `draw`.

    Raises:
        StoppedError: a rank was told to stop.
    """
    config, first = run.config, run.world.is_rank0
    run.world.report_task("preparing to train")
    so_far = restore_ranks(run, trainer, steps)
    if first:
        begin_run(run)
    again = run.is_evaluated_again and test_batches is not None
    metrics = MetricsLog(
        run.folder, config.outfile, enabled=first, heading=config.output_format == "tfinpaint",
        first_epoch=run.first_epoch, records=_records_before(run, again),
    )  # fmt: skip
    progress = RunProgress(
        enabled=first,
        first_step=run.first_step(steps),
        num_epochs=config.num_epochs,
        steps_per_epoch=steps,
        end_in_steps=_end_in_steps(run, test_batches),
    )
    run.world.report_activity()
    stop = StopRequest()
    saver = Saver(run, trainer, data, metrics, steps=steps, classes=classes, stop=stop)
    observers: list[EpochEnd] = [
        progress.epoch_end,
        _Record(run, metrics),
        _Draw(run, lambda: draw(metrics), add_frame),
        saver.epoch_end,
    ]
    watch = BadImageCounter(run.world, run.folder, data.failures, run.first_epoch)
    if not config.data.preload:  # what is in memory stays good
        observers.insert(0, watch)
    trainer.on_nonfinite = NonfiniteKeeper(run.folder, run.world.rank, data.images.listing)
    scheduler, optimizer = config.optimizer.lr_scheduler, trainer.optimizer
    if scheduler and scheduler.verbose and optimizer:
        observers.insert(0, lambda *_: log.info(f"Learning rate: {float(optimizer.learning_rate):.6g}"))
    with stop.listening(), contextlib.closing(progress), contextlib.closing(watch), contextlib.closing(saver):
        progress.begin()
        fit(
            trainer,
            data.batches_from(run.first_step(steps)),
            test_batches,
            first_epoch=run.first_epoch,
            num_epochs=config.num_epochs,
            steps_per_epoch=steps,
            so_far=so_far,
            recalibrate=_recalibration(run, trainer, data.batches_from, steps),
            on_step=progress.step,
            ask=saver.ask,
            pause=saver.between_steps,
            on_epoch_end=observers,
        )
        saver.finish()
    if run.resumed and again and test_batches is not None:
        _evaluate(run, trainer, test_batches, metrics, run.resumed.header.epoch)
        if first:
            draw(metrics)
    return metrics


def _records_before(run: Run, again: bool) -> list[dict[str, Any]]:
    """Return the metrics of the run so far, without those of the last evaluation where it is made again."""
    if run.resumed is None:
        return []
    left_out = ("test", run.resumed.header.epoch) if again else None
    return [record for record in run.resumed.progress.records if (record["phase"], record["epoch"]) != left_out]


def _end_in_steps(run: Run, test_batches: Batches | None) -> float:
    """What an epoch's end costs, in training steps: passes forward, of which a step is worth three."""
    tested = test_batches.count * run.test_batch_size / run.batch_size if test_batches is not None else 0.0
    return (run.config.model.batchnorm_batches + tested) / 3


def evaluate_run(
    run: Run, trainer: Trainer, test_batches: Batches | None, *, draw: Callable[[MetricsLog], None]
) -> MetricsLog:
    """What `train` does where there is nothing to train on: score once, as epoch 0, and draw.

    Args:
        test_batches: None where there are no targets to score with.
    """
    first = run.world.is_rank0
    if first:
        begin_run(run)
    heading = run.config.output_format == "tfinpaint"
    metrics = MetricsLog(run.folder, run.config.outfile, enabled=first, heading=heading)
    if test_batches is not None:
        _evaluate(run, trainer, test_batches, metrics, 0)
    if first:
        with attempt_figure(run.folder / FIGURES):
            draw(metrics)
    return metrics


def _evaluate(run: Run, trainer: Trainer, test_batches: Batches, metrics: MetricsLog, epoch: int) -> None:
    """Score the model as it is, as that of an epoch; record and log the result."""
    result = trainer.evaluate(test_batches)
    _Record(run, metrics).add("test", epoch, result)
    log.info("  ".join([f"test {name} {value:.4f}" for name, value in result.values.items()]))


def _recalibration(
    run: Run, trainer: Trainer, batches_from: Callable[[int], Batches], steps: int
) -> Callable[[], None]:
    """How batch-norm statistics are made ready for inference at each epoch's end.

    Frozen batch-norms are settled here and now, after a transfer: the statistics that came with the weights are those
    of erased images. No rank trains them with its own share of a batch, so they are those of any number of ranks.
    """
    count = min(run.config.model.batchnorm_batches, steps)
    if not count:
        return trainer.average_statistics
    sample = batches_from(0).take(count)
    if run.config.checkpoints.load and not run.resumed:
        frozen = batchnorm_layers(trainer.model, trainable=False)
        StatisticsEstimator(trainer.model, frozen, sample, run.world, synchronised=True).run()
    return StatisticsEstimator(trainer.model, batchnorm_layers(trainer.model, trainable=True), sample, run.world).run


@dataclass
class _Record:
    run: Run
    metrics: MetricsLog

    def __call__(self, epoch: int, train: EpochResult, test: EpochResult | None) -> None:
        for phase, result in (("train", train), ("test", test)):
            if result:
                self.add(phase, epoch, result)

    def add(self, phase: str, epoch: int, result: EpochResult) -> None:
        self.metrics.add(
            {
                "phase": phase,
                "epoch": epoch,
                **result.values,
                "images_per_second": result.images_per_second,
                "seconds": result.seconds,
                "world_size": self.run.world.size,
            }
        )


@dataclass
class _Draw:
    run: Run
    draw: Callable[[], None]
    add_frame: Callable[[int], None] | None

    def __call__(self, epoch: int, train: EpochResult, test: EpochResult | None) -> None:
        if not self.run.world.is_rank0:
            return
        with attempt_figure(self.run.folder / FIGURES):  # an epoch must not be lost for its pictures
            if self.add_frame:
                self.add_frame(epoch)
            if epoch % self.run.config.figures_interval == 0 or epoch == self.run.config.num_epochs:
                self.draw()
