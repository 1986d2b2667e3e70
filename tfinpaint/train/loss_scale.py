"""Dynamic loss scaling, without which small gradients vanish in float16 (Micikevicius et al., arXiv 1710.03740)."""

from __future__ import annotations

import keras
import tensorflow as tf

INITIAL = 2.0**15
GROWTH_STEPS = 2000  # steps with finite gradients after which the scale is doubled


class LossScale:
    """The factor of the loss: halved where gradients overflow, doubled after GROWTH_STEPS steps without an overflow.

    Its state is among the optimizer's variables, so that it is saved, restored and broadcast with them.
    """

    def __init__(self, optimizer: keras.Optimizer) -> None:
        """
        Args:
            optimizer: built.
        """
        self._scale = optimizer.add_variable(
            shape=(), initializer=keras.initializers.Constant(INITIAL), dtype="float32", name="loss_scale"
        )
        self._finite_steps = optimizer.add_variable(shape=(), initializer="zeros", dtype="int32", name="finite_steps")

    @property
    def value(self) -> tf.Tensor:
        """The factor, a power of two, as a float32 scalar."""
        return tf.convert_to_tensor(self._scale.value)

    def update(self, finite: tf.Tensor, unless: tf.Tensor) -> None:
        """Adapt the factor after a step.

        Args:
            finite: bool scalar, equal on all ranks: whether the gradients of all ranks were finite.
            unless: bool scalar: whether training has stopped, so that nothing changes any more.
        """
        steps = tf.where(finite, self._finite_steps + 1, 0)
        grows = steps >= GROWTH_STEPS
        factor = tf.where(finite, tf.where(grows, 2.0, 1.0), 0.5)
        self._scale.assign(tf.where(unless, self._scale, tf.maximum(self._scale * factor, 1.0)))
        self._finite_steps.assign(tf.where(unless, self._finite_steps, tf.where(grows, 0, steps)))
