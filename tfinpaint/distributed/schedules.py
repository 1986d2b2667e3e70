"""A learning rate that is scaled with the batch, after a warm-up."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def scaled_rate(
    rate: float | keras.optimizers.schedules.LearningRateSchedule, factor: float, warmup_steps: int = 0
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return a learning rate times a factor that rises linearly from 1 in the first steps.

    If the batch grows with the ranks, the learning rate should grow with it: by the number of ranks, or its square root
    (Goyal et al., arXiv 1706.02677, sections 2.1 and 2.2).

    Args:
        rate: the learning rate for one rank. Of a number, the result is a number or a schedule of Keras itself, so that
            plain Keras loads the saved optimizer; of a schedule, it is a `ScaledSchedule`.
        warmup_steps: updates in which the factor rises; 0: it applies from the first one on.
    """
    if callable(rate):
        return ScaledSchedule(rate, factor, warmup_steps)
    if not warmup_steps:
        return rate * factor
    return keras.optimizers.schedules.PolynomialDecay(rate, warmup_steps, end_learning_rate=rate * factor, power=1.0)


@keras.saving.register_keras_serializable("tfinpaint")
class ScaledSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate times a factor that rises from 1 in the first steps."""

    def __init__(
        self, rate: float | keras.optimizers.schedules.LearningRateSchedule, factor: float, warmup_steps: int
    ) -> None:
        super().__init__()
        self._rate, self._factor, self._warmup_steps = rate, factor, warmup_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        rate = self._rate(step) if callable(self._rate) else self._rate
        risen = tf.minimum(tf.cast(step, tf.float32) / max(self._warmup_steps, 1), 1.0) if self._warmup_steps else 1.0
        return rate * (1.0 + (self._factor - 1.0) * risen)

    def get_config(self) -> dict[str, Any]:
        rate = keras.optimizers.schedules.serialize(self._rate) if callable(self._rate) else self._rate
        return {"rate": rate, "factor": self._factor, "warmup_steps": self._warmup_steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ScaledSchedule:
        rate = config["rate"]
        if isinstance(rate, dict):
            rate = keras.optimizers.schedules.deserialize(rate)
        return cls(rate, config["factor"], config["warmup_steps"])
