"""Keras optimizers that compute PyTorch's formulas, made from the sections of a configuration.

The parameters have the meaning that they have in torch.optim. Keras's own optimizers of the same names differ from it:
their momentum holds the learning rate (a schedule then acts late), their epsilons stand elsewhere (Adam: before the
bias correction; Adagrad, RMSprop: inside the root), their weight decay is always decoupled from the gradient, Adagrad
starts from 0.1, and there is no dampening and no LARS. So only Keras's base class is used, without its own weight
decay, clipping and averaging.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.config.optimizer import Optimizer
from tfinpaint.distributed.schedules import ScaledSchedule
from tfinpaint.train.base_optimizer import BaseOptimizer, Group
from tfinpaint.train.schedules import LrScaling, learning_rate

ADAGRAD_EPS = 1e-10  # torch.optim.Adagrad's default; the configuration has no key for it


def build_optimizer(
    config: Optimizer,
    steps_per_epoch: int,
    num_epochs: int,
    scaling: LrScaling | None = None,
    distances: Mapping[str, int] | None = None,
) -> keras.Optimizer:
    """Build the Keras optimizer of a configuration, whose schedule spans the whole run.

    Args:
        steps_per_epoch, num_epochs: of the run; a schedule counts optimizer steps.
        scaling: scaling of the whole schedule; None for none.
        distances: of layers from the head, as `BaseOptimizer` takes them.
    """
    types = (SGD, Adagrad, Adam, AdamW, RMSprop, LARS, LAMB)
    chosen = next(each for each in types if each.__name__ == config.type)
    rate = learning_rate(config, steps_per_epoch, num_epochs)
    if scaling:
        rate = ScaledSchedule(rate, scaling.factor, round(scaling.warmup_epochs * steps_per_epoch))
    return chosen(config, rate, steps_per_epoch, distances)


class SGD(BaseOptimizer):
    """torch.optim.SGD: buf = momentum buf + (1 - dampening) g; w -= rate buf, or rate (g + momentum buf): nesterov."""

    def formula_states(self) -> Sequence[str]:
        return ["momentum"] if self.section.momentum else []

    def update_weight(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        variable.assign_sub(rate * self._with_momentum(self._gradient(gradient, variable), variable))

    def _with_momentum(self, direction: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
        section = self.section
        if not section.momentum:
            return direction
        (buffer,) = self._state(variable)
        if section.dampening:  # does not apply to the first direction, with which the buffer starts
            share = tf.where(self._finished(variable, tf.int64) > 0, 1.0 - section.dampening, 1.0)
            buffer.assign(section.momentum * buffer + tf.cast(share, direction.dtype) * direction)
        else:
            buffer.assign(section.momentum * buffer + direction)
        return direction + section.momentum * buffer if section.nesterov else buffer


class LARS(SGD):
    """SGD whose rate is scaled weight by weight (You, Gitman, Ginsburg, arXiv 1708.03888, Algorithm 1).

    trust = eta |w| / (|g| + weight_decay |w|), and 1 where either norm is 0. The momentum buffer holds rate trust (g +
    weight_decay w), so that a change of the rate acts on new gradients only.
    """

    def update_weight(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        weight_norm, gradient_norm = tf.norm(variable), tf.norm(tf.cast(gradient, variable.dtype))
        trust = self.section.eta * weight_norm / (gradient_norm + self._decay(variable) * weight_norm)
        trust = tf.where((weight_norm > 0) & (gradient_norm > 0), trust, 1.0)
        direction = rate * trust * self._gradient(gradient, variable)
        variable.assign_sub(self._with_momentum(direction, variable))


class Adagrad(BaseOptimizer):
    """torch.optim.Adagrad: sum += g^2; w -= rate / (1 + step lr_decay) g / (sqrt(sum) + eps), steps from 0."""

    def formula_states(self) -> Sequence[str]:
        return ["sum"]

    def update_weight(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        (total,) = self._state(variable)
        gradient = self._gradient(gradient, variable)
        rate = rate / (1.0 + self._finished(variable, variable.dtype) * self.section.lr_decay)
        total.assign_add(tf.square(gradient))
        variable.assign_sub(rate * gradient / (tf.sqrt(total) + ADAGRAD_EPS))


class RMSprop(BaseOptimizer):
    """torch.optim.RMSprop: v = alpha v + (1 - alpha) g^2; w -= rate g / (sqrt(v) + eps).

    If centered, v is reduced by the square of the gradient's own average; with momentum, buf = momentum buf + g / (...)
    and w -= rate buf.
    """

    def formula_states(self) -> Sequence[str]:
        section = self.section
        return ["square", *(["mean"] if section.centered else []), *(["momentum"] if section.momentum else [])]

    def update_weight(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        section = self.section
        state = dict(zip(self.formula_states(), self._state(variable), strict=True))
        gradient = self._gradient(gradient, variable)
        square = _smooth(state["square"], tf.square(gradient), section.alpha)
        if section.centered:
            mean = _smooth(state["mean"], gradient, section.alpha)
            square = tf.maximum(square - tf.square(mean), 0.0)  # a steady gradient's variance rounds to below 0
        step = gradient / (tf.sqrt(square) + section.eps)
        if section.momentum:
            step = state["momentum"].assign(section.momentum * state["momentum"] + step)
        variable.assign_sub(rate * step)


class _Moments(BaseOptimizer):
    """The base of optimizers with Adam's two moments, and with amsgrad's largest second moment so far."""

    def formula_states(self) -> Sequence[str]:
        return ["m", "v", *(["largest_v"] if self.section.amsgrad else [])]

    def _corrections(self, variable: tf.Variable, beta1: float, beta2: float) -> tuple[tf.Tensor, tf.Tensor]:
        """Return 1 - beta1^t and sqrt(1 - beta2^t), t from 1, in float64: in float32, 1 - 0.999 keeps four digits."""
        t = self._finished(variable, tf.float64) + 1.0
        return 1.0 - tf.constant(beta1, tf.float64) ** t, tf.sqrt(1.0 - tf.constant(beta2, tf.float64) ** t)

    def _step(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
        """Return m_hat / (sqrt(v_hat) + eps), where the hats mark bias-corrected moments."""
        section, state = self.section, self._state(variable)
        m = _smooth(state[0], gradient, section.beta1)
        v = _smooth(state[1], tf.square(gradient), section.beta2)
        if section.amsgrad:
            v = state[2].assign(tf.maximum(state[2], v))
        first, second = (tf.cast(c, variable.dtype) for c in self._corrections(variable, section.beta1, section.beta2))
        return m / first / (tf.sqrt(v) / second + section.eps)


class Adam(_Moments):
    """torch.optim.Adam (Kingma and Ba, arXiv 1412.6980, Algorithm 1; amsgrad: Reddi, Kale, Kumar, arXiv 1904.09237)."""

    def update_weight(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        self._adam(self._gradient(gradient, variable), variable, rate)

    def _adam(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        if self.section.amsgrad:
            variable.assign_sub(rate * self._step(gradient, variable))
        else:
            self._fused(gradient, variable, rate)

    def apply(self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        # Of this update, by the updates that a weight has skipped and the group that it belongs to.
        self._scalars: dict[tuple[int, Group], dict[str, tf.Tensor]] = {}
        super().apply(grads, trainable_variables)
        self._scalars.clear()  # tensors of one update, which belong to the graph that is traced

    def _fused(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        """Take the whole step in one kernel, that is, in one pass over memory instead of ten.

        Weights that have been trained equally long, at the same rate, share the scalars: made for each weight, they
        would be thousands of operations in the step of a ResNet50, and most of the time that tracing it takes.
        """
        shared = self._skipped[self._get_variable_index(variable)], self._group(variable)
        if shared not in self._scalars:
            self._scalars[shared] = self._scalars_of(variable, rate)
        m, v = self._state(variable)
        handles = {"var": variable.handle, "m": m.handle, "v": v.handle}
        tf.raw_ops.ResourceApplyAdam(**handles, grad=gradient, **self._scalars[shared])

    def _scalars_of(self, variable: tf.Variable, rate: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return what the kernel takes besides tensors of a weight's size.

        The kernel computes w -= lr m / (sqrt(v) + epsilon), after correcting lr by powers of the betas. Let c =
        sqrt(1 - beta2^t): sqrt(v_hat) + eps = (sqrt(v) + eps c) / c, so its lr has to be rate c / (1 - beta1^t) and
        its epsilon eps c. The powers are 0 here (no correction), because float32 is too coarse for the first steps. The
        betas are rounded as the kernel's are: at t = 1, v is then exactly (1 - beta2) g^2.
        """
        dtype, beta1, beta2 = variable.dtype, np.float32(self.section.beta1), np.float32(self.section.beta2)
        first, second = self._corrections(variable, float(beta1), float(beta2))
        return {
            "beta1_power": tf.constant(0.0, dtype),
            "beta2_power": tf.constant(0.0, dtype),
            "lr": tf.cast(tf.cast(rate, tf.float64) * second / first, dtype),
            "beta1": tf.constant(beta1, dtype),
            "beta2": tf.constant(beta2, dtype),
            "epsilon": tf.cast(self.section.eps * second, dtype),
        }


class AdamW(Adam):
    """torch.optim.AdamW: w *= 1 - rate weight_decay, then Adam's step (Loshchilov and Hutter, arXiv 1711.05101)."""

    def update_weight(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        if decay := self._decay(variable):
            variable.assign(variable * (1.0 - rate * decay))
        self._adam(tf.cast(gradient, variable.dtype), variable, rate)


class LAMB(_Moments):
    """Adam's step with the decoupled decay, scaled weight by weight (You et al., arXiv 1904.00962, Algorithm 2).

    r = m_hat / (sqrt(v_hat) + eps) + weight_decay w; w -= rate |w| / |r| r, without the ratio where a norm is 0.
    """

    def update_weight(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        step = self._step(tf.cast(gradient, variable.dtype), variable)
        if decay := self._decay(variable):
            step += decay * variable
        weight_norm, step_norm = tf.norm(variable), tf.norm(step)
        trust = tf.where((weight_norm > 0) & (step_norm > 0), weight_norm / step_norm, 1.0)
        variable.assign_sub(rate * trust * step)


def _smooth(average: tf.Variable, value: tf.Tensor, kept: float) -> tf.Tensor:
    """Update and return a moving average: `kept` of itself, the rest of the value."""
    return average.assign(kept * average + (1.0 - kept) * value)
