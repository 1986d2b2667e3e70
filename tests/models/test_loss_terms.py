"""The terms of the joint loss in a trainer: what is reported of each, and what each of them sees."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from joint_loss import (
    ADVERSARIAL,
    OBJECTIVE,
    PERCEPTUAL,
    SIDE,
    make_adversarial_term,
    make_batch,
    make_perceptual_term,
    make_trainer,
    restorer,
    same,
    snapshot,
)

from tfinpaint.distributed import world as dist
from tfinpaint.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("seeded")


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
