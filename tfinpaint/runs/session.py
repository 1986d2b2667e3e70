"""The skeleton that `pretrain` and `classify` share: model, weights, optimizer, then training or evaluation."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from tfinpaint.checkpoint.find import PROBED
from tfinpaint.checkpoint.model import build_model
from tfinpaint.cli.options import saved_so_far
from tfinpaint.distributed.batchnorm import synchronise_batchnorm
from tfinpaint.distributed.world import World
from tfinpaint.inpainting.metrics import HEADLINE, METRICS
from tfinpaint.layout import FIGURES
from tfinpaint.models.losses import PerExample
from tfinpaint.report.figures import attempt_figure
from tfinpaint.report.metrics_log import MetricsLog
from tfinpaint.report.trackers import open_trackers
from tfinpaint.runs.bad_images import BadImageCounter
from tfinpaint.runs.build import describe_model, describe_unfreezing, make_optimizer, select_trained
from tfinpaint.runs.data import Batches, DataSet, steps_per_epoch
from tfinpaint.runs.early_stopping import VALIDATION, EarlyStopping, restore_best_epoch
from tfinpaint.runs.epoch_end import (
    AddFrame,
    Draw,
    draw_epoch,
    end_in_steps,
    learning_rate_log,
    make_recalibration,
    make_view_measurement,
    recalibrate_transferred,
    record_results,
    records_before,
    warn_of_collapse,
)
from tfinpaint.runs.features import with_features
from tfinpaint.runs.folder import RunFolder
from tfinpaint.runs.head_init import fit_head
from tfinpaint.runs.image_check import warn_of_copies
from tfinpaint.runs.initial_weights import load_by_name
from tfinpaint.runs.nonfinite import NonfiniteKeeper, how_to_continue
from tfinpaint.runs.online_probe import JUDGED, OnlineProbe
from tfinpaint.runs.predictions import write_predictions
from tfinpaint.runs.progress import RunProgress
from tfinpaint.runs.resume import check_same_run, restore_ranks
from tfinpaint.runs.run import Run
from tfinpaint.runs.saving import Saver
from tfinpaint.runs.signals import NOTICE, UNSAVED_NOTICE, StopRequest
from tfinpaint.runs.trainer import make_trainer
from tfinpaint.train.fit import Callbacks, EpochEnd, fit
from tfinpaint.train.loss import Measure
from tfinpaint.train.totals import PartialEpoch
from tfinpaint.train.trainer import Trainer
from tfinpaint.train.view_measures import VIEW_MEASURES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """One run in this process, ready to train or to evaluate.

    Attributes:
        training, held_out: the images; None where the configuration names none.
        validation: the images that are evaluated after each epoch in place of the held-out ones; None without these.
        steps: of training, per epoch; 0 without training.
        classes: names of the classes of a classifier.
        transferred: what is reported of the weights that the run began with, line by line; () for random ones.
    """

    run: Run
    folder: RunFolder
    training: DataSet | None
    held_out: DataSet | None
    trainer: Trainer
    steps: int
    classes: tuple[str, ...]
    transferred: tuple[str, ...]
    validation: DataSet | None = None

    @property
    def world(self) -> World:
        return self.trainer.world


def build_run_model(run: Run, world: World, classes: tuple[str, ...] = ()) -> keras.Model:
    """Build the model of a run with random weights; where it is trained, set what of it is."""
    config = run.config
    model = build_model(describe_model(run, steps=0, classes=classes), run.network, run.network_name)
    if run.trains:
        select_trained(config, model)
        if config.distributed.sync_batchnorm:
            synchronise_batchnorm(model, world)
    return model


def begin_session(
    run: Run,
    folder: RunFolder,
    world: World,
    model: keras.Model,
    training: DataSet | None,
    held_out: DataSet | None,
    *,
    validation: DataSet | None = None,
    classes: tuple[str, ...] = (),
    metrics: Mapping[str, PerExample] | None = None,
    measure: Measure | None = None,
) -> Session:
    """Fill a model with the weights that the run starts from, and make its trainer. Every rank calls this.

    Args:
        metrics, measure: as `Trainer` takes them.

    Raises:
        UserError: the weights cannot be used, or a resumed run has another model or other images than before.
    """
    config = run.config
    if training and held_out and training.check and held_out.check and held_out.has_targets and not run.resumed:
        warn_of_copies(world, training.check, held_out.check)
    steps = steps_per_epoch(run, training) if training else 0
    transferred: tuple[str, ...] = ()
    if run.resumed:
        check_same_run(run, run.resumed, steps, training, classes)
        transferred = run.resumed.progress.transferred
    elif config.checkpoints.load:
        transferred = load_by_name(run, world, config.checkpoints.load, model, classes, whole=training is None)
    if training and (line := describe_unfreezing(config)):
        log.info(line)
    optimizer = make_optimizer(run, model, steps) if training else None
    scored = held_out is not None and held_out.has_targets
    trainer = make_trainer(run, world, model, optimizer, metrics, measure, steps=steps, scored=scored)
    return Session(run, folder, training, held_out, trainer, steps, classes, transferred, validation)


def run_session(
    session: Session, draw: Draw | None, add_frame: AddFrame | None = None, probe: OnlineProbe | None = None
) -> MetricsLog:
    """Train, or evaluate where there is nothing to train on; then write the predictions that are asked for.

    Args:
        probe: judges the features of the encoder at the ends of epochs; None: nothing does.
        draw: called every `figures_interval` epochs and at the end; None on other ranks than 0.
        add_frame: called after every epoch, before `draw`; None on other ranks than 0.

    Raises:
        StoppedError: a rank was asked to stop.
    """
    held_out, training = session.held_out, session.training
    tested = held_out if held_out and held_out.has_targets else None
    if training:
        metrics = _train(session, training, tested, draw, add_frame, probe)
    else:
        _begin_folder(session)
        metrics = _open_metrics(session)
        if tested:
            _evaluate(session, tested, metrics, epoch=0)
        _draw_once(session, metrics, draw)
    if held_out and session.run.config.data.test_output_path:
        write_predictions(session.run, session.trainer, held_out, session.classes)
    return metrics


def _begin_folder(session: Session) -> None:
    if session.world.is_rank0:
        opened = (session.training, session.validation, session.held_out)
        checks = [data.check for data in opened if data and data.check]
        bad, resumed = [bad for check in checks for bad in check.bad], session.run.resumed
        session.folder.begin(resumed.path if resumed else None, bad, session.world.communication)


def _open_metrics(session: Session, records: Sequence[Mapping[str, Any]] = ()) -> MetricsLog:
    run, folder, config = session.run, session.folder, session.run.config
    is_rank0 = session.world.is_rank0
    metrics = MetricsLog(
        folder.path, config.outfile, enabled=is_rank0,
        heading=config.output_format == "tfinpaint", first_epoch=run.first_epoch, records=records,
        trackers=open_trackers(config, folder.path, resumed=run.resumed is not None) if is_rank0 else (),
    )  # fmt: skip
    folder.at_end(metrics.finish)
    return metrics


def _stop_request(run: Run) -> StopRequest:
    notice = NOTICE if run.config.checkpoints.save else UNSAVED_NOTICE
    return StopRequest(partial(saved_so_far, run.task, run.config), notice, may_exit=not run.call)


def _train(
    session: Session,
    data: DataSet,
    tested: DataSet | None,
    draw: Draw | None,
    add_frame: AddFrame | None,
    probe: OnlineProbe | None,
) -> MetricsLog:
    """Prepare weights, images and metrics; fit; then test the weights that the run ends with."""
    run, trainer, world = session.run, session.trainer, session.world
    stopping = EarlyStopping(run) if session.validation else None
    world.report_task("preparing to train")
    so_far = restore_ranks(run, run.resumed, trainer, session.steps) if run.resumed else None
    _begin_folder(session)
    again = run.is_evaluated_again and tested is not None
    metrics = _open_metrics(session, records_before(run, again))
    recalibrate_transferred(run, trainer, data, session.steps)
    fit_head(run, trainer, data)
    data, observed = _with_features(session, data, session.validation or tested)
    trainer.how_to_continue = partial(how_to_continue, run.task, run.config)
    trainer.on_nonfinite = NonfiniteKeeper(session.folder.path, world.rank, data.images.listing, data.inputs_of)
    draw_due = partial(draw_epoch, run.config, session.folder.path, metrics, draw, add_frame)
    _fit(session, data, observed, metrics, stopping, so_far, probe, draw_due)
    if stopping:
        restore_best_epoch(run, world, trainer, stopping.best)
    if stopping or again:
        _test_at_end(session, tested, metrics, stopping.best if stopping else run.first_epoch - 1, draw)
    return metrics


def _fit(
    session: Session,
    data: DataSet,
    observed: DataSet | None,
    metrics: MetricsLog,
    stopping: EarlyStopping | None,
    so_far: PartialEpoch | None,
    probe: OnlineProbe | None,
    draw_due: EpochEnd,
) -> None:
    """Train all epochs, with progress, metrics and pictures at their ends, and checkpoints whenever they are due.

    Args:
        observed: the images that are evaluated after each epoch.
        so_far: the steps that are done of the first epoch.
    """
    run, trainer, world, steps = session.run, session.trainer, session.world, session.steps
    phase, batches = VALIDATION if stopping else "test", observed.evaluation_batches() if observed else None
    progress = _make_progress(session, batches, phase, probe)
    world.report_activity()
    stop = _stop_request(run)
    saver = Saver(session, data, metrics, stop, stopping)
    counter = BadImageCounter(world, session.folder.path, data.failures, run.first_epoch)
    at_epoch_ends: list[EpochEnd] = [
        *learning_rate_log(run, trainer),
        *([] if run.config.data.preload else [counter]),  # what is in memory stays readable
        progress.epoch_end,
        partial(warn_of_collapse, run.config),
        partial(record_results, metrics, run.ranks, phase),
        *([stopping.epoch_end] if stopping else []),
        draw_due,
        saver.epoch_end,
    ]
    with stop.listening(), contextlib.closing(progress), contextlib.closing(counter), contextlib.closing(saver):
        progress.begin()
        fit(
            trainer, data.batches_from(run.first_step(steps)), batches,
            Callbacks(
                is_over=stopping.is_over if stopping else None,
                ask=saver.ask, pause=saver.between_steps, on_step=progress.step,
                measure=make_view_measurement(trainer, data),
                recalibrate=make_recalibration(run, trainer, data, steps),
                probe=probe, on_epoch_end=at_epoch_ends,
            ),
            first_epoch=run.first_epoch, num_epochs=run.config.num_epochs, steps_per_epoch=steps, so_far=so_far,
        )  # fmt: skip
        saver.finish()


def _make_progress(session: Session, batches: Batches | None, phase: str, probe: OnlineProbe | None) -> RunProgress:
    """Return what shows the progress of training; quiet on other ranks than 0.

    Args:
        batches: those that are evaluated after each epoch.
        phase: of these evaluations.
    """
    run, steps = session.run, session.steps
    return RunProgress(
        enabled=session.world.is_rank0 and not run.quiet,
        first_step=run.first_step(steps), num_epochs=run.config.num_epochs, steps_per_epoch=steps,
        end_in_steps=end_in_steps(run, batches), held_out=phase,
        hidden={*METRICS, *VIEW_MEASURES, *JUDGED.values()} - {HEADLINE, "rankme", PROBED},
        is_total=_compares_views(session),
        probe_every=probe.every if probe else None, probe_seconds=probe.seconds if probe else 0.0,
    )  # fmt: skip


def _test_at_end(session: Session, tested: DataSet | None, metrics: MetricsLog, epoch: int, draw: Draw | None) -> None:
    """Score the model after the whole training as that of an epoch, and draw the pictures once more."""
    if tested:
        _evaluate(session, tested, metrics, epoch)
    _draw_once(session, metrics, draw)


def _draw_once(session: Session, metrics: MetricsLog, draw: Draw | None) -> None:
    if draw:
        with attempt_figure(session.folder.path / FIGURES):
            draw(metrics)


def _with_features(session: Session, data: DataSet, tested: DataSet | None) -> tuple[DataSet, DataSet | None]:
    """Return the training and held-out images, with the features of frozen layers where these can be kept.

    A resumed run decides as the run did before, and therefore rounds in the same way, as long as there is again enough
    memory or disk space, and `num_epochs` is the same.
    """
    run, trainer, folder = session.run, session.trainer, session.folder.path
    epochs, steps = run.config.num_epochs, session.steps
    if run.first_epoch > epochs:
        return data, tested
    passes = epochs * steps * data.batch_size / len(data)
    data = with_features(trainer, folder, data, "training images", passes)
    return data, with_features(trainer, folder, tested, "held-out images", epochs) if tested else None


def _evaluate(session: Session, tested: DataSet, metrics: MetricsLog, epoch: int) -> None:
    """Score the model as it is; record the result as that of an epoch, and log it."""
    result = session.trainer.evaluate(tested.evaluation_batches())
    record_results(metrics, session.run.ranks, "test", epoch, None, result)
    hidden = {"loss"} if _compares_views(session) else set()  # its part in `RECONSTRUCTION` is compared, as in training
    shown = [f"test {name} {value:.4f}" for name, value in result.values.items() if name not in hidden]
    log.info("  ".join(shown))


def _compares_views(session: Session) -> bool:
    """Return whether the loss in training has a term that evaluations do not compute."""
    return session.trainer.agreement_term is not None and session.run.config.reconstructs
