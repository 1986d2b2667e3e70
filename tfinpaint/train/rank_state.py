"""What of a model differs between the ranks within an epoch: batch-norm statistics and the states of random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.models.trainable import named_variables, names_in
from tfinpaint.train.batchnorm import batchnorm_layers


def batchnorm_statistics(model: keras.Model) -> list[keras.Variable]:
    """Return the statistics of the trained batch norms; within an epoch each rank has those of its own batches."""
    norms = batchnorm_layers(model, trainable=True)
    return [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """Return the states of the seed generators, such as those of dropout."""
    return [v for v in model.variables if "seed_generator" in v.path]


def _variables(model: keras.Model, *, statistics: bool) -> list[keras.Variable]:
    return [*(batchnorm_statistics(model) if statistics else []), *seed_states(model)]


def rank_state_names(model: keras.Model, *, statistics: bool) -> tuple[str, ...]:
    """Return the names of the variables that `rank_state` gives."""
    return names_in(model, _variables(model, statistics=statistics))


def rank_state(model: keras.Model, *, statistics: bool) -> np.ndarray:
    """Return float64 [numbers]: what of the model differs between ranks, for `restore_rank_state`.

    Args:
        statistics: include the batch-norm statistics; without them, all ranks resume with those of rank 0.
    """
    variables = _variables(model, statistics=statistics)
    return np.concatenate([np.zeros(0), *(v.numpy().astype(np.float64).ravel() for v in variables)])


def restore_rank_state(model: keras.Model, world: World, rows: np.ndarray, names: Sequence[str]) -> None:
    """Restore what each rank had; with another number of ranks than then, give each the mean over them.

    The statistics of a batch norm that is frozen now are averaged, too: no rank has its own any more.

    Args:
        rows: float64 [ranks then, numbers].
        names: `rank_state_names` of the run that saved them.

    Raises:
        UserError: the numbers are those of another model.
    """
    by_name = named_variables(model)
    variables = [by_name[name] for name in names if name in by_name]
    sizes = [int(np.prod(v.shape)) for v in variables]
    if len(variables) != len(names) or sum(sizes) != rows.shape[1]:
        raise UserError("the checkpoint's batch-norm statistics are those of another model; start again")
    same_ranks, own = len(rows) == world.size, {id(v) for v in _variables(model, statistics=True)}
    seeds = {id(v) for v in seed_states(model)}
    starts = np.cumsum([0, *sizes])[:-1]
    for variable, start, size in zip(variables, starts, sizes, strict=True):
        if id(variable) in seeds and not same_ranks:
            continue
        known = rows[:, start : start + size]
        values = known[world.rank] if same_ranks and id(variable) in own else known.mean(axis=0)
        variable.assign(values.reshape(variable.shape).astype(variable.dtype))
