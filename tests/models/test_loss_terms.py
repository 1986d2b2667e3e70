"""The joint loss in a trainer: what is reported, what each term sees, and one step against two separate tapes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.loss import Loss
from tfinpaint.distributed import world as dist
from tfinpaint.models.discriminator import build_discriminator
from tfinpaint.models.features import build_features
from tfinpaint.models.loss_terms import AdversarialTerm, PerceptualTerm
from tfinpaint.models.losses import build_objective
from tfinpaint.train.step import LossShares
from tfinpaint.train.trainer import Trainer

SIDE = 16
ADVERSARIAL, PERCEPTUAL = 0.25, 2.0  # the weights of these parts
# Pixels are weighted by the mask and holes differ in size, so examples have different weights in the reconstruction only.
OBJECTIVE = build_objective(Loss(function="MSE", target="masked"), "sigmoid", by_pixel=True)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def restorer():
    """Return a network of two convolutions from images to images."""
    image = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(image)
    return keras.Model(image, keras.layers.Conv2D(3, 3, padding="same", activation="sigmoid", name="second")(x))


def make_adversarial_term(optimizer=None, weight=ADVERSARIAL, frozen=()):
    """Return a term whose discriminator has larger weights than at its start, and therefore larger gradients."""
    discriminator = build_discriminator(SIDE, SIDE, 3, filters=4)
    for variable in discriminator.trainable_variables:
        if "kernel" in variable.path:
            variable.assign(5 * variable)
    for name in frozen:
        discriminator.get_layer(name).trainable = False
    return AdversarialTerm(discriminator, optimizer or keras.optimizers.SGD(0.0), weight)


def make_perceptual_term():
    image = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)
    norm = keras.layers.BatchNormalization(name="norm")
    encoder = keras.Model(image, keras.layers.Activation("relu", name="seen")(norm(x)))
    norm.moving_mean.assign([0.1, -0.1, 0.2, 0.0])  # statistics that no batch here has
    norm.moving_variance.assign([0.5, 0.25, 1.0, 2.0])
    return PerceptualTerm(build_features(encoder, "seen"), PERCEPTUAL)


def make_trainer(optimizer=None, *, model=None, adversarial_term=None, perceptual_term=None, **options):
    """Return a trainer whose networks do not change unless an optimizer is given."""
    optimizer, world = optimizer or keras.optimizers.SGD(0.0), options.pop("world", dist.World())
    return Trainer(
        model or restorer(),
        optimizer,
        OBJECTIVE,
        adversarial_term=adversarial_term,
        perceptual_term=perceptual_term,
        world=world,
        **options,
    )


def make_batch(count=4, seed=0, low=4):
    """Return random images with holes of several heights, from row 4 down, and widths.

    Args:
        low: height of the first image's hole.
    """
    originals = np.random.default_rng(seed).random((count, SIDE, SIDE, 3), np.float32)
    mask = np.zeros((count, SIDE, SIDE, 1), np.float32)
    for i in range(count):
        mask[i, 4 : 4 + low + 2 * i, 2 : 8 + i] = 1
    parts = {
        "inputs": originals * (1 - mask),
        "targets": originals,
        "originals": originals,
        "mask": mask,
        "weights": mask,
    }
    return {name: tf.constant(values) for name, values in parts.items()}


def snapshot(model):
    return [variable.numpy() for variable in model.variables]


def same(model, before):
    return [np.array_equal(variable.numpy(), was) for variable, was in zip(model.variables, before, strict=True)]


def softplus(x):
    return np.logaddexp(0.0, x)


def expected_values(trainer, perceptual_term, batches):
    """Return what should be reported for these batches, computed in numpy from the outputs of the networks."""
    model, adversarial_term = trainer.model, trainer.adversarial_term
    squares = weights = 0.0
    each = {}
    for batch in batches:
        outputs, images, mask = model(batch["inputs"]).numpy(), batch["originals"].numpy(), batch["mask"].numpy()
        squares += (mask * (outputs - images) ** 2).sum() / 3
        weights += mask.sum()
        if adversarial_term:
            real, fake = (
                adversarial_term.discriminator(mask * x).numpy().astype(np.float64) for x in (images, outputs)
            )
            each.setdefault("adversarial_loss", []).extend(softplus(-fake))  # -log D(fake)
            each.setdefault("discriminator_loss", []).extend(softplus(-real) + softplus(fake))
        if perceptual_term:
            seen, wanted = (perceptual_term.features(x).numpy() for x in (np.where(mask == 1, outputs, images), images))
            each.setdefault("perceptual_loss", []).extend(((seen - wanted) ** 2).mean(axis=(1, 2, 3)))
    values = {"reconstruction_loss": squares / weights, **{name: np.mean(found) for name, found in each.items()}}
    loss = (1 - ADVERSARIAL if adversarial_term else 1) * values["reconstruction_loss"]
    loss += ADVERSARIAL * values.get("adversarial_loss", 0) + PERCEPTUAL * values.get("perceptual_loss", 0)
    return {"loss": loss, **(values if each else {})}


# ---- what is reported


@pytest.mark.parametrize("parts", ["adversarial_term and perceptual_term", "neither"])
def test_the_parts_of_the_loss_and_their_sum_are_reported(parts):
    # A mean over the examples, or pixels, and not over the batches: these have other holes, or another size.
    trained, tested = [make_batch(4), make_batch(4, seed=1, low=1)], [make_batch(4), make_batch(2, seed=1)]
    adversarial_term = make_adversarial_term() if "adversarial_term" in parts else None
    perceptual_term = make_perceptual_term() if "perceptual_term" in parts else None
    trainer, seen = make_trainer(adversarial_term=adversarial_term, perceptual_term=perceptual_term), []
    train = trainer.train_steps(iter(trained), 2, on_step=lambda read_loss: seen.append(read_loss())).values
    test = trainer.evaluate(tested).values
    for found, batches in ((train, trained), (test, tested)):
        expected = expected_values(trainer, perceptual_term, batches)
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-4), name
    alone = [expected_values(trainer, perceptual_term, [batch]) for batch in trained]
    assert seen == pytest.approx([values["loss"] for values in alone], rel=1e-4)
    if adversarial_term and perceptual_term:
        assert train["loss"] == pytest.approx(
            0.75 * train["reconstruction_loss"] + 0.25 * train["adversarial_loss"] + 2 * train["perceptual_loss"]
        )
        # The test can tell the mean over the pixels from that over the batches.
        mean = np.mean([values["reconstruction_loss"] for values in alone])
        assert abs(mean / train["reconstruction_loss"] - 1) > 1e-3


def test_evaluation_changes_nothing_and_hands_over_the_outputs():
    adversarial_term, batches, seen = (
        make_adversarial_term(keras.optimizers.SGD(0.5)),
        [make_batch(4), make_batch(3)],
        [],
    )
    trainer = make_trainer(
        keras.optimizers.SGD(0.5), adversarial_term=adversarial_term, perceptual_term=make_perceptual_term()
    )
    networks = (trainer.model, adversarial_term.discriminator)
    before = [snapshot(network) for network in networks]
    result = trainer.evaluate(batches, on_batch=lambda batch, outputs: seen.append(outputs.shape.as_list()))
    assert result.images == 7
    assert seen == [[4, SIDE, SIDE, 3], [3, SIDE, SIDE, 3]]
    assert all(all(same(*pair)) for pair in zip(networks, before, strict=True))


def test_a_perceptual_term_needs_no_optimizer():
    perceptual_term = make_perceptual_term()
    trainer = Trainer(restorer(), None, OBJECTIVE, perceptual_term=perceptual_term, world=dist.World())
    assert trainer.evaluate([make_batch()]).values == pytest.approx(
        expected_values(trainer, perceptual_term, [make_batch()]), rel=1e-4
    )


def test_measures_and_metrics_stand_beside_the_parts():
    trainer = make_trainer(
        perceptual_term=make_perceptual_term(),
        metrics={"largest": lambda targets, outputs: tf.reduce_max(targets, axis=[1, 2, 3])},
        measure=lambda batch, outputs: {"erased": tf.reduce_mean(batch["mask"], axis=[1, 2, 3])},
    )
    batch = make_batch()
    train, test = trainer.train_steps(iter([batch]), 1).values, trainer.evaluate([batch]).values
    assert set(test) - set(train) == {"erased"}
    assert train["largest"] == test["largest"] == pytest.approx(np.max(batch["targets"], axis=(1, 2, 3)).mean())
    assert test["erased"] == pytest.approx(np.mean(batch["mask"]))
    assert train["loss"] == pytest.approx(train["reconstruction_loss"] + 2 * train["perceptual_loss"])


# ---- what each part sees


def test_the_discriminator_sees_the_hole_and_nothing_around_it():
    adversarial_term, batch = make_adversarial_term(), make_batch()
    outputs, other = (
        tf.constant(np.random.default_rng(seed).random((4, SIDE, SIDE, 3), np.float32)) for seed in (7, 8)
    )
    mask = batch["mask"]
    found = adversarial_term.losses(batch, outputs)
    assert all(values.dtype == tf.float32 and values.shape == (4,) for values in found.values())
    around = adversarial_term.losses({**batch, "originals": tf.where(mask > 0, batch["originals"], other)}, tf.where(mask > 0, outputs, other))  # fmt: skip
    for name, values in found.items():
        assert np.array_equal(around[name], values)
    restored = adversarial_term.losses(batch, tf.where(mask > 0, other, outputs))
    assert (np.abs(restored["adversarial_loss"] - found["adversarial_loss"]) > 1e-6).all()
    true = adversarial_term.losses({**batch, "originals": tf.where(mask > 0, other, batch["originals"])}, outputs)
    assert np.array_equal(true["adversarial_loss"], found["adversarial_loss"])
    assert (np.abs(true["discriminator_loss"] - found["discriminator_loss"]) > 1e-6).all()
    # Of the originals themselves the discriminator makes one logit x: softplus(-x) + softplus(x).
    perfect = adversarial_term.losses(batch, batch["originals"])
    logits = adversarial_term.discriminator(mask * batch["originals"]).numpy()
    assert np.allclose(perfect["adversarial_loss"], softplus(-logits), rtol=1e-5)
    assert np.allclose(perfect["discriminator_loss"], softplus(-logits) + softplus(logits), rtol=1e-5)
    rounded = adversarial_term.losses(batch, tf.cast(outputs, tf.bfloat16))
    for name, values in found.items():
        assert rounded[name].dtype == tf.float32
        assert np.allclose(rounded[name], values, atol=0.02)


def test_the_perceptual_term_compares_originals_with_the_restored_hole_in_them():
    perceptual_term, batch = make_perceptual_term(), make_batch()
    outputs, other = (
        tf.constant(np.random.default_rng(seed).random((4, SIDE, SIDE, 3), np.float32)) for seed in (7, 8)
    )
    mask = batch["mask"]

    def distance(outputs):
        return perceptual_term.losses(batch, outputs)["perceptual_loss"].numpy()

    found = distance(outputs)
    assert found.dtype == np.float32
    assert found.shape == (4,)
    assert (found > 0).all()
    assert np.array_equal(distance(tf.where(mask > 0, outputs, other)), found)
    assert np.array_equal(distance(tf.where(mask > 0, batch["originals"], other)), np.zeros(4))
    assert (distance(tf.where(mask > 0, other, outputs)) != found).all()
    rounded = distance(tf.cast(outputs, tf.bfloat16))
    assert rounded.dtype == np.float32
    assert np.allclose(rounded, found, rtol=0.02)


# ---- whose gradient goes where


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
            jit_compile=jit_compile,
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


# ---- several ranks


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
