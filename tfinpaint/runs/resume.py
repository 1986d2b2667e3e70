"""Resume a run: check that model and images are those of before, and restore what each rank had."""

from __future__ import annotations

import logging

import numpy as np

from tfinpaint.checkpoint.header import Header, RankState
from tfinpaint.checkpoint.reader import read_ranks
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.runs.build import describe_model
from tfinpaint.runs.data import DataSet
from tfinpaint.runs.run import Resumed, Run
from tfinpaint.runs.trainer import trained_before
from tfinpaint.system.wording import counted
from tfinpaint.train.rank_state import restore_rank_state
from tfinpaint.train.totals import PartialEpoch
from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)

# Fields of the header that may differ: how far the run is, and what follows from its data and its number of ranks.
_MAY_DIFFER = {"format", "kind", "epoch", "step", "restoration", "batch_size", "steps_per_epoch", "lr_factor"}
_NAMED = {"loss_scaled": "loss scaling (precision: mixed_float16, or distributed.compression)"}


def check_same_run(run: Run, resumed: Resumed, steps: int, data: DataSet | None, classes: tuple[str, ...] = ()) -> None:
    """Check that a resumed run has the model of its checkpoint, and trains on the same images.

    Args:
        steps: of training, per epoch.
        data: the training images.

    Raises:
        UserError: model or images have changed.
    """
    before, now = resumed.header, describe_model(run, steps=steps, classes=classes)
    changed = [
        f"{_NAMED.get(name, name)} was {getattr(before, name)} and is now {getattr(now, name)}"
        for name in Header.model_fields
        if name not in _MAY_DIFFER and getattr(before, name) != getattr(now, name)
    ]
    if changed:
        raise UserError(f"--resume: {', '.join(changed)}; restore it, or start again in another --workdir")
    if data:
        _check_same_images(run, resumed, data)
    for name in ("batch_size", "steps_per_epoch", "lr_factor"):
        if getattr(before, name) != getattr(now, name):
            log.info(f"Changed since the run was stopped: {name} was {getattr(before, name)}, is {getattr(now, name)}")


def _check_same_images(run: Run, resumed: Resumed, data: DataSet) -> None:
    then, section = resumed.progress, run.config.data
    if then.data == data.digest:
        return
    what = f"the {len(data)} training images are not the {then.images} of before"
    if section.max_bad_images:
        log.warning(f"--resume: {what}; continuing with the images that there are, as data.max_bad_images allows")
    elif any(key.startswith("data.") for key in resumed.changes):
        log.info(f"Changed since the run was stopped: {what}")
    else:
        raise UserError(f"--resume: {what} in {section.input_path}; restore them, or start again in another --workdir")


def restore_ranks(run: Run, resumed: Resumed, trainer: Trainer, steps: int) -> PartialEpoch | None:
    """Restore what each rank alone had when the run was saved; with another number of ranks, the mean over them.

    Args:
        trainer: with the weights of the checkpoint.
        steps: of training, per epoch.

    Returns:
        The steps done of the current epoch; None where there are none.
    """
    path, world, header, progress = resumed.path, trainer.world, resumed.header, resumed.progress
    read: list[RankState] = []
    world.run_on_rank0(lambda: read.append(read_ranks(path, header, progress)))  # an error is one on all ranks
    state = _share(world, read[0] if read else None)
    restore_rank_state(trainer.model, world, state.own, trained_before(run, resumed).own)
    done = run.first_step(steps) - header.epoch * steps
    if trainer.optimizer is not None and header.steps_per_epoch != steps:
        trainer.place(run.first_step(steps))
    if progress.ranks != world.size:
        _log_other_ranks(run, progress.ranks)
    if not done:
        return None
    own = slice(world.rank, world.rank + 1)
    if progress.ranks != world.size:  # rank 0 takes the sums of all of them
        own = slice(None) if world.is_rank0 else slice(0)
    ranks, parts, names = state.sums[own].shape
    sums = state.sums[own].reshape(ranks * parts, names)
    return PartialEpoch(progress.names, sums, done, int(state.counts[own].sum()), progress.seconds)


def _share(world: World, state: RankState | None) -> RankState:
    """Return the state of rank 0 on every rank: it alone needs to see the run folder."""
    own, sums, counts = (
        world.broadcast_array(getattr(state, name) if state else None) for name in ("own", "sums", "counts")
    )
    return RankState(own, sums, counts.astype(np.int64))


def _log_other_ranks(run: Run, before: int) -> None:
    sync = run.config.distributed.sync_batchnorm
    log.info(
        f"Resuming with {counted(run.ranks, 'rank')} instead of {before}: "
        f"{counted(run.batch_size // run.ranks, 'image')} per rank. "
        f"Results differ slightly ({'rounding' if sync else 'rounding, per-rank batch norm'})"
    )
