"""Resume a run that trains other weights than before, or whose optimizer keeps other states of each weight.

A weight that is trained before and after keeps the optimizer's state; one that is trained from now on begins with zeros
and with a bias correction of its own; the state of one that is frozen now is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from pydantic import ValidationError

from tfinpaint.checkpoint.header import OptimizerSlot, SavedProgress
from tfinpaint.checkpoint.store import optimizer_state
from tfinpaint.config.optimizer import DiscriminatorOptimizer, Optimizer
from tfinpaint.errors import UserError
from tfinpaint.models.trainable import named_variables, names_in
from tfinpaint.system.wording import counted
from tfinpaint.train.base_optimizer import AVERAGE
from tfinpaint.train.optimizers import build_optimizer
from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedBefore:
    """What a run had trained when it saved a checkpoint.

    Attributes:
        weights: names of the trained weights, in the order of their states in the optimizer.
        own: names of the variables in `RankState.own`.
        ages: number of updates of each weight; None where all were trained from the first update on.
        averaged: the weights in the checkpoint are averages, and their states have what was trained.
    """

    weights: tuple[str, ...]
    own: tuple[str, ...]
    ages: Mapping[str, int] | None
    averaged: bool = False


def trained_before_recorded(progress: SavedProgress) -> TrainedBefore | None:
    """Return what a checkpoint records; None for one of an older version, which does not record it."""
    if progress.trained is None or progress.own_names is None:
        return None
    averaged = bool(progress.config.get("optimizer", {}).get("ema_decay"))
    return TrainedBefore(tuple(progress.trained), progress.own_names, progress.trained, averaged)


def saved_slots(before: TrainedBefore, trainer: Trainer, config: Mapping[str, Any]) -> list[OptimizerSlot]:
    """Return the slots of the checkpoint's `optimizer.npz`, in their order.

    Args:
        trainer: with a built optimizer.
        config: the configuration of the run that wrote the checkpoint, as `config.diff.as_values` gives it.

    Raises:
        UserError: the checkpoint names weights that the model does not have.
    """
    by_name = named_variables(trainer.model)
    if unknown := [name for name in before.weights if name not in by_name]:
        raise UserError(
            f"--resume: the checkpoint has the optimizer state of {unknown[0]}, which this model does not have"
        )
    names = _state_names(config.get("optimizer"), Optimizer, trainer.optimizer)
    return _slots(trainer.optimizer, [by_name[name] for name in before.weights], names)


def saved_companion_slots(trainer: Trainer, config: Mapping[str, Any]) -> dict[str, list[OptimizerSlot]]:
    """Return the slots of the optimizers of the networks beside the model, by name. These are always trained whole."""
    found = {}
    for name, (network, optimizer) in trainer.companions.items():
        section: Any = config
        for key in ("loss", "adversarial", "optimizer") if name == "discriminator" else ("optimizer",):
            section = section.get(key) if isinstance(section, Mapping) else None
        if name == "projector" and isinstance(section, Mapping):
            section = {**section, "ema_decay": None}  # as `runs.trainer` makes its optimizer
        kind = DiscriminatorOptimizer if name == "discriminator" else Optimizer
        found[name] = _slots(optimizer, network.trainable_variables, _state_names(section, kind, optimizer))
    return found


def _state_names(section: Any, kind: type[Optimizer], now: keras.Optimizer) -> Sequence[str]:
    """Return the names of the states that an optimizer of this section keeps of each weight."""
    try:
        return build_optimizer(kind.model_validate(section), 1, 1).state_names()
    except ValidationError:  # the section of another version: assume that nothing has changed
        return now.state_names()


def _slots(optimizer: keras.Optimizer, weights: Sequence[keras.Variable], names: Sequence[str]) -> list[OptimizerSlot]:
    """Return the slots of an optimizer that trained these weights and kept these states of each.

    What was trained beside averages becomes the weight again where there are no averages any more.
    """
    states = {id(weight): optimizer.states_of(weight) for weight in weights}
    of_weights = {id(state) for weight in optimizer.weights for state in optimizer.states_of(weight).values()}
    others = [OptimizerSlot.of(variable) for variable in optimizer_state(optimizer) if id(variable) not in of_weights]
    slots = [
        OptimizerSlot(tuple(weight.shape), weight.dtype, ({AVERAGE: weight} | states[id(weight)]).get(name))
        for weight in weights
        for name in names
    ]
    return [*others[:1], *slots, *others[1:]]  # number of updates, states of the weights, states of the loss scale


def take_over(before: TrainedBefore, trainer: Trainer) -> None:
    """Set in the optimizer how many updates each weight has had; log what has changed. Every rank calls this."""
    optimizer, now = trainer.optimizer, names_in(trainer.model, trainer.model.trainable_variables)
    assert optimizer is not None
    done = int(optimizer.iterations)
    ages = before.ages if before.ages is not None else dict.fromkeys(before.weights, done)
    optimizer.set_ages([ages.get(name, 0) for name in now])
    by_name = named_variables(trainer.model)
    optimizer.resume_averages([by_name[name] for name in before.weights] if before.averaged else [])
    new, dropped = set(now) - set(before.weights), set(before.weights) - set(now)
    if new or dropped:
        log.info(
            f"Optimizer state: kept for {counted(len(now) - len(new), 'weight')}, "
            f"new for {len(new)} that were not trained before, dropped for {len(dropped)} that are frozen now"
        )
