"""Train epoch after epoch, and evaluate after each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tfinpaint.batch import Batch
from tfinpaint.train.step import ControlFlags
from tfinpaint.train.totals import EpochResult, PartialEpoch
from tfinpaint.train.trainer import ReadLoss, Trainer

EpochEnd = Callable[[int, EpochResult, EpochResult | None], None]  # (epoch from 1, train, test)


@dataclass(frozen=True)
class Callbacks:
    """What `fit` calls on every rank, in the order in which an epoch does.

    Attributes:
        is_over: before each epoch; whether training ends before it, the same on every rank.
        ask, pause: before and after each step, as `Trainer.train_steps` takes them, but `pause` gets the epoch first.
        on_step: after each step, with the epoch and a function that reads the loss.
        measure: after the last step of each epoch; returns more of its results.
        recalibrate: after that, before evaluation; makes the batch-norm statistics of all ranks equal and ready for
            inference.
        probe: after that, with the epoch; returns more of its results.
        on_epoch_end: after the evaluation of each epoch, one after another.
    """

    recalibrate: Callable[[], None]
    is_over: Callable[[], bool] | None = None
    ask: Callable[[], ControlFlags] = ControlFlags
    pause: Callable[[int, int, ControlFlags, Callable[[], PartialEpoch]], None] | None = None
    on_step: Callable[[int, ReadLoss], None] | None = None
    measure: Callable[[], Mapping[str, float]] = dict
    probe: Callable[[int], Mapping[str, float]] | None = None
    on_epoch_end: Sequence[EpochEnd] = ()


def fit(
    trainer: Trainer,
    train_batches: Iterable[Batch],
    test_batches: Iterable[Batch] | None,
    callbacks: Callbacks,
    *,
    first_epoch: int,
    num_epochs: int,
    steps_per_epoch: int,
    so_far: PartialEpoch | None = None,
) -> None:
    """Train from `first_epoch` to `num_epochs`, and evaluate after each epoch. Every rank calls this.

    Evaluations and calls at the ends of epochs, and the end, find averaged weights where the optimizer has them.

    Args:
        train_batches: endless; they begin after the last step that was done.
        test_batches: this rank's share of the held-out set, iterated once per epoch; None for no evaluation.
        so_far: the steps of `first_epoch` that were done before.
    """
    trainer.world.wait_for_ranks()  # rank 0 may have prepared its pictures alone
    iterator = iter(train_batches)
    for epoch in range(first_epoch, num_epochs + 1):
        if callbacks.is_over and callbacks.is_over():
            break
        trainer.use_averages(False)
        train = trainer.train_steps(
            iterator,
            steps_per_epoch,
            functools.partial(callbacks.on_step, epoch) if callbacks.on_step else None,
            f"epoch {epoch}",
            so_far=so_far if epoch == first_epoch else None,
            ask=callbacks.ask,
            pause=functools.partial(callbacks.pause, epoch) if callbacks.pause else None,
        )
        trainer.world.report_task(f"in epoch {epoch}, measuring")
        train = replace(train, values={**train.values, **callbacks.measure()})
        trainer.use_averages(True)
        trainer.world.report_task(f"in epoch {epoch}, recalibrating batch-norm statistics")
        callbacks.recalibrate()
        if callbacks.probe:
            train = replace(train, values={**train.values, **callbacks.probe(epoch)})
        test = trainer.evaluate(test_batches, where=f"epoch {epoch}, evaluation") if test_batches is not None else None
        trainer.world.report_task(f"in epoch {epoch}, saving and drawing")
        for call in callbacks.on_epoch_end:
            trainer.world.report_activity()
            call(epoch, train, test)
        trainer.world.wait_for_ranks()  # rank 0 has drawn figures and waited for the disk alone
