"""Losses, gradients and weights that are not finite stop the run and change no weight; the scale of the loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_model import batch, linear, squared

from tfinpaint.distributed import world as dist
from tfinpaint.errors import UserError
from tfinpaint.models import losses
from tfinpaint.train.step import StepOptions
from tfinpaint.train.trainer import Trainer


def test_a_loss_that_is_not_finite_stops_the_run():
    trainer = Trainer(linear((float("nan"), 1.0)), keras.optimizers.SGD(), squared, world=dist.World())
    with pytest.raises(UserError, match="training, step 1: the gradients of rank 0 are not finite"):
        trainer.train_steps(iter([batch([[1, 1]], [[0]])]), 1)


def test_a_gradient_that_is_not_finite_changes_no_weight():
    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=dist.World())
    batches = [batch([[1, 0]], [[0]]), batch([[float("inf"), 0]], [[0]]), batch([[1, 0]], [[0]])]
    with pytest.raises(UserError, match="epoch 4, step 2: the gradients of rank 0 are not finite"):
        trainer.train_steps(iter(batches), 3, where="epoch 4")
    # w1 = 1 - 0.1 * 2 = 0.8 by the first step. The third was on its way when the second was looked at: it changes nothing.
    assert np.allclose(trainer.model.get_weights()[0][:, 0], [0.8, 2.0])


def noisy():
    """A model whose forward pass changes its state: batch-norm statistics and the state of a dropout's generator."""
    layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5, seed=3), keras.layers.Dense(1)]
    return keras.Sequential([keras.layers.Input((2,)), *layers])


@pytest.mark.parametrize("jit", [False, True])
def test_model_and_optimizer_are_those_of_the_last_good_step(jit):
    good = [batch(np.random.default_rng(n).normal(size=(4, 2)), np.ones((4, 1))) for n in range(3)]
    bad, found = batch([[float("nan"), 0]] * 4, [[0]] * 4), []
    for batches in (good, [*good, bad, *good]):
        keras.utils.set_random_seed(0)
        trainer = Trainer(
            noisy(), keras.optimizers.Adam(0.1), squared, world=dist.World(), step_options=StepOptions(jit_compile=jit)
        )
        if len(batches) == 3:
            trainer.train_steps(iter(batches), 3)
        else:
            with pytest.raises(UserError, match=r"step 4: the gradients of rank 0 .* are those of the step before"):
                trainer.train_steps(iter(batches), 7)
        found.append([v.numpy() for v in (*trainer.model.variables, *trainer.optimizer.variables)])
    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))
    assert len(found[0]) > 10


def test_a_loss_that_is_not_finite_stops_before_the_update_though_its_gradient_is_finite():
    # d|y - t| / dy is 1 or -1, also where t is infinite.
    absolute = losses.of_targets(lambda targets, outputs: tf.reduce_mean(tf.abs(outputs - targets), axis=1))
    for scale_loss in (False, True):  # of no help
        trainer = Trainer(
            linear(),
            keras.optimizers.SGD(0.1),
            absolute,
            world=dist.World(),
            step_options=StepOptions(scale_loss=scale_loss),
        )
        with pytest.raises(UserError, match="step 1: the loss on the images of rank 0 is not finite"):
            trainer.train_steps(iter([batch([[1, 0]], [[float("inf")]]), batch([[1, 0]], [[0]])]), 2)
        assert trainer.model.get_weights()[0][:, 0].tolist() == [1.0, 2.0]


def test_the_batch_of_the_nonfinite_step_is_kept_and_named():
    bad, kept = batch([[float("inf"), 0]], [[0]]), []

    def keep(batch, loss, where):
        kept.append((batch, loss, where))
        return "/run/nonfinite_batches/x.npz"

    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=dist.World())
    trainer.on_nonfinite = keep
    with pytest.raises(UserError, match=r"Examine /run/nonfinite_batches/x\.npz with tfinpaint replay"):
        trainer.train_steps(iter([batch([[1, 0]], [[0]]), bad, batch([[1, 0]], [[0]])]), 3, where="epoch 4")
    assert [(b is bad, loss, where) for b, loss, where in kept] == [(True, float("inf"), "epoch 4, step 2")]


def test_an_evaluation_that_is_not_finite_stops_the_run():
    trainer = Trainer(linear(), None, squared, world=dist.World())
    with pytest.raises(UserError, match="epoch 2, evaluation: the loss on the images of rank 0 is not finite"):
        trainer.evaluate([batch([[float("nan"), 0]], [[0]])], where="epoch 2, evaluation")


def test_the_loss_scale_changes_no_gradient_and_halves_where_they_overflow():
    trainer = Trainer(
        linear(), keras.optimizers.SGD(0.1), squared, world=dist.World(), step_options=StepOptions(scale_loss=True)
    )
    scale, finite_steps = trainer.optimizer.variables[-2:]
    good, bad = batch([[1, 0], [0, 1]], [[0], [0]]), batch([[1e38, 0]], [[0]])
    trainer.train_steps(iter([good]), 1)
    assert (float(scale), int(finite_steps)) == (2.0**15, 1)
    assert np.allclose(trainer.model.get_weights()[0][:, 0], [0.9, 1.8])
    finite_steps.assign(1999)
    trainer.train_steps(iter([good]), 1)
    assert (float(scale), int(finite_steps)) == (2.0**16, 0)
    kept = trainer.model.get_weights()[0]
    scale.assign(8.0)
    # The loss is (0.81 * 3e18)^2 = 6e36; its gradient, 2 * 0.81 * 9e36 = 1.5e37, times 64 is beyond float32's 3.4e38.
    overflowing = batch([[3e18, 0]], [[0]])
    scale.assign(64.0)
    trainer.train_steps(iter([overflowing, good]), 2)
    assert (float(scale), int(finite_steps)) == (32.0, 1)
    assert np.allclose(trainer.model.get_weights()[0], kept * 0.9)  # by the good batch alone
    kept = trainer.model.get_weights()[0]
    with pytest.raises(UserError, match="step 1: the gradients of rank 0 are not finite"):
        trainer.train_steps(iter([bad, good]), 2)  # the loss is infinite, which no scale helps
    assert (float(scale), int(finite_steps)) == (32.0, 1)
    assert np.array_equal(trainer.model.get_weights()[0], kept)


def test_weights_that_differ_or_are_not_finite_are_told_by_rank():
    class Beside(dist.World):
        """Rank 0 of three; the others' weights are told."""

        def all_gather(self, value):
            return [value, *others(value)]

    trainer = Trainer(linear(), None, None, world=Beside())
    others = lambda mine: [mine, mine]  # noqa: E731
    trainer.check_replicas_equal()
    others = lambda mine: [mine, {**mine, "digest": "0" * 64}]  # noqa: E731
    with pytest.raises(UserError, match="the ranks hold different weights: those of rank 2 differ from the others"):
        trainer.check_replicas_equal()
    others = lambda mine: [{**mine, "finite": False}, mine]  # noqa: E731
    with pytest.raises(UserError, match=r"the weights of rank 1 are not finite \(inf or nan\)"):
        trainer.check_replicas_equal()
    trainer.model.set_weights([np.array([[np.inf], [1.0]], np.float32)])
    others = lambda mine: []  # noqa: E731
    with pytest.raises(UserError, match="the weights of rank 0 are not finite"):
        trainer.check_replicas_equal()


def test_gradients_that_overflow_on_their_way_change_no_weight():
    class Compressing(dist.World):
        def __init__(self):
            super().__init__()
            self.compression = "fp16"

        def average_gradients(self, gradients):
            return [tf.cast(tf.cast(gradient, tf.float16), tf.float32) for gradient in gradients]

    trainer = Trainer(
        linear(), keras.optimizers.SGD(0.1), squared, world=Compressing(), step_options=StepOptions(scale_loss=True)
    )
    scale = trainer.optimizer.variables[-2]
    trainer.train_steps(iter([batch([[1e3, 0]], [[0]])]), 1)  # a gradient of 2e6, times 2^15
    assert trainer.model.get_weights()[0][:, 0].tolist() == [1.0, 2.0]
    assert float(scale) == 2.0**14
    scale.assign(2.0)
    with pytest.raises(UserError, match="the gradients of all ranks together, as float16, are not finite"):
        trainer.train_steps(iter([batch([[1e3, 0]], [[0]])]), 1)
    assert trainer.model.get_weights()[0][:, 0].tolist() == [1.0, 2.0]
