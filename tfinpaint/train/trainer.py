"""Train and evaluate a Keras model on every rank as if there were one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import cast

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.batch import Batch, tensors_of
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.models.loss_terms import AdversarialTerm, PerceptualTerm
from tfinpaint.models.losses import Objective, PerExample
from tfinpaint.models.trainable import named_variables, names_in
from tfinpaint.train.batchnorm import batchnorm_layers
from tfinpaint.train.loss_scale import LossScale
from tfinpaint.train.step import NOTHING, ControlFlags, LossShares, PendingStep, are_finite, put_back
from tfinpaint.train.totals import EpochResult, PartialEpoch, Totals, name_ranks

ReadLoss = Callable[[], float]
# (batch, its loss, where) of the step that has stopped training -> the file that keeps it, None if there is none
OnNonfinite = Callable[[Batch, float, str], str | None]
Measure = Callable[[Batch, tf.Tensor], Mapping[str, tf.Tensor]]  # (batch, outputs) -> float32 [batch] by name


Pause = Callable[
    [int, ControlFlags, Callable[[], PartialEpoch]], None
]  # (steps done of the epoch, what is asked, the epoch)


# Beside a step's sums: what was not finite, at each rank's place (0, or GRADIENTS, LOSS or both); whether training has
# been stopped by this step or one before; above 0 at the places of `Asked` that any rank has asked for.
NONFINITE, STOPPED, ASKED = "spoilt", "stopped", "asked"
GRADIENTS, LOSS = 1, 2


class Trainer:
    """A model, its optimizer and its objective, stepped together on all ranks.

    The loss is the mean over the global batch, weighted where the objective has weights: each rank divides by its share
    of the weight of all ranks' examples, and gradients are averaged over the ranks before the optimizer sees them.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.Optimizer | None,
        objective: Objective | None,
        metrics: Mapping[str, PerExample] | None = None,
        measure: Measure | None = None,
        *,
        adversarial_term: AdversarialTerm | None = None,
        perceptual_term: PerceptualTerm | None = None,
        world: World,
        jit_compile: bool = False,
        accumulate_steps: int = 1,
        clip_norm: float | None = None,
        scale_loss: bool = False,
    ) -> None:
        """
        Args:
            model: built, with its layers' `trainable` flags already set.
            optimizer: None for a model that is only evaluated.
            objective: what is minimised; None for a model that only predicts.
            metrics: functions from (targets, outputs) to float32 [batch], whose means are reported.
            measure: what is reported of evaluations alone.
            adversarial_term, perceptual_term: further parts of the loss. Batches then have "originals" and "mask".
            jit_compile: compile forward and backward with XLA; the collectives and the update stay outside it.
            accumulate_steps: equal parts in which a batch is computed, one after another.
            clip_norm: largest global norm of the model's gradients; they are scaled down to it.
            scale_loss: scale it dynamically, where gradients are float16 in backward or on their way.
        """
        self.model, self.optimizer, self.adversarial_term, self.world = model, optimizer, adversarial_term, world
        self._accumulate_steps, self._clip_norm = accumulate_steps, clip_norm
        self._objective, self._metrics, self._measure = objective or NOTHING, dict(metrics or {}), measure
        self._parts = [part for part in (adversarial_term, perceptual_term) if part is not None]
        self._shares = {"reconstruction_loss": 1.0 - adversarial_term.weight if adversarial_term else 1.0}
        if adversarial_term:
            adversarial_term.optimizer.build(adversarial_term.discriminator.trainable_variables)
            self._shares["adversarial_loss"] = adversarial_term.weight
        if perceptual_term:
            self._shares["perceptual_loss"] = perceptual_term.weight
        if optimizer is not None:
            optimizer.build(model.trainable_variables)
        self._loss_scale = LossScale(optimizer) if optimizer is not None and scale_loss else None
        self._asked = tf.Variable(tf.zeros(len(ControlFlags._fields)), trainable=False)
        self._asked_now = self._awaited = (
            ControlFlags()
        )  # what is in that variable; what was asked for and not read yet
        with tf.device("CPU:0"):
            self._stopped = tf.Variable(False, trainable=False)  # for good: no later step changes anything
        self.on_nonfinite: OnNonfinite | None = None
        # Without AutoGraph, which has nothing to convert here and takes as long as all the rest of the tracing.
        function = functools.partial(tf.function, reduce_retracing=True, autograph=False)
        self._forward_backward = tf.function(self._gradients, jit_compile=jit_compile or None, autograph=False)
        self._train_step, self._test_step = function(self._update), function(self._test)
        self._predict_step = function(lambda inputs: self.model(inputs, training=False))

    def synchronise(self) -> None:
        """Start every rank from the weights and optimizer state of rank 0, each with randomness of its own."""
        state = self.optimizer.variables if self.optimizer is not None else []
        self.world.broadcast_variables(
            [*self.model.variables, *state, *(self.adversarial_term.variables if self.adversarial_term else [])]
        )
        # Dropout draws from these: equal on all ranks, they would drop the same features of the ranks' n-th examples.
        generators = self._generators
        first = self.world.all_gather([v.numpy().tolist() for v in generators])[0]
        for generator, (seed, drawn) in zip(generators, first, strict=True):
            generator.assign([(seed + self.world.rank) % 2**32, drawn])

    def trained(self) -> dict[str, int]:
        """Name of each trained weight -> for how many updates it has been trained, in the optimizer's order."""
        assert self.optimizer is not None
        names = names_in(self.model, self.model.trainable_variables)
        return dict(zip(names, self.optimizer.ages(), strict=True))

    def place(self, step: int) -> None:
        """Count `step` updates as done: schedules of learning rates go by their number."""
        for optimizer in (self.optimizer, self.adversarial_term.optimizer if self.adversarial_term else None):
            if optimizer is not None:
                optimizer.place(step)

    def check_replicas_equal(self, *, within_epoch: bool = False) -> None:
        """Compare a digest of the weights over the ranks.

        Args:
            within_epoch: of those that are trained alone; batch-norm statistics are equal at the ends of epochs.

        Raises:
            UserError: the weights of a rank are not finite, or the ranks hold different ones.
        """
        models = [self.model, *([self.adversarial_term.discriminator] if self.adversarial_term else [])]
        digest, finite = hashlib.sha256(), True
        for variable in (v for m in models for v in (m.trainable_variables if within_epoch else m.weights)):
            values = np.ascontiguousarray(variable.value.read_value())
            digest.update(values.data)
            finite &= bool(np.isfinite(values).all())
        ranks = self.world.all_gather({"digest": digest.hexdigest(), "finite": finite})
        if spoilt := [rank for rank, each in enumerate(ranks) if not each["finite"]]:
            raise UserError(f"the weights of {name_ranks(spoilt)} are not finite (inf or nan); go on from a checkpoint")
        digests = [each["digest"] for each in ranks]
        if len(set(digests)) > 1:
            usual = max(digests, key=digests.count)
            others = [rank for rank, digest in enumerate(digests) if digest != usual]
            raise UserError(f"the ranks hold different weights: {name_ranks(others)} not those of the others")

    def _gradients(self, batch: Batch, shares: LossShares) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Sums over these examples; what they add to the gradients of the model's, then the discriminator's loss."""
        with tf.GradientTape(persistent=self.adversarial_term is not None) as tape:
            outputs = self.model(batch["inputs"], training=True)
            losses, weights = self._losses(batch, outputs)
            part = tf.cast(tf.shape(weights)[0], tf.float32) / shares.images
            total = part * sum(self.model.losses)  # penalties, of the regularizers of a network file
            for name, share in self._shares.items():
                if name == "reconstruction_loss":
                    total += share * tf.math.divide_no_nan(tf.reduce_sum(losses[name] * weights), shares.weight)
                else:
                    total += share * tf.reduce_sum(losses[name]) / shares.images
            total *= shares.scale
            judged = (
                shares.scale * tf.reduce_sum(losses["discriminator_loss"]) / shares.images
                if self.adversarial_term
                else None
            )
        gradients = tape.gradient(total, self.model.trainable_variables)
        if self.adversarial_term:
            gradients += tape.gradient(judged, self.adversarial_term.discriminator.trainable_variables)
        return self._sums(batch, outputs, losses, weights), gradients

    def _accumulated(self, batch: Batch, shares: LossShares) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """`_gradients` of a batch, in parts one after another.

        The last part is no pass of the loop, so that its gradients can travel while others are still computed.
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

    def _losses(self, batch: Batch, outputs: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """(every part of the loss, the weight of each example in the reconstruction), all float32 [batch]."""
        losses = {"reconstruction_loss": self._objective.per_example(batch, outputs)}
        for part in self._parts:
            losses |= part.losses(batch, outputs)
        return losses, self._weights(batch)

    def _weights(self, batch: Batch) -> tf.Tensor:
        if self._objective.weight is None:
            return tf.ones(tf.shape(batch["inputs"])[:1])
        return self._objective.weight(batch)

    def _update(self, batch: Batch) -> dict[str, tf.Tensor]:
        assert self.optimizer is not None, "a trainer without an optimizer only evaluates"
        weights = self._weights(batch)
        weight, images = tf.reduce_sum(weights), tf.cast(tf.shape(weights)[0], tf.float32)
        if self._objective.weight is not None:
            weight = self.world.all_reduce_sum(weight, "weight") / self.world.size
        scale = self._loss_scale.value if self._loss_scale else tf.constant(1.0)
        state = [(variable, tf.identity(variable.value)) for variable in self._state]  # forward changes it
        sums, gradients = self._accumulated(batch, LossShares(weight, images, scale))
        told = self.world.all_reduce_sum(tf.concat([self._nonfinite(sums, gradients), self._asked], axis=0), "told")
        spoilt, asked = told[: self.world.size], told[self.world.size :]
        gradients = self.world.average_gradients(gradients)
        # The ranks decide as one: what is spoilt on one of them is left out by all.
        finite = tf.reduce_all(spoilt == 0)
        if self.world.compression:  # what is finite here may have become infinite on its way
            finite &= are_finite(gradients)
        tf.cond(
            finite & ~self._stopped,
            lambda: self._apply([g / scale for g in gradients] if self._loss_scale else gradients),
            lambda: put_back(state),
        )
        hopeless = ~finite
        if self._loss_scale:
            # Half the scale may help gradients, where it can still fall; a loss that is not finite it does not help.
            hopeless &= (scale / 2 <= 1) | tf.reduce_any(spoilt >= LOSS)
        self._stopped.assign(self._stopped | hopeless)
        if self._loss_scale:
            self._loss_scale.update(finite, unless=tf.identity(self._stopped))
        return {**sums, NONFINITE: spoilt, STOPPED: tf.identity(self._stopped), ASKED: asked}

    @property
    def _state(self) -> list[keras.Variable]:
        """What a step changes beside the update: batch-norm statistics, the states of seed generators."""
        models = [self.model, *([self.adversarial_term.discriminator] if self.adversarial_term else [])]
        return [variable for model in models for variable in model.non_trainable_variables]

    def _nonfinite(self, sums: Mapping[str, tf.Tensor], gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """float32 [ranks]: at this rank's place what of its own is not finite, GRADIENTS + LOSS."""
        loss = tf.reduce_all([tf.math.is_finite(sums[name]) for name in self._shares])
        code = GRADIENTS * tf.cast(~are_finite(gradients), tf.float32) + LOSS * tf.cast(~loss, tf.float32)
        return tf.one_hot(self.world.rank, self.world.size) * code

    def _apply(self, gradients: list[tf.Tensor]) -> tf.Operation:
        """Update the weights of model and discriminator by their averaged gradients."""
        variables = self.model.trainable_variables
        own, others = gradients[: len(variables)], gradients[len(variables) :]
        assert self.optimizer is not None
        self.optimizer.apply(self._clipped(own, self._clip_norm, "model_norm"), variables)
        if self.adversarial_term:
            clipped = self._clipped(others, self.adversarial_term.clip_norm, "discriminator_norm")
            self.adversarial_term.optimizer.apply(clipped, self.adversarial_term.discriminator.trainable_variables)
        return tf.no_op()

    def _clipped(self, gradients: list[tf.Tensor], clip_norm: float | None, name: str) -> list[tf.Tensor]:
        """Scaled down to the global norm allowed (Pascanu, Mikolov, Bengio, arXiv 1211.5063, Algorithm 1)."""
        if clip_norm is None:
            return gradients
        # Hosts with other numbers of cores sum in another order; a difference in the last bit would part the ranks.
        norm = self.world.all_reduce_mean(tf.linalg.global_norm(gradients), name)
        return tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)[0]

    def _test(self, batch: Batch) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        outputs = self.model(batch["inputs"], training=False)
        measured = self._measure(batch, outputs) if self._measure else {}
        sums = {name: tf.reduce_sum(values) for name, values in measured.items()}
        return {**self._sums(batch, outputs, *self._losses(batch, outputs)), **sums}, outputs

    def _sums(
        self, batch: Batch, outputs: tf.Tensor, losses: Mapping[str, tf.Tensor], weights: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Over this rank's examples: of the weights, the weighted reconstruction, every other part and metric."""
        means = {name: values for name, values in losses.items() if name != "reconstruction_loss"}
        means |= {name: score(batch["targets"], outputs) for name, score in self._metrics.items()}
        return {
            "weight": tf.reduce_sum(weights),
            "reconstruction_loss": tf.reduce_sum(losses["reconstruction_loss"] * weights),
            **{name: tf.reduce_sum(values) for name, values in means.items()},
        }

    def examine(self, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """What a training step computes of a whole batch on this rank alone, without an update.

        Returns:
            The outputs and every part of the loss, by example; the gradients by the variables' paths.
        """
        batch = cast("Batch", {name: tf.convert_to_tensor(values) for name, values in arrays.items()})
        weights = self._weights(batch)
        images = tf.cast(tf.shape(weights)[0], tf.float32)
        _, gradients = self._gradients(batch, LossShares(tf.reduce_sum(weights), images, tf.constant(1.0)))
        outputs = self.model(batch["inputs"], training=True)
        losses, _ = self._losses(batch, outputs)
        variables = [*self.model.trainable_variables]
        variables += self.adversarial_term.discriminator.trainable_variables if self.adversarial_term else []
        named = {variable.path: g.numpy() for variable, g in zip(variables, gradients, strict=True)}
        return {name: tensor.numpy() for name, tensor in {"outputs": outputs, **losses}.items()}, named

    def predict(self, inputs: tf.Tensor) -> np.ndarray:
        """The model's outputs for a batch, in inference mode."""
        return self._predict_step(inputs).numpy()

    def train_steps(
        self,
        batches: Iterator[Batch],
        steps: int,
        on_step: Callable[[ReadLoss], None] | None = None,
        where: str = "training",
        *,
        so_far: PartialEpoch | None = None,
        ask: Callable[[], ControlFlags] = ControlFlags,
        pause: Pause | None = None,
    ) -> EpochResult:
        """Take the steps of an epoch.

        Args:
            batches: this rank's batches, {"inputs": ..., "targets": ...}, as many on every rank as there are steps.
            steps: of the whole epoch.
            on_step: called after each step with a function that reads this rank's loss; reading waits for the device.
            where: what these steps are, for messages.
            so_far: the steps of the epoch that an earlier process has done; `batches` begin after them.
            ask: called before each step for what this rank asks of all of them.
            pause: called after each step, on every rank with the same.

        Raises:
            UserError: a gradient, or the loss, was not finite, on any rank. Model and optimizer are those after the
                step before.
        """
        totals = Totals(self._shares, where, so_far)
        before: PendingStep | None = None
        for step in range(totals.steps + 1, steps + 1):
            self.world.report_task(f"in {where}, step {step}, reading images")
            batch = next(batches)
            self.world.report_task(f"in {where}, step {step}")
            self._ask(ask())
            sums = self._train_step(dict(batch))
            taken = PendingStep(step, batch, sums.pop(STOPPED), sums.pop(NONFINITE), sums.pop(ASKED))
            totals.add(sums, len(batch["inputs"]))
            if on_step:
                on_step(totals.last_loss)
            # One step late, so that no device waits until its result is read.
            asked = self._read(totals, before, where) if before else ControlFlags()
            before = taken
            if pause:
                pause(step, asked, functools.partial(self._export, totals, taken, where))
        asked = self._read(totals, before, where) if before else ControlFlags()
        if pause:
            # What came too late for these steps: the evaluation that follows may take longer than there is time.
            asked = ControlFlags(*np.any(self.world.all_gather([[*asked], [*ask()]]), axis=(0, 1)).tolist())
            if asked.stop or asked.rejoin:
                pause(steps, asked, totals.export)
        return totals.reduce(self.world)

    def _export(self, totals: Totals, taken: PendingStep, where: str) -> PartialEpoch:
        """The epoch with its newest step, once that has turned out well: nothing spoilt is ever saved."""
        self._check_step(totals, taken, where)
        return totals.export()

    def _ask(self, wishes: ControlFlags) -> None:
        """Ask in the coming step, once: what is read a step late would otherwise be granted twice."""
        asked = ControlFlags(*(wish and not awaited for wish, awaited in zip(wishes, self._awaited, strict=True)))
        if asked != self._asked_now:
            self._asked.assign(np.array(asked, np.float32))
            self._asked_now = asked
        self._awaited = ControlFlags(*np.logical_or(self._awaited, asked).tolist())

    def _read(self, totals: Totals, taken: PendingStep, where: str) -> ControlFlags:
        """Check what a step has left, and what was asked for in it."""
        self._check_step(totals, taken, where)
        asked = ControlFlags(*(taken.asked.numpy() > 0).tolist())
        self._awaited = ControlFlags(*(np.array(self._awaited) & ~np.array(asked)).tolist())
        return asked

    def _check_step(self, totals: Totals, taken: PendingStep, where: str) -> None:
        """Raise where this step has stopped training; all ranks do, and have kept their batches before."""
        if not taken.stopped:
            return
        where, codes = f"{where}, step {taken.step}", taken.spoilt.numpy().astype(int)
        kept = None
        if self.on_nonfinite and codes[self.world.rank]:
            kept = self.on_nonfinite(taken.batch, totals.loss_of(taken.step), where)
        files = [file for file in self.world.all_gather(kept) if file]
        spoilt_gradients, spoilt_losses = (np.flatnonzero(codes & kind).tolist() for kind in (GRADIENTS, LOSS))
        if spoilt_gradients or not spoilt_losses:
            whose = name_ranks(spoilt_gradients) if spoilt_gradients else "all ranks together, as float16,"
            what = f"the gradients of {whose} are"
        else:
            what = f"the loss on the images of {name_ranks(spoilt_losses)} is"
        raise UserError(
            f"{where}: {what} not finite (inf or nan); model and optimizer are those of the step before. "
            + (f"Look into {', '.join(files)} with tfinpaint replay. " if files else "")
            + "Lower optimizer.learning_rate or set optimizer.clip_norm, then start anew, or --resume from a checkpoint"
        )

    def evaluate(
        self,
        batches: Iterable[Batch],
        on_batch: Callable[[Batch, tf.Tensor], None] | None = None,
        where: str = "evaluation",
    ) -> EpochResult:
        """Score every example of every rank's batches once.

        Args:
            batches: this rank's share; ranks may have different numbers of batches.
            on_batch: called with each batch and the model's outputs for it.
            where: what is evaluated, for messages.

        Raises:
            UserError: the loss was not finite, on any rank.
        """
        totals = Totals(self._shares, where)
        self.world.report_task(f"in {where}")
        for batch in batches:
            self.world.report_activity()
            sums, outputs = self._test_step(dict(batch))
            totals.add(sums, len(batch["inputs"]))
            if on_batch:
                on_batch(batch, outputs)
        return totals.reduce(self.world)

    def average_statistics(self) -> None:
        """Average the batch-norm statistics over the ranks, so that all evaluate and save one and the same model."""
        self.world.average_variables(self._statistics)

    @property
    def _statistics(self) -> list[keras.Variable]:
        """Of the batch norms that are trained: within an epoch, each rank has those of its own batches."""
        norms = batchnorm_layers(self.model, trainable=True)
        return [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]

    @property
    def _generators(self) -> list[keras.Variable]:
        return [v for v in self.model.variables if "seed_generator" in v.path]

    def own_state(self, *, statistics: bool) -> np.ndarray:
        """Return float64 [numbers]: what of the model differs between ranks, for `restore_own_state` alone.

        Args:
            statistics: with those of the batch norms; without them, all ranks go on with rank 0's.
        """
        variables = self._own(statistics=statistics)
        return np.concatenate([np.zeros(0), *(v.numpy().astype(np.float64).ravel() for v in variables)])

    def own_names(self, *, statistics: bool) -> tuple[str, ...]:
        """Return the names of the variables that `own_state` gives."""
        return names_in(self.model, self._own(statistics=statistics))

    def _own(self, *, statistics: bool) -> list[keras.Variable]:
        return [*(self._statistics if statistics else []), *self._generators]

    def restore_own_state(self, rows: np.ndarray, names: Sequence[str]) -> None:
        """Take back what each rank knew alone; the means of what they knew with other ranks than then.

        The statistics of a batch norm that is frozen now are means, too: no rank has its own any more.

        Args:
            rows: float64 [ranks then, numbers].
            names: `own_names` of the run that knew this.

        Raises:
            UserError: these are the numbers of another model.
        """
        by_name = named_variables(self.model)
        variables = [by_name[name] for name in names if name in by_name]
        sizes = [int(np.prod(v.shape)) for v in variables]
        if len(variables) != len(names) or sum(sizes) != rows.shape[1]:
            raise UserError("the checkpoint's batch-norm statistics are those of another model; start anew")
        same_ranks, own = len(rows) == self.world.size, {id(v) for v in self._own(statistics=True)}
        seeds = {id(v) for v in self._generators}
        starts = np.cumsum([0, *sizes])[:-1]
        for variable, start, size in zip(variables, starts, sizes, strict=True):
            if id(variable) in seeds and not same_ranks:
                continue
            known = rows[:, start : start + size]
            values = known[self.world.rank] if same_ranks and id(variable) in own else known.mean(axis=0)
            variable.assign(values.reshape(variable.shape).astype(variable.dtype))
