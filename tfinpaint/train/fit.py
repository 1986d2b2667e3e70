"""Train epoch after epoch, and evaluate after each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from tfinpaint.batch import Batch
from tfinpaint.train.step import ControlFlags
from tfinpaint.train.totals import EpochResult, PartialEpoch
from tfinpaint.train.trainer import ReadLoss, Trainer

EpochEnd = Callable[[int, EpochResult, EpochResult | None], None]  # (epoch from 1, train, test)


def fit(
    trainer: Trainer,
    train_batches: Iterable[Batch],
    test_batches: Iterable[Batch] | None,
    *,
    first_epoch: int,
    num_epochs: int,
    steps_per_epoch: int,
    so_far: PartialEpoch | None = None,
    measure: Callable[[], Mapping[str, float]] = dict,
    recalibrate: Callable[[], None],
    probe: Callable[[int], Mapping[str, float]] | None = None,
    on_step: Callable[[int, ReadLoss], None] | None = None,
    ask: Callable[[], ControlFlags] = ControlFlags,
    pause: Callable[[int, int, ControlFlags, Callable[[], PartialEpoch]], None] | None = None,
    on_epoch_end: Sequence[EpochEnd] = (),
    is_over: Callable[[], bool] | None = None,
) -> None:
    """Train from `first_epoch` to `num_epochs`, and evaluate after each epoch. Every rank calls this.

    Evaluations and calls at the ends of epochs, and the end, find averaged weights where the optimizer has them.

    Args:
        train_batches: endless; they begin after the last step that was done.
        test_batches: this rank's share of the held-out set, iterated once per epoch; None for no evaluation.
        so_far: the steps of `first_epoch` that were done before.
        measure: called after the last step of each epoch; returns more of its results.
        recalibrate: called after the last step of each epoch, before evaluation; makes the batch-norm statistics of
            all ranks equal and ready for inference.
        probe: called after that with the epoch; returns more of its results.
        on_step: called after each step with the epoch and a function that reads the loss.
        ask, pause: as `Trainer.train_steps` takes them, but `pause` gets the epoch first.
        on_epoch_end: called in order on every rank after each epoch.
        is_over: called before each epoch, the same on every rank: whether training ends before it; None: it does not.
    """
    trainer.world.wait_for_ranks()  # rank 0 may have prepared its pictures alone
    iterator = iter(train_batches)
    for epoch in range(first_epoch, num_epochs + 1):
        if is_over and is_over():
            break
        trainer.use_averages(False)
        train = trainer.train_steps(
            iterator,
            steps_per_epoch,
            functools.partial(on_step, epoch) if on_step else None,
            f"epoch {epoch}",
            so_far=so_far if epoch == first_epoch else None,
            ask=ask,
            pause=functools.partial(pause, epoch) if pause else None,
        )
        trainer.world.report_task(f"in epoch {epoch}, measuring")
        train = replace(train, values={**train.values, **measure()})
        trainer.use_averages(True)
        trainer.world.report_task(f"in epoch {epoch}, recalibrating batch-norm statistics")
        recalibrate()
        if probe:
            train = replace(train, values={**train.values, **probe(epoch)})
        test = trainer.evaluate(test_batches, where=f"epoch {epoch}, evaluation") if test_batches is not None else None
        trainer.world.report_task(f"in epoch {epoch}, saving and drawing")
        for call in on_epoch_end:
            trainer.world.report_activity()
            call(epoch, train, test)
        trainer.world.wait_for_ranks()  # rank 0 has drawn figures and waited for the disk alone
