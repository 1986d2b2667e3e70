"""Going on with a run: what must be as it was, what may be another number of ranks, and where in an epoch it stands."""

from __future__ import annotations

import logging

import numpy as np

from tfinpaint.checkpoint.header import Header, RankState
from tfinpaint.checkpoint.reader import read_ranks
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.runs.build import describe_model, trained_before
from tfinpaint.runs.data import DataSet
from tfinpaint.runs.run import Resumed, Run
from tfinpaint.train.totals import PartialEpoch
from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)

# Fields of the header that may differ: how far the run is, and what its configuration and its ranks say about the data.
_MAY_DIFFER = {"format", "kind", "epoch", "step", "restoration", "batch_size", "steps_per_epoch", "lr_factor"}
_NAMED = {"loss_scaled": "loss scaling (precision: mixed_float16, or distributed.compression)"}


def check_same_run(run: Run, steps: int, data: DataSet | None, classes: tuple[str, ...] = ()) -> None:
    """A resumed run must have the model that its checkpoint fits, and train on the same images.

    Args:
        steps: per epoch.
        data: what it trains on.

    Raises:
        UserError: something has changed.
    """
    if run.resumed is None:
        return
    before, now = run.resumed.header, describe_model(run, steps=steps, classes=classes)
    changed = [
        f"{_NAMED.get(name, name)} was {getattr(before, name)} and is now {getattr(now, name)}"
        for name in Header.model_fields
        if name not in _MAY_DIFFER and getattr(before, name) != getattr(now, name)
    ]
    if changed:
        raise UserError(f"--resume: {', '.join(changed)}; restore it, or start anew in another --workdir")
    if data:
        _check_same_images(run, run.resumed, data)
    for name in ("batch_size", "steps_per_epoch", "lr_factor"):
        if getattr(before, name) != getattr(now, name):
            log.info(f"Changed since the run was stopped: {name} was {getattr(before, name)}, is {getattr(now, name)}")


def _check_same_images(run: Run, resumed: Resumed, data: DataSet) -> None:
    then, section = resumed.progress, run.config.data
    if then.data == data.digest:
        return
    what = f"the {len(data)} training images are not the {then.images} of before"
    if section.max_bad_images:
        log.warning(f"--resume: {what}; data.max_bad_images lets the run go on with what there is")
    elif any(key.startswith("data.") for key in resumed.changes):
        log.info(f"Changed since the run was stopped: {what}")
    else:
        raise UserError(f"--resume: {what} in {section.input_path}; restore them, or start anew in another --workdir")


def restore_ranks(run: Run, trainer: Trainer, steps: int) -> PartialEpoch | None:
    """Give each rank what it knew alone when the run was saved; on other ranks than then, what they knew together.

    Args:
        trainer: with the weights of the checkpoint.
        steps: per epoch.

    Returns:
        The steps done of the epoch under way; None where it has none.
    """
    if run.resumed is None:
        return None
    path, world, header = run.resumed.path, run.world, run.resumed.header
    progress = run.resumed.progress
    read: list[RankState] = []
    world.run_on_rank0(lambda: read.append(read_ranks(path, header, progress)))  # an error is one on all ranks
    state = _share(world, read[0] if read else None)
    trainer.restore_own_state(state.own, trained_before(run, run.resumed).own)
    done = run.first_step(steps) - header.epoch * steps
    if trainer.optimizer is not None and header.steps_per_epoch != steps:
        trainer.place(run.first_step(steps))
    if progress.ranks != world.size:
        _tell_of_other_ranks(run, progress.ranks)
    if not done:
        return None
    own = slice(world.rank, world.rank + 1)
    if progress.ranks != world.size:  # rank 0 takes over what all of them have summed up
        own = slice(None) if world.is_rank0 else slice(0)
    ranks, parts, names = state.sums[own].shape
    sums = state.sums[own].reshape(ranks * parts, names)
    return PartialEpoch(progress.names, sums, done, int(state.counts[own].sum()), progress.seconds)


def _share(world: World, state: RankState | None) -> RankState:
    """Rank 0's on every rank: it alone needs to see the run folder."""
    own, sums, counts = (
        world.broadcast_array(getattr(state, name) if state else None) for name in ("own", "sums", "counts")
    )
    return RankState(own, sums, counts.astype(np.int64))


def _tell_of_other_ranks(run: Run, before: int) -> None:
    now, images = run.world.size, run.batch_size
    log.info(
        f"Saved by {before} rank(s), going on with {now}: each computes {images // now} of a step's {images} images"
        + (", and its batch norms see these alone" if not run.config.distributed.sync_batchnorm else "")
        + "; the weights will differ from those of an unchanged run by rounding, and by what batch norms see"
    )
