"""One training step: losses, gradients, their average over the ranks, and the update. Tensors only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import keras
import tensorflow as tf

from tfinpaint.batch import Batch, tensors_of
from tfinpaint.distributed.world import World
from tfinpaint.models.frozen import DividedModel
from tfinpaint.models.loss_terms import AdversarialTerm
from tfinpaint.models.recompute import recomputing
from tfinpaint.models.visible_batchnorm import encoder_batchnorms, over_visible
from tfinpaint.train.gradients import replace_gradients
from tfinpaint.train.loss import CombinedLoss, LossShares
from tfinpaint.train.loss_scale import LossScale

GRADIENTS, LOSS = 1, 2  # codes of what was not finite on a rank; their sum for both

Sums = dict[str, tf.Tensor]


class ControlFlags(NamedTuple):
    """What a rank asks of all ranks, which do it between the same two steps.

    Attributes:
        save: save a checkpoint.
        stop: save a checkpoint and end the run for now.
        rejoin: save a checkpoint and continue the run with other ranks.
    """

    save: bool = False
    stop: bool = False
    rejoin: bool = False


class StepStatus(NamedTuple):
    """How a step went, equal on all ranks. Reading a tensor of it waits for the device.

    Attributes:
        stopped: bool scalar, whether this step or one before it has stopped training.
        nonfinite: float32 [ranks], what was not finite on each rank: 0, or GRADIENTS, LOSS or their sum.
        flags: float32 [flags], above 0 for each of `ControlFlags` that any rank has set.
    """

    stopped: tf.Tensor
    nonfinite: tf.Tensor
    flags: tf.Tensor


class TrainingStep:
    """A training step of a model and its optimizer, taken by all ranks together.

    Each rank divides its loss by its share of the weight of all ranks' examples, and gradients are averaged over the
    ranks before the optimizer sees them. A step that is not finite on one rank is left out by all of them.

    Attributes:
        flags: float32 [flags], what this rank asks for in the next step.
    """

    def __init__(
        self,
        parts: DividedModel,
        optimizer: keras.Optimizer | None,
        loss: CombinedLoss,
        adversarial_term: AdversarialTerm | None,
        world: World,
        *,
        jit_compile: bool,
        accumulate_steps: int,
        clip_norm: float | None,
        scale_loss: bool,
        recompute: bool,
        visible_only: bool,
    ) -> None:
        replace_gradients()
        self._visible_only = encoder_batchnorms(parts.trained) if visible_only else []
        self._parts, self._optimizer, self._adversarial_term = parts, optimizer, adversarial_term
        self._forward = (
            recomputing(parts, jit_compile=jit_compile) if recompute else partial(parts.trained, training=True)
        )
        self._loss, self._world = loss, world
        self._accumulate_steps, self._clip_norm = accumulate_steps, clip_norm
        if adversarial_term:
            adversarial_term.optimizer.build(adversarial_term.discriminator.trainable_variables)
        if optimizer is not None:
            optimizer.build(parts.whole.trainable_variables)
        self._loss_scale = LossScale(optimizer) if optimizer is not None and scale_loss else None
        self.flags = tf.Variable(tf.zeros(len(ControlFlags._fields)), trainable=False)
        with tf.device("CPU:0"):
            self._stopped = tf.Variable(False, trainable=False)  # for good: no later step changes anything
        # Without AutoGraph, which has nothing to convert here and takes as long as all the rest of the tracing.
        self._forward_backward = tf.function(self.gradients, jit_compile=jit_compile or None, autograph=False)
        self._traced = tf.function(self._take, reduce_retracing=True, autograph=False)

    def __call__(self, batch: Batch) -> tuple[Sums, StepStatus]:
        """Take a step; return this rank's sums over its examples, and how the step went."""
        return self._traced(dict(batch))

    def gradients(self, batch: Batch, shares: LossShares) -> tuple[Sums, list[tf.Tensor]]:
        """Return sums over these examples, and what they add to the gradients of the model and the discriminator."""
        with over_visible(self._visible_only, batch["mask"]) if self._visible_only else nullcontext():
            return self._gradients(batch, shares)

    def _gradients(self, batch: Batch, shares: LossShares) -> tuple[Sums, list[tf.Tensor]]:
        inputs = self._parts.inputs_of_trained(batch)
        with tf.GradientTape(persistent=self._adversarial_term is not None) as tape:
            outputs = self._forward(inputs)
            losses, weights = self._loss.by_example(batch, outputs), self._loss.weights(batch)
            part = tf.cast(tf.shape(weights)[0], tf.float32) / shares.images
            penalty = part * sum(self._parts.trained.losses)  # of the regularizers in a network file
            total = shares.scale * self._loss.total(penalty, losses, weights, shares)
            if self._adversarial_term:
                discriminator_loss = shares.scale * tf.reduce_sum(losses["discriminator_loss"]) / shares.images
        gradients = tape.gradient(total, self._parts.whole.trainable_variables)
        if self._adversarial_term:
            variables = self._adversarial_term.discriminator.trainable_variables
            gradients += tape.gradient(discriminator_loss, variables)
        return self._loss.sums(batch, outputs, losses, weights), gradients

    def _accumulate(self, batch: Batch, shares: LossShares) -> tuple[Sums, list[tf.Tensor]]:
        """Return `gradients` of a batch, computed in equal parts one after another.

        The last part is not in the loop, so that its gradients can travel while others are still computed.
        """
        parts = self._accumulate_steps
        if parts == 1:
            return self._forward_backward(batch, shares)
        stacked = {name: tf.reshape(v, [parts, -1, *v.shape[1:]]) for name, v in tensors_of(batch).items()}

        def compute(part: int | tf.Tensor) -> list[tf.Tensor]:
            return tf.nest.flatten(self._forward_backward({name: v[part] for name, v in stacked.items()}, shares))

        def add(part: tf.Tensor, *so_far: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return part + 1, *(a + b for a, b in zip(so_far, compute(part), strict=True))

        form = self._forward_backward.get_concrete_function(
            {name: tf.TensorSpec(v.shape[1:], v.dtype) for name, v in stacked.items()}, shares
        ).structured_outputs
        zeros = [tf.zeros(t.shape, t.dtype) for t in tf.nest.flatten(form)]
        _, *so_far = tf.while_loop(lambda part, *_: part < parts - 1, add, (0, *zeros), parallel_iterations=1)
        with tf.control_dependencies(so_far):
            last = compute(parts - 1)
        return tf.nest.pack_sequence_as(form, [a + b for a, b in zip(so_far, last, strict=True)])

    def _take(self, batch: Batch) -> tuple[Sums, StepStatus]:
        assert self._optimizer is not None, "a trainer without an optimizer only evaluates"
        world = self._world
        weights = self._loss.weights(batch)
        weight, images = tf.reduce_sum(weights), tf.cast(tf.shape(weights)[0], tf.float32)
        if self._loss.is_weighted:
            weight = world.all_reduce_sum(weight, "weight") / world.size
        scale = self._loss_scale.value if self._loss_scale else tf.constant(1.0)
        state = [(variable, tf.identity(variable.value)) for variable in self._forward_state()]
        sums, gradients = self._accumulate(batch, LossShares(weight, images, scale))
        status = tf.concat([self._find_nonfinite(sums, gradients), self.flags], axis=0)
        nonfinite, flags = tf.split(world.all_reduce_sum(status, "flags"), [world.size, len(ControlFlags._fields)])
        gradients = world.average_gradients(gradients)
        finite = tf.reduce_all(nonfinite == 0)
        if world.compression:  # what is finite on its own rank may have become infinite on its way
            finite &= are_finite(gradients)
        tf.cond(
            finite & ~self._stopped,
            lambda: self._apply([g / scale for g in gradients] if self._loss_scale else gradients),
            lambda: _put_back(state),
        )
        hopeless = ~finite
        if self._loss_scale:
            # Half the scale may help the gradients, as long as it can still fall; it does not help the loss.
            hopeless &= (scale / 2 <= 1) | tf.reduce_any(nonfinite >= LOSS)
        self._stopped.assign(self._stopped | hopeless)
        if self._loss_scale:
            self._loss_scale.update(finite, unless=tf.identity(self._stopped))
        return sums, StepStatus(tf.identity(self._stopped), nonfinite, flags)

    def _forward_state(self) -> list[keras.Variable]:
        """Return what the forward pass changes: batch-norm statistics and the states of seed generators."""
        models = [self._parts.trained, *([self._adversarial_term.discriminator] if self._adversarial_term else [])]
        return [variable for model in models for variable in model.non_trainable_variables]

    def _find_nonfinite(self, sums: Mapping[str, tf.Tensor], gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return float32 [ranks]: at this rank's place the code of what is not finite, 0 elsewhere."""
        loss = tf.reduce_all([tf.math.is_finite(sums[name]) for name in self._loss.shares])
        code = GRADIENTS * tf.cast(~are_finite(gradients), tf.float32) + LOSS * tf.cast(~loss, tf.float32)
        return tf.one_hot(self._world.rank, self._world.size) * code

    def _apply(self, gradients: list[tf.Tensor]) -> tf.Operation:
        """Update the weights of model and discriminator by their averaged gradients."""
        variables, term = self._parts.whole.trainable_variables, self._adversarial_term
        own, others = gradients[: len(variables)], gradients[len(variables) :]
        assert self._optimizer is not None
        self._optimizer.apply(self._clip(own, self._clip_norm, "model_norm"), variables)
        if term:
            clipped = self._clip(others, term.clip_norm, "discriminator_norm")
            term.optimizer.apply(clipped, term.discriminator.trainable_variables)
        return tf.no_op()

    def _clip(self, gradients: list[tf.Tensor], clip_norm: float | None, name: str) -> list[tf.Tensor]:
        """Scale gradients down to a global norm (Pascanu, Mikolov, Bengio, arXiv 1211.5063, Algorithm 1)."""
        if clip_norm is None:
            return gradients
        # Hosts with other numbers of cores sum in another order, and replicas must not differ in the last bit.
        norm = self._world.all_reduce_mean(tf.linalg.global_norm(gradients), name)
        return tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)[0]


def are_finite(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return a bool scalar: whether no gradient has an inf or a nan."""
    return tf.math.is_finite(tf.add_n([tf.nn.l2_loss(gradient) for gradient in gradients]))


def _put_back(state: Sequence[tuple[keras.Variable, tf.Tensor]]) -> tf.Operation:
    """Undo what the forward pass has changed, so that a step that is left out leaves nothing behind."""
    for variable, before in state:
        variable.assign(before)
    return tf.no_op()
