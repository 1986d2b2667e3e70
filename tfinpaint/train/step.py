"""One training step: losses, gradients, their average over the ranks, and the update. Tensors only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.batch import Batch, tensors_of
from tfinpaint.distributed.world import World
from tfinpaint.models.agreement import pool
from tfinpaint.models.decoder import encoder_part
from tfinpaint.models.frozen import DividedModel
from tfinpaint.models.loss_terms import AdversarialTerm, AgreementTerm
from tfinpaint.models.training_pass import build_training_pass
from tfinpaint.models.visible_batchnorm import encoder_batchnorms, over_visible
from tfinpaint.train.gradients import replace_gradients
from tfinpaint.train.loss import AGREEMENT, RECONSTRUCTION, CombinedLoss, LossShares
from tfinpaint.train.loss_scale import LossScale
from tfinpaint.train.view_measures import MOST_ROWS, measure_features

GRADIENTS, LOSS = 1, 2  # codes of what was not finite on a rank; their sum for both

Sums = dict[str, tf.Tensor]


@dataclass(frozen=True)
class StepOptions:
    """How a training step is computed, whatever the loss is.

    Attributes:
        jit_compile: compile forward and backward pass with XLA; the collectives and the update stay outside it.
        accumulate_steps: number of equal parts in which a batch is computed, one after another.
        clip_norm: largest global norm of the model's gradients; they are scaled down to it.
        scale_loss: scale the loss dynamically, for gradients that are float16 in the backward pass or when sent.
        recompute: names of the layers that end the encoder's blocks, which are computed again in the backward pass, to
            need less memory; (): nothing is computed twice.
        visible_only: batch norms of the built-in encoder leave erased positions out. Batches then have "mask".
    """

    jit_compile: bool = False
    accumulate_steps: int = 1
    clip_norm: float | None = None
    scale_loss: bool = False
    recompute: Collection[str] = ()
    visible_only: bool = False


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
        agreement_term: AgreementTerm | None,
        world: World,
        options: StepOptions,
    ) -> None:
        replace_gradients()
        self._visible_only = encoder_batchnorms(parts.trained) if options.visible_only else []
        self._parts, self._optimizer, self._loss, self._world = parts, optimizer, loss, world
        self._adversarial_term, self._agreement_term = adversarial_term, agreement_term
        self.forward = build_training_pass(
            parts, layer=agreement_term.layer if agreement_term else None, restores=loss.restores,
            recompute=options.recompute, jit_compile=options.jit_compile,
        )  # fmt: skip
        self._accumulate_steps, self._clip_norm = options.accumulate_steps, options.clip_norm
        if adversarial_term:
            adversarial_term.optimizer.build(adversarial_term.discriminator.trainable_variables)
        if agreement_term:
            agreement_term.optimizer.build(agreement_term.projector.trainable_variables)
        if optimizer is not None:
            optimizer.build(parts.whole.trainable_variables)
        self._loss_scale = LossScale(optimizer) if optimizer is not None and options.scale_loss else None
        self.flags = tf.Variable(tf.zeros(len(ControlFlags._fields)), trainable=False)
        with tf.device("CPU:0"):
            self._stopped = tf.Variable(False, trainable=False)  # for good: no later step changes anything
        # Without AutoGraph, which has nothing to convert here and takes as long as all the rest of the tracing.
        self._measured = tf.function(self._measure_parts, autograph=False)
        self._forward_backward = tf.function(self.gradients, jit_compile=options.jit_compile or None, autograph=False)
        self._traced = tf.function(self._take, reduce_retracing=True, autograph=False)

    def __call__(self, batch: Batch) -> tuple[Sums, StepStatus]:
        """Take a step; return this rank's sums over its examples, and how the step went."""
        return self._traced(dict(batch))

    def gradients(self, batch: Batch, shares: LossShares) -> tuple[Sums, list[tf.Tensor]]:
        """Return sums over these examples, and what they add to the gradients of all trained networks.

        Gradients are those of the model, then those of the projector, then those of the discriminator.
        """
        with self._over_visible(batch):
            return self._gradients(batch, shares)

    def _over_visible(self, batch: Batch) -> AbstractContextManager[None]:
        """Within a `with` statement, have batch norms leave erased positions out, where they are to."""
        return over_visible(self._visible_only, batch["mask"]) if self._visible_only else nullcontext()

    def _gradients(self, batch: Batch, shares: LossShares) -> tuple[Sums, list[tf.Tensor]]:
        inputs = self._parts.inputs_of_trained(batch)
        with tf.GradientTape(persistent=self._adversarial_term is not None) as tape:
            computed = self.forward(inputs)
            losses, weights = self._loss.by_example(batch, computed), self._loss.weights(batch)
            part = tf.cast(tf.shape(weights)[0], tf.float32) / shares.images
            penalty = part * sum(self._parts.trained.losses)  # of the regularizers in a network file
            total = shares.scale * self._loss.total(penalty, losses, weights, shares)
            if self._adversarial_term:
                discriminator_loss = shares.scale * tf.reduce_sum(losses["discriminator_loss"]) / shares.images
        trained = list(self._parts.whole.trainable_variables)
        if self._agreement_term:
            trained += self._agreement_term.projector.trainable_variables
        gradients = tape.gradient(total, trained)
        if self._adversarial_term:
            variables = self._adversarial_term.discriminator.trainable_variables
            gradients += tape.gradient(discriminator_loss, variables)
        return self._loss.sums(batch, computed.outputs, losses, weights), gradients

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

    def measure_views(self, batch: Batch) -> dict[str, float]:
        """Return what `view_measures.measure_features` says of a batch of two views, and norms of gradients.

        "reconstruction_gradient_norm" and "agreement_gradient_norm" are those of the weighted parts of the loss in the
        encoder's weights. They, and the features, are those of the batch of all ranks; the model does not change.
        """
        state = [(variable, variable.numpy()) for variable in self._forward_state()]
        features, gradients = self._measured(dict(batch))
        for variable, before in state:
            variable.assign(before)
        scale = float(self._scale())
        norms = {
            name.replace("_loss", "_gradient_norm"): float(tf.linalg.global_norm(averaged)) / scale
            for name, averaged in ((name, self._world.average_gradients(each)) for name, each in gradients.items())
        }
        images = len(features) // 2
        rows = features.numpy().reshape(2, images, -1)[:, : max(1, MOST_ROWS // (2 * self._world.size))]
        views = self._world.all_gather_rows(rows)  # [ranks, 2, images, width]
        return measure_features(*(np.concatenate(views[:, view]) for view in range(2))) | norms

    def _measure_parts(self, batch: Batch) -> tuple[tf.Tensor, dict[str, list[tf.Tensor]]]:
        """Return the pooled features of this rank, and what each part of the loss adds to the encoder's gradients.

        These are scaled as in a step, so that small ones do not vanish in float16.
        """
        assert self._agreement_term
        inputs, weights = self._parts.inputs_of_trained(batch), self._loss.weights(batch)
        shares = LossShares(*self._weight_and_images(weights), self._scale())
        encoder = encoder_part(self._parts.whole, self._agreement_term.layer)
        with self._over_visible(batch):  # also while blocks are computed again
            with tf.GradientTape(persistent=True) as tape:
                computed = self.forward(inputs)
                losses = self._loss.by_example(batch, computed)
                names = [name for name in (RECONSTRUCTION, AGREEMENT) if name in losses]
                parts = {name: shares.scale * self._loss.part(name, losses, weights, shares) for name in names}
            gradients = {name: tape.gradient(part, encoder.trainable_variables) for name, part in parts.items()}
        return pool(computed.features), gradients

    def _weight_and_images(self, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean over the ranks of the summed weights, and the number of images of this rank."""
        weight, images = tf.reduce_sum(weights), tf.cast(tf.shape(weights)[0], tf.float32)
        if self._loss.is_weighted:
            weight = self._world.all_reduce_sum(weight, "weight") / self._world.size
        return weight, images

    def _scale(self) -> tf.Tensor:
        """Return the factor of the loss, and so of its gradients."""
        return self._loss_scale.value if self._loss_scale else tf.constant(1.0)

    def _take(self, batch: Batch) -> tuple[Sums, StepStatus]:
        assert self._optimizer is not None, "a trainer without an optimizer only evaluates"
        world = self._world
        weight, images = self._weight_and_images(self._loss.weights(batch))
        scale = self._scale()
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
        models = [self._parts.trained]
        if self._agreement_term:
            models.append(self._agreement_term.projector)
        if self._adversarial_term:
            models.append(self._adversarial_term.discriminator)
        return [variable for model in models for variable in model.non_trainable_variables]

    def _find_nonfinite(self, sums: Mapping[str, tf.Tensor], gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return float32 [ranks]: at this rank's place the code of what is not finite, 0 elsewhere."""
        loss = tf.reduce_all([tf.math.is_finite(sums[name]) for name in self._loss.shares])
        code = GRADIENTS * tf.cast(~are_finite(gradients), tf.float32) + LOSS * tf.cast(~loss, tf.float32)
        return tf.one_hot(self._world.rank, self._world.size) * code

    def _apply(self, gradients: list[tf.Tensor]) -> tf.Operation:
        """Update the weights of all trained networks by their averaged gradients."""
        assert self._optimizer is not None
        networks = [("model_norm", self._parts.whole, self._optimizer, self._clip_norm)]
        if term := self._agreement_term:
            networks.append(("projector_norm", term.projector, term.optimizer, term.clip_norm))
        if rival := self._adversarial_term:
            networks.append(("discriminator_norm", rival.discriminator, rival.optimizer, rival.clip_norm))
        rest = iter(gradients)
        for name, network, optimizer, clip_norm in networks:
            own = [gradient for _, gradient in zip(network.trainable_variables, rest, strict=False)]
            optimizer.apply(self._clip(own, clip_norm, name), network.trainable_variables)
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
