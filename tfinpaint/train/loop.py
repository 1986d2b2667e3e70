"""Train and evaluate a Keras model on every rank as if there were one."""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.data.pipeline import Batch
from tfinpaint.dist import World
from tfinpaint.errors import UserError
from tfinpaint.models.losses import Objective, PerExample
from tfinpaint.train.batchnorm import batchnorm_layers

ReadLoss = Callable[[], float]


@dataclass(frozen=True)
class Result:
    """What one epoch of training or evaluation gave, over all ranks.

    Attributes:
        values: mean over the images of the loss (weighted as the objective says) and of each metric.
        images: number of images seen.
        seconds: wall time.
        images_per_second: over all ranks, without the first step (which compiles, or waits for the first batch).
    """

    values: dict[str, float]
    images: int
    seconds: float
    images_per_second: float


_NOTHING = Objective(lambda targets, outputs: tf.zeros(tf.shape(outputs)[:1]))


class Trainer:
    """A model, its optimizer and its objective, stepped together on all ranks.

    The loss is the mean over the global batch, weighted where the objective has weights: gradients are averaged over
    the ranks before the optimizer sees them, and divided by the weight of all ranks' examples.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.Optimizer | None,
        objective: Objective | None,
        metrics: Mapping[str, PerExample] | None = None,
        *,
        world: World,
        jit_compile: bool = False,
    ) -> None:
        """
        Args:
            model: built, with its layers' `trainable` flags already set.
            optimizer: None for a model that is only evaluated.
            objective: what is minimised; None for a model that only predicts.
            metrics: functions from (targets, outputs) to float32 [batch], whose means are reported.
            jit_compile: compile forward and backward with XLA; the collectives and the update stay outside it.
        """
        self.model, self.optimizer, self.world = model, optimizer, world
        self._objective, self._metrics = objective or _NOTHING, dict(metrics or {})
        if optimizer is not None:
            optimizer.build(model.trainable_variables)
        self._forward_backward = tf.function(self._gradients, jit_compile=jit_compile or None)
        self._train_step = tf.function(self._update, reduce_retracing=True)
        self._test_step = tf.function(self._test, reduce_retracing=True)
        self._predict_step = tf.function(lambda inputs: self.model(inputs, training=False), reduce_retracing=True)

    def synchronise(self) -> None:
        """Start every rank from the weights and optimizer state of rank 0, each with randomness of its own."""
        state = self.optimizer.variables if self.optimizer is not None else []
        self.world.broadcast([*self.model.variables, *state])
        # Dropout draws from these: equal on all ranks, they would drop the same features of the ranks' n-th examples.
        generators = [v for v in self.model.variables if "seed_generator" in v.path]
        first = self.world.gather([v.numpy().tolist() for v in generators])[0]
        for generator, (seed, drawn) in zip(generators, first, strict=True):
            generator.assign([(seed + self.world.rank) % 2**32, drawn])

    def check_in_step(self) -> None:
        """Compare a digest of the weights over the ranks.

        Raises:
            UserError: the ranks hold different weights.
        """
        digest = hashlib.sha256(b"".join(np.asarray(weight).tobytes() for weight in self.model.get_weights()))
        digests = self.world.gather(digest.hexdigest())
        if len(set(digests)) > 1:
            raise UserError(f"the ranks hold different weights (digests {', '.join(d[:12] for d in digests)})")

    def _gradients(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Sums over this rank's examples, and the gradients of their mean loss, or of their weighted sum."""
        with tf.GradientTape() as tape:
            outputs = self.model(inputs, training=True)
            losses = self._objective.per_example(targets, outputs)
            penalty = sum(self.model.losses)  # of the regularizers of a network file
            if self._objective.weight is None:
                loss = tf.reduce_mean(losses) + penalty
            else:
                weights = self._objective.weight(targets, outputs)
                loss = tf.reduce_sum(losses * weights) + penalty * tf.reduce_sum(weights)
        gradients = tape.gradient(loss, self.model.trainable_variables)
        return self._sums(targets, outputs), gradients

    def _update(self, inputs: tf.Tensor, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        sums, gradients = self._forward_backward(inputs, targets)
        gradients = self.world.average_gradients(gradients)
        if self._objective.weight is not None:
            mean_weight = self.world.sum_tensor(sums["weight"]) / self.world.size
            gradients = [tf.math.divide_no_nan(gradient, mean_weight) for gradient in gradients]
        assert self.optimizer is not None, "a trainer without an optimizer only evaluates"
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return sums

    def _test(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        outputs = self.model(inputs, training=False)
        return self._sums(targets, outputs), outputs

    def _sums(self, targets: tf.Tensor, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        losses = self._objective.per_example(targets, outputs)
        weights = tf.ones_like(losses) if self._objective.weight is None else self._objective.weight(targets, outputs)
        scores = {name: tf.reduce_sum(score(targets, outputs)) for name, score in self._metrics.items()}
        return {"loss": tf.reduce_sum(losses * weights), "weight": tf.reduce_sum(weights), **scores}

    def predict(self, inputs: tf.Tensor) -> np.ndarray:
        """The model's outputs for a batch, in inference mode."""
        return self._predict_step(inputs).numpy()

    def train_steps(
        self, batches: Iterator[Batch], steps: int, on_step: Callable[[ReadLoss], None] | None = None
    ) -> Result:
        """Take `steps` steps.

        Args:
            batches: this rank's batches, {"inputs": ..., "targets": ...}; every rank must have `steps` of them.
            on_step: called after each step with a function that reads this rank's loss; reading waits for the device.

        Raises:
            UserError: the mean loss is not a finite number.
        """
        totals = _Totals(self._metrics)
        for _ in range(steps):
            batch = next(batches)
            sums = self._train_step(batch["inputs"], batch["targets"])
            totals.add(sums, len(batch["inputs"]))
            if on_step:
                on_step(totals.last_loss)
        result = totals.reduce(self.world)
        if not math.isfinite(result.values["loss"]):
            raise UserError(
                f"the loss became {result.values['loss']}: the weights are spoilt; lower optimizer.learning_rate "
                "and start anew, or go on from a checkpoint with --resume"
            )
        return result

    def evaluate(self, batches: Iterable[Batch], on_batch: Callable[[Batch, tf.Tensor], None] | None = None) -> Result:
        """Score every example of every rank's batches once.

        Args:
            batches: this rank's share; ranks may have different numbers of batches.
            on_batch: called with each batch and the model's outputs for it.
        """
        totals = _Totals(self._metrics)
        for batch in batches:
            sums, outputs = self._test_step(batch["inputs"], batch["targets"])
            totals.add(sums, len(batch["inputs"]))
            if on_batch:
                on_batch(batch, outputs)
        return totals.reduce(self.world)

    def average_statistics(self) -> None:
        """Average the batch-norm statistics over the ranks, so that all evaluate and save one and the same model."""
        norms = batchnorm_layers(self.model, trainable=True)
        self.world.average_variables([v for norm in norms for v in (norm.moving_mean, norm.moving_variance)])


class _Totals:
    """Sums over one epoch on this rank, then over all ranks."""

    def __init__(self, metrics: Iterable[str]) -> None:
        self._names = ["loss", "weight", *metrics]
        self._sums: list[dict[str, tf.Tensor]] = []
        self._counts: list[int] = []
        self._begin = time.perf_counter()
        self._after_first = self._begin

    def add(self, sums: dict[str, tf.Tensor], count: int) -> None:
        self._sums.append(sums)
        self._counts.append(count)
        if len(self._counts) == 1:
            self._after_first = time.perf_counter()

    def last_loss(self) -> float:
        return float(self._sums[-1]["loss"]) / (float(self._sums[-1]["weight"]) or 1.0)

    def reduce(self, world: World) -> Result:
        totals = {name: math.fsum(float(sums[name]) for sums in self._sums) for name in self._names}
        end = time.perf_counter()  # after the sums were read: that waits for the last step
        images = sum(self._counts)
        later = images - self._counts[0] if len(self._counts) > 1 else images
        began = self._after_first if len(self._counts) > 1 else self._begin
        reduced = world.sum({**totals, "images": images, "later": later})
        means = {name: reduced[name] / max(reduced["images"], 1) for name in self._names if name != "weight"}
        return Result(
            values={**means, "loss": reduced["loss"] / (reduced["weight"] or 1.0)},
            images=int(reduced["images"]),
            seconds=end - self._begin,
            images_per_second=reduced["later"] / max(end - began, 1e-9),
        )


EpochEnd = Callable[[int, Result, Result | None], None]  # (epoch from 1, train, test)


def fit(
    trainer: Trainer,
    train_batches: Iterable[Batch],
    test_batches: Iterable[Batch] | None,
    *,
    first_epoch: int,
    num_epochs: int,
    steps_per_epoch: int,
    settle: Callable[[], None],
    on_step: Callable[[int, ReadLoss], None] | None = None,
    on_epoch_end: Sequence[EpochEnd] = (),
) -> None:
    """Train from `first_epoch` to `num_epochs`, evaluating after each epoch.

    Args:
        train_batches: endless, already placed at the first step of `first_epoch`.
        test_batches: this rank's share of the held-out set, iterated once per epoch; None for no evaluation.
        settle: called after the last step of each epoch, before evaluation: makes the batch-norm statistics of all
            ranks equal and fit for inference.
        on_step: called with the epoch and a function that reads the loss.
        on_epoch_end: called in order on every rank after each epoch.
    """
    iterator = iter(train_batches)
    for epoch in range(first_epoch, num_epochs + 1):
        step = functools.partial(on_step, epoch) if on_step else None
        train = trainer.train_steps(iterator, steps_per_epoch, step)
        settle()
        test = trainer.evaluate(test_batches) if test_batches is not None else None
        for call in on_epoch_end:
            call(epoch, train, test)
