"""Steps with the joint loss: the gradients of two separate tapes, what each network learns, XLA, and several ranks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from joint_loss import (
    ADVERSARIAL,
    PERCEPTUAL,
    make_adversarial_term,
    make_batch,
    make_perceptual_term,
    make_trainer,
    restorer,
    same,
    snapshot,
)

from tfinpaint.distributed import world as dist
from tfinpaint.train.step import LossShares, StepOptions

pytestmark = pytest.mark.usefixtures("seeded")


def gradients_of_two_tapes(model, adversarial_term, perceptual_term, batch):
    """Return the gradients of both networks as in alternating training, each from its own tape."""
    mask, originals, weights = batch["mask"], batch["originals"], batch["weights"]
    discriminate = adversarial_term.discriminator
    with tf.GradientTape() as tape:
        outputs = model(batch["inputs"])
        squares = tf.reduce_sum(weights * tf.square(outputs - batch["targets"])) / (3 * tf.reduce_sum(weights))
        fooled = keras.losses.binary_crossentropy(tf.ones(4), tf.sigmoid(discriminate(mask * outputs)))
        restored = mask * outputs + (1 - mask) * originals
        apart = (
            tf.reduce_mean(tf.square(perceptual_term.features(restored) - perceptual_term.features(originals)))
            if perceptual_term
            else 0.0
        )
        loss = (1 - ADVERSARIAL) * squares + ADVERSARIAL * fooled + PERCEPTUAL * apart
    gradients = tape.gradient(loss, model.trainable_variables)
    drawn = tf.concat([originals, model(batch["inputs"])], axis=0)  # made outside the tape: constants
    with tf.GradientTape() as tape:
        found = tf.sigmoid(discriminate(tf.concat([mask, mask], axis=0) * drawn))
        loss = 2 * keras.losses.binary_crossentropy(tf.concat([tf.ones(4), tf.zeros(4)], axis=0), found)
    return gradients, tape.gradient(loss, discriminate.trainable_variables)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param("adversarial_term", marks=pytest.mark.stress),
        "adversarial_term and perceptual_term, layers frozen",
    ],
)
def test_one_step_is_that_of_two_separate_tapes(case):
    batch, model, frozen = make_batch(), restorer(), "frozen" in case
    # With fewer gradients than variables in either network they must not be taken for one another's.
    model.get_layer("first").trainable = not frozen
    adversarial_term = make_adversarial_term(
        keras.optimizers.SGD(0.25), frozen=["discriminator_layer_2"] if frozen else []
    )
    perceptual_term = make_perceptual_term() if "perceptual_term" in case else None
    trainer = make_trainer(
        keras.optimizers.SGD(0.5), model=model, adversarial_term=adversarial_term, perceptual_term=perceptual_term
    )
    networks = ((model, 0.5), (adversarial_term.discriminator, 0.25))
    before = [[variable.numpy() for variable in network.trainable_variables] for network, _ in networks]
    expected = gradients_of_two_tapes(model, adversarial_term, perceptual_term, batch)
    features = snapshot(perceptual_term.features) if perceptual_term else []
    trainer.train_steps(iter([batch]), 1)
    assert not perceptual_term or all(same(perceptual_term.features, features))
    for (network, rate), starts, gradients in zip(networks, before, expected, strict=True):
        assert len(gradients) == len(starts) > 0
        for variable, start, gradient in zip(network.trainable_variables, starts, gradients, strict=True):
            found = (start - variable.numpy()) / rate
            largest = float(tf.reduce_max(tf.abs(gradient)))
            assert largest > 1e-4, variable.path  # not lost in the rounding of the weights
            assert np.allclose(found, gradient, rtol=0, atol=1e-3 * largest + 1e-6), variable.path


@pytest.mark.stress
def test_the_discriminator_learns_to_tell_holes_from_restorations():
    adversarial_term, batch = make_adversarial_term(keras.optimizers.Adam(2e-3, beta_1=0.5)), make_batch()
    trainer, discriminator = make_trainer(adversarial_term=adversarial_term), adversarial_term.discriminator
    model = snapshot(trainer.model)
    first = trainer.evaluate([batch]).values
    for _ in range(4):
        result = trainer.train_steps(iter([batch] * 10), 10).values
    last = trainer.evaluate([batch]).values
    assert last["discriminator_loss"] < result["discriminator_loss"] < first["discriminator_loss"]
    assert last["discriminator_loss"] < 0.2  # 2 log 2 where it cannot tell
    assert last["adversarial_loss"] > first["adversarial_loss"]
    mask = batch["mask"]
    assert np.all(discriminator(mask * batch["originals"]) > 0)
    assert np.all(discriminator(mask * trainer.model(batch["inputs"])) < 0)
    assert all(same(trainer.model, model))
    assert last["reconstruction_loss"] == first["reconstruction_loss"]


@pytest.mark.stress
def test_the_model_learns_to_deceive_a_fixed_discriminator():
    batch, trainer = (
        make_batch(),
        make_trainer(keras.optimizers.Adam(2e-2), adversarial_term=make_adversarial_term(weight=0.9)),
    )
    first = trainer.evaluate([batch]).values
    trainer.train_steps(iter([batch] * 40), 40)
    last = trainer.evaluate([batch]).values
    assert last["adversarial_loss"] < 0.8 * first["adversarial_loss"]
    assert last["discriminator_loss"] > first["discriminator_loss"]


@pytest.mark.stress
def test_xla_gives_the_same_numbers():
    batches, found = [make_batch(seed=seed) for seed in range(3)], []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        adversarial_term = make_adversarial_term(keras.optimizers.SGD(0.05))
        trainer = make_trainer(
            keras.optimizers.SGD(0.2),
            adversarial_term=adversarial_term,
            perceptual_term=make_perceptual_term(),
            step_options=StepOptions(jit_compile=jit_compile),
        )
        values = trainer.train_steps(iter(batches), 3).values
        shares = LossShares(tf.constant(1.0), tf.constant(1.0), tf.constant(1.0))
        inner = trainer._step._forward_backward.get_concrete_function(batches[0], shares)
        assert inner.function_def.attr["_XlaMustCompile"].b == jit_compile  # it was compiled, and not without
        found.append((values, snapshot(trainer.model), snapshot(adversarial_term.discriminator)))
    (plain, *weights), (compiled, *others) = found
    assert compiled == pytest.approx(plain, rel=1e-4)
    for network, other in zip(weights, others, strict=True):
        for one, two in zip(network, other, strict=True):
            assert np.allclose(one, two, rtol=1e-3, atol=1e-5)


class Recorder(dist.World):
    """One rank that remembers what it would have sent to the others."""

    def __init__(self):
        super().__init__()
        self.sent, self.gathered = [], []

    def broadcast_variables(self, variables):
        self.sent += variables

    def all_gather(self, value):
        self.gathered.append(value)
        return super().all_gather(value)


def test_ranks_start_with_one_discriminator_and_are_compared_by_it():
    world, adversarial_term = Recorder(), make_adversarial_term(keras.optimizers.Adam(1e-3))
    trainer = make_trainer(keras.optimizers.Adam(1e-3), adversarial_term=adversarial_term, world=world)
    trainer.synchronise()
    sent = {id(variable) for variable in world.sent}
    assert len(adversarial_term.optimizer.variables) > 2 * len(
        adversarial_term.discriminator.trainable_variables
    )  # it is built
    for part in (trainer.model, trainer.optimizer, adversarial_term.discriminator, adversarial_term.optimizer):
        assert {id(variable) for variable in part.variables} <= sent
    world.gathered.clear()
    trainer.check_replicas_equal()
    adversarial_term.discriminator.trainable_variables[0].assign_add([[[[1e-6] * 4] * 3] * 4] * 4)
    trainer.check_replicas_equal()
    assert len({each["digest"] for each in world.gathered}) == 2
