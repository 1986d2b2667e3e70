"""The base of all optimizers: the state of each weight, its average, its weight decay and its learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from tfinpaint.config.optimizer import Optimizer

AVERAGE = "average"  # the state of a weight that is its moving average


class Group(NamedTuple):
    """What the learning rates of a group of layers have in common.

    Attributes:
        factor: of the learning rate.
        first: number of the first update that changes these weights, from 0.
    """

    factor: float
    first: int


class BaseOptimizer(keras.optimizers.Optimizer):
    """An optimizer with the parameters of a section, and with the state of each weight.

    A formula says which states it keeps of each weight (`formula_states`) and how it updates one (`update_weight`).

    The state is among `variables`, float32 as the weights are, so that it is saved, loaded and broadcast with them.

    With `ema_decay`, a state of each weight is its exponential moving average, with the bias correction of Adam's
    moments: after t updates, the values since the last one count 1, d, d^2, ... d^(t - 1), divided by the sum of these
    numbers. In Keras's own average (`use_ema`), the value after the first update keeps the share d^(t - 1): more than a
    third after 1000 updates with d = 0.999.

    Attributes:
        averages_in_use: the weights hold their averages, and the averages what is trained (see `use_averages`).
    """

    def __init__(
        self,
        section: Optimizer,
        rate: float | keras.optimizers.schedules.LearningRateSchedule,
        steps_per_epoch: int = 1,
        distances: Mapping[str, int] | None = None,
    ) -> None:
        """
        Args:
            steps_per_epoch: optimizer steps, by which groups of layers are unfrozen.
            distances: name of a layer -> its number of groups from the head; 0 for others. None: 0 for all.
        """
        super().__init__(learning_rate=rate)
        self._distances = distances or {}
        self.section = section
        self._steps = steps_per_epoch
        self.averages_in_use = False
        self._skipped: list[int] = []  # for each weight, the updates before it was trained
        self._averages: list[keras.Variable] = []  # of each weight, where they are kept
        self._decays: list[float] = []  # for each weight, the weight decay
        self._groups: list[Group] = []  # for each weight

    def formula_states(self) -> Sequence[str]:
        """Return the names of the states of each weight that the formula has; they start from 0."""
        raise NotImplementedError

    def update_weight(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        """Update a weight and its states by its gradient.

        Args:
            rate: learning rate of this weight, of its dtype.
        """
        raise NotImplementedError

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        group = self._group(variable)
        if group not in self._rates:
            rate = tf.cast(learning_rate, variable.dtype)
            rate = rate if group.factor == 1.0 else group.factor * rate
            if group.first:
                rate = tf.where(self.iterations.value >= group.first, rate, tf.zeros_like(rate))
            self._rates[group] = rate
        self.update_weight(gradient, variable, self._rates[group])

    def state_names(self) -> Sequence[str]:
        """Return the names of the state variables of each weight, which have its shape."""
        return [*self.formula_states(), *([AVERAGE] if self.section.ema_decay is not None else [])]

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        names = self.state_names()
        self._states = [[self.add_variable_from_reference(v, name) for name in names] for v in variables]
        self._skipped = [0] * len(variables)
        self._decays = [self.section.weight_decay if self._is_decayed(v) else 0.0 for v in variables]
        self._groups = [self._make_group(self._distances.get(v.path.partition("/")[0], 0)) for v in variables]
        if self.section.ema_decay is not None:
            self._averages = [states[-1] for states in self._states]
        self.resume_averages([])
        self.averages_in_use = False

    @property
    def weights(self) -> list[keras.Variable]:
        """The trained weights, in the order of their states in `variables`."""
        return list(self._trainable_variables)

    def states_of(self, weight: keras.Variable) -> dict[str, keras.Variable]:
        """Return the state of a weight by the names of `state_names`; {} for one that is not trained."""
        places = [place for place, each in enumerate(self.weights) if each is weight]
        return dict(zip(self.state_names(), self._states[places[0]], strict=True)) if places else {}

    def ages(self) -> list[int]:
        """Return the number of updates of each weight, in the order of `weights`."""
        return [int(self.iterations) - skipped for skipped in self._skipped]

    def set_ages(self, ages: Sequence[int]) -> None:
        """Set the number of updates of each weight, by which its averages are corrected, before the first update."""
        self._skipped = [int(self.iterations) - age for age in ages]

    def place(self, step: int) -> None:
        """Count `step` updates as done, by which schedules go; the ages stay. Call it before the first update."""
        ages = self.ages()
        self.iterations.assign(step)
        self.set_ages(ages)

    def use_averages(self, wanted: bool) -> None:
        """Let the weights hold their averages, or again what is trained; without `ema_decay` nothing changes.

        The two are exchanged, so that the variables of model and optimizer always hold both.
        """
        if not self._averages or wanted == self.averages_in_use:
            return
        for weight, average in zip(self.weights, self._averages, strict=True):
            value = tf.identity(weight.value)
            weight.assign(average)
            average.assign(value)
        self.averages_in_use = wanted

    def resume_averages(self, resumed: Sequence[keras.Variable]) -> None:
        """Continue from a checkpoint, in which averages are in use.

        Args:
            resumed: the weights that had an average in the checkpoint; the averages of others begin with their values.
        """
        known = {id(weight) for weight in resumed}
        for weight, average in zip(self.weights, self._averages, strict=False):  # there may be no averages
            if id(weight) not in known:
                average.assign(weight)
        self.averages_in_use = True

    def apply(self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        self._rates: dict[Group, tf.Tensor] = {}  # of this update
        super().apply(grads, trainable_variables)
        self._rates.clear()  # tensors of one update, which belong to the graph that is traced
        if self.section.ema_decay is not None:
            self._average(self.section.ema_decay)

    def _average(self, decay: float) -> None:
        """Move each average towards its weight by the share 1 / (1 + d + ... + d^(t - 1)), after update number t."""
        shares: dict[int, tf.Tensor] = {}
        for weight, average, skipped in zip(self.weights, self._averages, self._skipped, strict=True):
            if skipped not in shares:
                updates = tf.cast(self.iterations.value - skipped, tf.float64)
                shares[skipped] = (1.0 - decay) / (1.0 - tf.constant(decay, tf.float64) ** updates)
            average.value.assign_add(tf.cast(shares[skipped], weight.dtype) * (weight.value - average.value))

    def _state(self, variable: tf.Variable) -> list[tf.Variable]:
        """Return the states of a weight that the formula has."""
        states = self._states[self._get_variable_index(variable)]
        return [state.value for state in states[: len(self.formula_states())]]

    def _is_decayed(self, variable: keras.Variable) -> bool:
        """Return whether the weight decay acts on a weight. Keras's layers name their kernels so, or `..._kernel`."""
        return not self.section.decay_kernels_only or variable.name.endswith("kernel")

    def _decay(self, variable: tf.Variable) -> float:
        """Return the weight decay of a weight."""
        return self._decays[self._get_variable_index(variable)]

    def _make_group(self, distance: int) -> Group:
        """Return the group of layers at this distance from the head."""
        epochs = distance * (self.section.unfreeze_every or 0)
        return Group(self.section.layer_decay**distance, epochs * self._steps)

    def _group(self, variable: tf.Variable) -> Group:
        """Return the group that a weight belongs to."""
        return self._groups[self._get_variable_index(variable)]

    def _gradient(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
        """Return the gradient plus the L2 term of the weight decay, which passes through the rest of the formula."""
        gradient, decay = tf.cast(gradient, variable.dtype), self._decay(variable)
        return gradient + decay * variable if decay else gradient

    def _finished(self, variable: tf.Variable, dtype: tf.DType) -> tf.Tensor:
        """Return the number of earlier updates of a weight."""
        return tf.cast(self.iterations.value - self._skipped[self._get_variable_index(variable)], dtype)
