"""Train and evaluate a Keras model on every rank as if there were one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, cast

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.batch import Batch, input_of
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.models.frozen import DividedModel, divide
from tfinpaint.models.loss_terms import AdversarialTerm, AgreementTerm, PerceptualTerm
from tfinpaint.models.losses import Objective, PerExample
from tfinpaint.models.trainable import names_in
from tfinpaint.models.training_pass import Computed
from tfinpaint.train.base_optimizer import BaseOptimizer
from tfinpaint.train.loss import CombinedLoss, LossShares, Measure
from tfinpaint.train.mixup import Mixup
from tfinpaint.train.rank_state import seed_states
from tfinpaint.train.step import GRADIENTS, LOSS, ControlFlags, StepOptions, StepStatus, Sums, TrainingStep
from tfinpaint.train.totals import EpochResult, PartialEpoch, Totals, name_ranks

ReadLoss = Callable[[], float]
# (batch, its loss, where) of the step that has stopped training -> the file that keeps it, None if there is none
OnNonfinite = Callable[[Batch, float, str], str | None]
# (steps done of the epoch, what is asked for, exports the epoch so far)
Pause = Callable[[int, ControlFlags, Callable[[], PartialEpoch]], None]


class PendingStep(NamedTuple):
    """A step whose status has not been read yet."""

    step: int
    batch: Batch
    status: StepStatus


class Trainer:
    """A model, its optimizer and its objective, trained and evaluated by all ranks together.

    The loss is the mean over the global batch, weighted where the objective has weights.

    Attributes:
        parts: the model, divided behind the frozen layers that it begins with.
        on_nonfinite: keeps this rank's batch of the step that has stopped training; None to keep none.
        how_to_continue: returns what to do after training has stopped at values that are not finite, for the message.
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
        agreement_term: AgreementTerm | None = None,
        reconstruction_weight: float = 1.0,
        world: World,
        mixes: bool = False,
        step_options: StepOptions | None = None,
    ) -> None:
        """
        Args:
            model: built, with its layers' `trainable` flags already set.
            optimizer: None for a model that is only evaluated.
            objective: what is minimised; None for a model that only predicts.
            metrics: functions from (targets, outputs) to float32 [batch], whose means are reported.
            measure: function from (batch, outputs) to more such metrics, which only evaluations report.
            adversarial_term, perceptual_term: further terms of the loss. Batches then have "originals" and "mask".
            agreement_term: another term of the loss, in training alone. Batches then have two views of each image.
            reconstruction_weight: of the reconstruction and the first two terms, beside the agreement; 0: views are
                compared alone, and what is behind the layer of the agreement is not trained.
            mixes: mix each image with another one of the batch of all ranks. Batches then have "shares" and "order".
            step_options: how a training step is computed; None: as `StepOptions` has it by default.
        """
        self.model, self.optimizer, self.world = model, optimizer, world
        self.adversarial_term, self.agreement_term = adversarial_term, agreement_term
        self.parts = divide(model) if optimizer is not None else DividedModel(model, None, model)
        self.on_nonfinite: OnNonfinite | None = None
        self.how_to_continue: Callable[[], str] = lambda: "start again"
        self._measure, self._mix = measure, Mixup(world) if mixes else None
        self._loss = CombinedLoss(
            objective, metrics, adversarial_term, perceptual_term, agreement_term,
            reconstruction_weight=reconstruction_weight,
        )  # fmt: skip
        self._step = TrainingStep(
            self.parts, optimizer, self._loss, adversarial_term, agreement_term, world, step_options or StepOptions()
        )
        self._sent = self._pending = ControlFlags()  # what the next step asks for; what was asked for and not read yet
        function = functools.partial(tf.function, reduce_retracing=True, autograph=False)
        self._test_step = function(self._test)
        self._predict_step = function(lambda inputs: self.model(inputs, training=False))
        self._features_step = function(lambda inputs: self.parts.inputs_of_trained({"inputs": inputs}))

    @property
    def companions(self) -> dict[str, tuple[keras.Model, keras.Optimizer]]:
        """The networks that are trained beside the model, by name, each with its optimizer."""
        found = {}
        if term := self.agreement_term:
            found["projector"] = (term.projector, term.optimizer)
        if rival := self.adversarial_term:
            found["discriminator"] = (rival.discriminator, rival.optimizer)
        return found

    @property
    def _models(self) -> list[keras.Model]:
        return [self.model, *(network for network, _ in self.companions.values())]

    def synchronise(self) -> None:
        """Give every rank the weights and the optimizer state of rank 0, and random states of its own."""
        state = self.optimizer.variables if self.optimizer is not None else []
        beside = [v for parts in self.companions.values() for part in parts for v in part.variables]
        self.world.broadcast_variables([*self.model.variables, *state, *beside])
        # Dropout draws from these: equal on all ranks, they would drop the same features of the ranks' n-th examples.
        generators = seed_states(self.model)
        first = self.world.all_gather([v.numpy().tolist() for v in generators])[0]
        for generator, (seed, drawn) in zip(generators, first, strict=True):
            generator.assign([(seed + self.world.rank) % 2**32, drawn])

    def trained(self) -> dict[str, int]:
        """Return the number of updates of each trained weight by its name, in the optimizer's order."""
        assert self.optimizer is not None
        names = names_in(self.model, self.model.trainable_variables)
        return dict(zip(names, self.optimizer.ages(), strict=True))

    def place(self, step: int) -> None:
        """Count `step` updates as done: learning-rate schedules go by their number."""
        for optimizer in (self.optimizer, *(optimizer for _, optimizer in self.companions.values())):
            if optimizer is not None:
                optimizer.place(step)

    def use_averages(self, wanted: bool) -> None:
        """Let the model hold the averages of its weights, where the optimizer has them, or again what is trained."""
        if isinstance(self.optimizer, BaseOptimizer):
            self.optimizer.use_averages(wanted)

    def check_replicas_equal(self, *, within_epoch: bool = False) -> None:
        """Compare a digest of the weights over the ranks.

        Args:
            within_epoch: compare only what is trained; batch-norm statistics are equal at the ends of epochs.

        Raises:
            UserError: the weights of a rank are not finite, or the ranks hold different ones.
        """
        digest, finite = hashlib.sha256(), True
        for variable in (v for m in self._models for v in (m.trainable_variables if within_epoch else m.weights)):
            values = np.ascontiguousarray(variable.value.read_value())
            digest.update(values.data)
            finite &= bool(np.isfinite(values).all())
        ranks = self.world.all_gather({"digest": digest.hexdigest(), "finite": finite})
        if nonfinite := [rank for rank, each in enumerate(ranks) if not each["finite"]]:
            raise UserError(
                f"the weights of {name_ranks(nonfinite)} are not finite (inf or nan); resume from an earlier checkpoint"
            )
        digests = [each["digest"] for each in ranks]
        if len(set(digests)) > 1:
            usual = max(digests, key=digests.count)
            others = [rank for rank, digest in enumerate(digests) if digest != usual]
            raise UserError(f"the ranks hold different weights: those of {name_ranks(others)} differ from the others")

    def _test(self, batch: Batch) -> tuple[Sums, tf.Tensor]:
        outputs = self.parts.trained(self.parts.inputs_of_trained(batch), training=False)
        measured = self._measure(batch, outputs) if self._measure else {}
        losses, weights = self._loss.by_example(batch, Computed(outputs, None)), self._loss.weights(batch)
        sums = {name: tf.reduce_sum(values) for name, values in measured.items()}
        return {**self._loss.sums(batch, outputs, losses, weights), **sums}, outputs

    def examine(self, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Compute a training step of a whole batch on this rank alone, without an update.

        Returns:
            The outputs and each part of the loss, by example; the gradients by the paths of the variables.
        """
        batch = cast("Batch", {name: tf.convert_to_tensor(values) for name, values in arrays.items()})
        weights = self._loss.weights(batch)
        images = tf.cast(tf.shape(weights)[0], tf.float32)
        _, gradients = self._step.gradients(batch, LossShares(tf.reduce_sum(weights), images, tf.constant(1.0)))
        computed = self._step.forward(self.parts.inputs_of_trained(batch))
        variables = [variable for model in self._models for variable in model.trainable_variables]
        named = {variable.path: g.numpy() for variable, g in zip(variables, gradients, strict=True)}
        values = {**computed._asdict(), **self._loss.by_example(batch, computed)}
        return {name: tensor.numpy() for name, tensor in values.items() if tensor is not None}, named

    def measure_views(self, batch: Batch) -> dict[str, float]:
        """Return what `TrainingStep.measure_views` does; every rank calls this."""
        return self._step.measure_views(batch)

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return what the frozen layers make of a batch: the features that the trained part takes."""
        return self._features_step(inputs)

    def predict(self, inputs: tf.Tensor) -> np.ndarray:
        """Return the model's outputs for a batch, in inference mode."""
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
            batches: this rank's batches, equally many on every rank.
            steps: number of steps of the whole epoch.
            on_step: called after each step with a function that reads this rank's loss; reading waits for the device.
            where: name of the epoch, for messages.
            so_far: the steps of the epoch that an earlier process has done; `batches` begin after them.
            ask: called before each step; returns what this rank asks of all ranks.
            pause: called after each step, on every rank with the same arguments.

        Raises:
            UserError: a gradient or the loss was not finite, on any rank. Model and optimizer are as they were before
                that step.
        """
        totals = Totals(self._loss.shares, where, so_far)
        before: PendingStep | None = None
        for step in range(totals.steps + 1, steps + 1):
            batch = self._next_batch(batches, f"in {where}, step {step}")
            self.world.report_task(f"in {where}, step {step}")
            self._send_flags(ask())
            sums, status = self._step(batch)
            totals.add(sums, len(input_of(batch)))
            if on_step:
                on_step(totals.last_loss)
            # The status is read one step late, so that no device waits for it.
            flags = self._read(totals, before, where)
            before = PendingStep(step, batch, status)
            if pause:
                pause(step, flags, functools.partial(self._export, totals, before, where))
        flags = self._read(totals, before, where)
        if pause:
            # What was asked for too late for these steps: the evaluation that follows may take too long.
            flags = ControlFlags(*np.any(self.world.all_gather([[*flags], [*ask()]]), axis=(0, 1)).tolist())
            if flags.stop or flags.rejoin:
                pause(steps, flags, totals.export)
        return totals.reduce(self.world)

    def _next_batch(self, batches: Iterator[Batch], task: str) -> Batch:
        """Return the next batch, mixed if the trainer mixes images."""
        self.world.report_task(f"{task}, reading images")
        batch = next(batches)
        return self._mix(batch) if self._mix else batch

    def _export(self, totals: Totals, newest: PendingStep, where: str) -> PartialEpoch:
        """Return the epoch so far, once its newest step is known to be finite: nothing else is ever saved."""
        self._check_finite(totals, newest, where)
        return totals.export()

    def _send_flags(self, wanted: ControlFlags) -> None:
        """Ask for something in the coming step, and only once: the answer is read a step later."""
        flags = ControlFlags(*(want and not pending for want, pending in zip(wanted, self._pending, strict=True)))
        if flags != self._sent:
            self._step.flags.assign(np.array(flags, np.float32))
            self._sent = flags
        self._pending = ControlFlags(*np.logical_or(self._pending, flags).tolist())

    def _read(self, totals: Totals, step: PendingStep | None, where: str) -> ControlFlags:
        """Check that a step was finite, and return what any rank has asked for in it; nothing where there was none."""
        if step is None:
            return ControlFlags()
        self._check_finite(totals, step, where)
        flags = ControlFlags(*(step.status.flags.numpy() > 0).tolist())
        self._pending = ControlFlags(*(np.array(self._pending) & ~np.array(flags)).tolist())
        return flags

    def _check_finite(self, totals: Totals, step: PendingStep, where: str) -> None:
        """Raise UserError where this step has stopped training; all ranks do, after having kept their batches."""
        if not step.status.stopped:
            return
        where, codes = f"{where}, step {step.step}", step.status.nonfinite.numpy().astype(int)
        kept = None
        if self.on_nonfinite and codes[self.world.rank]:
            kept = self.on_nonfinite(step.batch, totals.loss_of(step.step), where)
        files = [file for file in self.world.all_gather(kept) if file]
        gradients, losses = (np.flatnonzero(codes & code).tolist() for code in (GRADIENTS, LOSS))
        if gradients or not losses:
            whose = name_ranks(gradients) if gradients else "all ranks together, as float16,"
            what = f"the gradients of {whose} are"
        else:
            what = f"the loss on the images of {name_ranks(losses)} is"
        raise UserError(
            f"{where}: {what} not finite (inf or nan); model and optimizer are those of the step before. "
            + (f"Examine {', '.join(files)} with tfinpaint replay. " if files else "")
            + f"Lower optimizer.learning_rate or set optimizer.clip_norm, then {self.how_to_continue()}"
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
            where: name of the evaluation, for messages.

        Raises:
            UserError: the loss was not finite, on any rank.
        """
        totals = Totals(self._loss.shares, where)
        self.world.report_task(f"in {where}")
        for batch in batches:
            self.world.report_activity()
            sums, outputs = self._test_step(dict(batch))
            totals.add(sums, len(input_of(batch)))
            if on_batch:
                on_batch(batch, outputs)
        return totals.reduce(self.world)
