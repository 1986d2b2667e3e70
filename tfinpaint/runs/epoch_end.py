"""What happens at the end of each epoch beside saving: batch-norm statistics, records, learning rate, pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfinpaint.config.schema import Config
from tfinpaint.layout import FIGURES
from tfinpaint.report.figures import attempt_figure
from tfinpaint.report.metrics_log import MetricsLog
from tfinpaint.runs.data import Batches, DataSet
from tfinpaint.runs.run import Run
from tfinpaint.train.batchnorm import StatisticsEstimator, batchnorm_layers
from tfinpaint.train.fit import EpochEnd
from tfinpaint.train.rank_state import batchnorm_statistics
from tfinpaint.train.totals import EpochResult
from tfinpaint.train.trainer import Trainer
from tfinpaint.train.view_measures import COLLAPSED_RANK

log = logging.getLogger(__name__)

Draw = Callable[[MetricsLog], None]  # draws the pictures of the run
AddFrame = Callable[[int], None]  # keeps a frame of the animation after an epoch


def records_before(run: Run, again: bool) -> list[dict[str, Any]]:
    """Return the metrics of the run so far, without those of the last evaluation where it is repeated."""
    if run.resumed is None:
        return []
    repeated = ("test", run.resumed.header.epoch) if again else None
    return [record for record in run.resumed.progress.records if (record["phase"], record["epoch"]) != repeated]


def end_in_steps(run: Run, test_batches: Batches | None) -> float:
    """Return the cost of the end of an epoch in training steps; one is worth three forward passes."""
    tested = test_batches.count * run.test_batch_size / run.batch_size if test_batches is not None else 0.0
    return (run.config.model.batchnorm_batches + tested) / 3


def recalibrate_transferred(run: Run, trainer: Trainer, data: DataSet, steps: int) -> None:
    """Recalibrate the statistics of frozen batch norms once after a transfer; of all, if the head is to be fitted.

    They came with the weights, and are those of erased images. They are computed over the batches of all ranks, so that
    their number does not matter.
    """
    model, count = trainer.model, min(run.config.model.batchnorm_batches, steps)
    if count and run.config.checkpoints.load and not run.resumed:
        norms, sample = batchnorm_layers(model, trainable=False), data.batches_from(0).take(count)
        if run.config.model.head_init == "logistic_regression":
            norms += batchnorm_layers(model, trainable=True)
        StatisticsEstimator(model, norms, sample, trainer.world, synchronised=True).run()


def make_recalibration(run: Run, trainer: Trainer, data: DataSet, steps: int) -> Callable[[], None]:
    """Return what makes batch-norm statistics ready for inference at the end of each epoch."""
    model, world = trainer.model, trainer.world
    count = min(run.config.model.batchnorm_batches, steps)
    if not count:
        return lambda: world.average_variables(batchnorm_statistics(model))
    part = trainer.parts.trained if data.features else model
    norms, sample = batchnorm_layers(model, trainable=True), data.batches_from(0).take(count)
    visible_only = run.config.model.batchnorm_visible_only
    return StatisticsEstimator(part, norms, sample, world, visible_only=visible_only).run


def make_view_measurement(trainer: Trainer, data: DataSet) -> Callable[[], dict[str, float]]:
    """Return what measures the agreement of views at the end of each epoch: on the same batch, transformed alike."""
    if trainer.agreement_term is None:
        return dict
    sample = data.batches_from(0).take(1)
    return lambda: trainer.measure_views(next(iter(sample)))


def warn_of_collapse(config: Config, epoch: int, train: EpochResult, _: EpochResult | None) -> None:
    """Warn if the features of all images have become nearly the same, or multiples of one another."""
    section, rank = config.loss.agreement, train.values.get("rankme", COLLAPSED_RANK)
    if section is None or rank >= COLLAPSED_RANK:
        return
    remedy = "lower optimizer.learning_rate or raise data.batch_size"
    if section.type == "vicreg":
        remedy += ", and keep the factor of variance in loss.agreement.coefficients as large as that of invariance"
    log.warning(
        f"Epoch {epoch}: the encoder's features have collapsed: those of different images hardly differ (RankMe "
        f"{rank:.2f} of at most {2 * config.data.batch_size}; 1 is a complete collapse). Start again from an earlier "
        f"checkpoint or from the beginning; {remedy}"
    )


def learning_rate_log(run: Run, trainer: Trainer) -> list[EpochEnd]:
    """Return what logs the learning rate at the ends of epochs, where the schedule is verbose."""
    scheduler, optimizer = run.config.optimizer.lr_scheduler, trainer.optimizer
    if not (scheduler and scheduler.verbose and optimizer):
        return []
    return [lambda *_: log.info(f"Learning rate: {float(optimizer.learning_rate):.6g}")]


def record_results(
    metrics: MetricsLog, ranks: int, held_out: str, epoch: int, train: EpochResult | None, test: EpochResult | None
) -> None:
    """Add the results of an epoch to the metrics of the run.

    Args:
        held_out: the phase of the evaluation: "validation" or "test".
    """
    for phase, result in (("train", train), (held_out, test)):
        if result:
            speed = {"images_per_second": result.images_per_second, "seconds": result.seconds}
            metrics.add({"phase": phase, "epoch": epoch, **result.values, **speed, "world_size": ranks})


def draw_epoch(
    config: Config,
    folder: Path,
    metrics: MetricsLog,
    draw: Draw | None,
    add_frame: AddFrame | None,
    epoch: int,
    *_: object,
) -> None:
    """Add a frame to the animation after every epoch; draw the pictures when they are due.

    Args:
        draw, add_frame: as `run_session` takes them; None on other ranks than 0.
    """
    if not (draw or add_frame):
        return
    with attempt_figure(folder / FIGURES):  # an epoch must not be lost because of its pictures
        if add_frame:
            add_frame(epoch)
        is_last = epoch == config.num_epochs
        if draw and (epoch % config.figures_interval == 0 or is_last):
            if is_last:
                log.info("Drawing the figures of the report...")
            draw(metrics)
