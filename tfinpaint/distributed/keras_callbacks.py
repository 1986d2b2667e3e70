"""Callbacks for `model.fit` on several ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfinpaint.distributed import rendezvous
from tfinpaint.distributed.equality import differences
from tfinpaint.distributed.failures import HostsChangedError
from tfinpaint.distributed.keras_optimizer import UNBUILT, average_outside, averaging_of
from tfinpaint.distributed.keras_step import exchange_outside_xla
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError


class SynchroniseRanks(keras.callbacks.Callback):
    """Keep the ranks of `fit` and `evaluate` equal. It goes into `callbacks` on every rank, as the last of them.

    - Before the first step, weights, optimizer and first epoch become those of rank 0, whatever a callback before this
      one has loaded there; each rank gets random numbers of its own, for layers such as dropout.
    - Gradients are exchanged outside of XLA, and outside of the loss scaling that `compile` adds for mixed_float16.
    - At the end of each epoch, before other callbacks and before validation, moving statistics (batch norms) are
      averaged over the ranks.
    - Losses and metrics in the logs are those of the examples of all ranks: the state of each metric is added up over
      the ranks, and its result computed from the sums. So all ranks take the same decisions by them, such as to stop.
    - At the end of each epoch it checks that all ranks hold the same bytes in weights and optimizer.

    With a single rank it does nothing.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._epoch, self._fits = 0, False

    def on_train_begin(self, logs: Any = None) -> None:
        """Make the ranks equal.

        Raises:
            UserError: the optimizer does not average gradients, the ranks would take different numbers of steps, or the
                model has no weights yet.
        """
        if self._world.size == 1:
            return
        model = self.model
        if model.optimizer is not None:
            average_outside(model.optimizer)
        averaging = averaging_of(model.optimizer)
        if averaging is None:
            raise UserError(
                "the optimizer of the model does not average gradients over the ranks: compile the model with "
                "DistributedOptimizer(optimizer, world)"
            )
        _check_same_plan(self._world, self.params)
        if not model.built:
            raise UserError(UNBUILT)
        self._make_equal()
        self._fits = True
        self._measure_all_ranks()
        exchange_outside_xla(model, averaging)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._world.report_task(f"in epoch {self._epoch}, step {batch + 1}")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch + 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Check that the ranks are equal; in an elastic run, start again if hosts have come or gone.

        Raises:
            UserError: the ranks hold different weights.
        """
        if self._world.size > 1:
            _check_equal(self._world, self.model, f"after epoch {self._epoch}")
        if rendezvous.is_elastic() and any(self._world.all_gather(self._world.hosts_changed())):
            raise HostsChangedError

    def on_train_end(self, logs: Any = None) -> None:
        self._fits = False
        self._measure_own_rank()

    def on_test_begin(self, logs: Any = None) -> None:
        if not self._fits:
            self._measure_all_ranks()

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._world.report_activity()

    def on_test_end(self, logs: Any = None) -> None:
        if not self._fits:
            self._measure_own_rank()

    def _make_equal(self) -> None:
        model, world = self.model, self._world
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        model._initial_epoch = world.all_gather(model._initial_epoch)[0]  # that of BackupAndRestore on rank 0
        world.broadcast_variables([*model.variables, *model.optimizer.variables])
        seeds = [variable for variable in model.variables if "seed_generator" in variable.path]
        if seeds:
            states = world.broadcast_array(np.stack([seed.numpy() for seed in seeds]))  # [generators, seed and counter]
            states[:, 0] = (states[:, 0] + world.rank) % 2**32
            for seed, state in zip(seeds, states, strict=True):
                seed.assign(state.astype(seed.dtype))

    def _measure_all_ranks(self) -> None:
        """Have Keras take the results at the end of an epoch or an evaluation from all ranks.

        It asks for them before any callback runs, so that the order of callbacks does not matter.
        """
        model, own = self.model, self.model._get_metrics_result_or_logs

        def results(logs: Any) -> Any:
            if self._fits:
                _average_statistics(self._world, model)
            _add_up(self._world, [variable for metric in model.metrics for variable in metric.variables])
            found = own(logs)
            return _mean_of_numbers(self._world, found) if found is logs else found

        if self._world.size > 1 and "_get_metrics_result_or_logs" not in vars(model):
            model._get_metrics_result_or_logs = results

    def _measure_own_rank(self) -> None:
        if "_get_metrics_result_or_logs" in vars(self.model):
            del self.model._get_metrics_result_or_logs  # so that its class's method is found again


def _check_same_plan(world: World, plan: dict[str, Any]) -> None:
    """Check that all ranks take the same number of steps; unknown numbers are None."""
    ranks = world.all_gather({name: plan[name] for name in ("epochs", "steps")})
    for rank, each in enumerate(ranks):
        for name, number in each.items():
            if number != ranks[0][name]:
                raise UserError(
                    f"rank {rank} has {number} {name} and rank 0 has {ranks[0][name]}, so that one would wait forever "
                    "for the other; divide the data with shard(data, world), or pass the same steps_per_epoch and "
                    "epochs on every rank"
                )


def _check_equal(world: World, model: keras.Model, when: str) -> None:
    variables = [*model.trainable_variables, *model.optimizer.variables]
    if found := differences(world, variables):
        path, rank = variables[found[0].place].path, found[0].ranks[0]
        raise UserError(
            f"rank {rank} holds other values than rank 0 {when}, in {len(found)} of {len(variables)} weights and "
            f"states of the optimizer, the first of which is {path}: something has changed them on one rank alone, or "
            "these ranks compute on different hardware"
        )


def _average_statistics(world: World, model: keras.Model) -> None:
    """Average over the ranks what the forward pass has changed, each rank by its own examples."""
    statistics = [v for v in model.non_trainable_variables if "seed_generator" not in v.path]
    world.average_variables([statistics[difference.place] for difference in differences(world, statistics)])


def _add_up(world: World, variables: Sequence[keras.Variable]) -> None:
    """Replace variables, which all hold sums over examples, by their sums over the ranks."""
    variables = list({id(variable): variable for variable in variables}.values())
    if not variables:
        return
    own = [variable.numpy().astype(np.float64).ravel() for variable in variables]
    sums = np.split(world.sum_array(np.concatenate(own)), np.cumsum([len(each) for each in own])[:-1])
    for variable, total in zip(variables, sums, strict=True):
        variable.assign(total.reshape(variable.shape).astype(variable.dtype))


def _mean_of_numbers(world: World, logs: Any) -> Any:
    """Return what a train_step of one's own has returned in its last step, each number averaged over the ranks."""
    if not isinstance(logs, dict):
        return logs
    numbers = {name: float(value) for name, value in logs.items() if np.ndim(value) == 0}
    return logs | {name: total / world.size for name, total in world.sum_values(numbers).items()}


def OnRank0(callback: keras.callbacks.Callback, world: World) -> keras.callbacks.Callback:  # noqa: N802 -- as a class
    """Return a callback that runs on rank 0 alone: one that writes files or prints, such as ModelCheckpoint.

    It must not change weights, the learning rate or the course of training, which must be the same on all ranks:
    EarlyStopping and ReduceLROnPlateau go to every rank. BackupAndRestore may, before SynchroniseRanks.
    """
    return callback if world.is_rank0 else keras.callbacks.Callback()
