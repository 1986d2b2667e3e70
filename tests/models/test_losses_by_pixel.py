"""Losses of pixels that count differently, against numbers worked by hand and a numpy formula."""

import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.loss import PIXEL_LOSSES, Loss
from tfinpaint.models import losses
from tfinpaint.models.losses import build_objective

# One image of 1 x 2 pixels with two channels, three times over: one pixel counts 1 and one 3; only the second; none.
PIXELS = {
    "targets": tf.constant([[[[1.0, 0.0], [1.0, 0.0]]]] * 3),
    "weights": tf.constant([[[[1.0], [3.0]]], [[[0.0], [2.0]]], [[[0.0], [0.0]]]]),
}
RESTORED = tf.constant([[[[0.8, 0.4], [0.5, 0.3]]]] * 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # pixels: (-log 0.8 - log 0.6) / 2 = 0.3669846, (-log 0.5 - log 0.7) / 2 = 0.5249110
        ("BCE", [(0.3669846 + 3 * 0.5249110) / 4, 0.5249110, 0]),
        # (0.04 + 0.16) / 2 = 0.1, (0.25 + 0.09) / 2 = 0.17
        ("MSE", [(0.1 + 3 * 0.17) / 4, 0.17, 0]),
        # (0.2 + 0.4) / 2 = 0.3, (0.5 + 0.3) / 2 = 0.4
        ("L1", [(0.3 + 3 * 0.4) / 4, 0.4, 0]),
    ],
)
@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_weighted_pixels_worked_by_hand(name, expected, jit_compile):
    objective = build_objective(Loss(function=name), "sigmoid", by_pixel=True)
    loss = objective.per_example
    if jit_compile is not None:
        loss = tf.function(loss, jit_compile=jit_compile, reduce_retracing=True)
    values = loss(PIXELS, RESTORED)
    assert np.allclose(values, expected, rtol=0, atol=5e-7)
    assert float(values[2]) == 0
    assert objective.weight(PIXELS).numpy().tolist() == [4, 2, 0]
    assert values.dtype == objective.weight(PIXELS).dtype == tf.float32
    rounded = loss(PIXELS, tf.cast(RESTORED, tf.bfloat16))
    assert rounded.dtype == tf.float32
    assert np.allclose(rounded, expected, atol=0.01)


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_weighted_pixels_of_a_batch_have_one_mean(name):
    generator = np.random.default_rng(0)
    # The examples count from 0 to 60: a mean of their means would be another.
    targets, weights = generator.random((4, 3, 5, 3)), generator.choice([0, 1, 10], (4, 3, 5, 1))
    weights[1] = 0
    weights[2, :2] = 0
    outputs = generator.uniform(0.01, 0.99, (4, 3, 5, 3))
    by_value = {
        "BCE": -(targets * np.log(outputs) + (1 - targets) * np.log(1 - outputs)),
        "MSE": (targets - outputs) ** 2,
        "L1": np.abs(targets - outputs),
    }[name]
    expected = (weights * by_value).sum() / (3 * weights.sum())
    batch = {"targets": tf.constant(targets, tf.float32), "weights": tf.constant(weights, tf.float32)}
    objective = build_objective(Loss(function=name), "sigmoid", by_pixel=True)
    each, counts = objective.per_example(batch, tf.constant(outputs, tf.float32)), objective.weight(batch)
    assert each.shape == counts.shape == (4,)
    assert np.array_equal(counts, weights.sum(axis=(1, 2, 3)))
    assert np.isclose(np.sum(each * counts) / np.sum(counts), expected, rtol=1e-5)
    assert not np.isclose(np.mean(each), expected, rtol=0.01)
    equal = {**batch, "weights": tf.fill((4, 3, 5, 1), 7.0)}  # alike, whatever the weight: the loss without weights
    plain = build_objective(Loss(function=name), "sigmoid").per_example
    assert np.allclose(objective.per_example(equal, outputs), plain(batch, outputs), rtol=1e-5)


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_pixels_that_do_not_count_have_no_gradient(name):
    objective = build_objective(Loss(function=name), "sigmoid", by_pixel=True)
    outputs = tf.concat([RESTORED[:2], [[[[0.0, 1.0], [1.0, 0.0]]]]], axis=0)  # as wrong and as right as can be
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = objective.per_example(PIXELS, outputs)
    gradient = tape.gradient(loss, outputs).numpy()
    assert float(loss[2]) == 0
    assert np.array_equal(gradient != 0, np.broadcast_to(PIXELS["weights"].numpy() > 0, gradient.shape))
    assert np.isfinite(gradient).all()


def test_the_configuration_allows_what_can_score_single_pixels():
    assert set(losses.LOSS_OF_PIXELS) == set(PIXEL_LOSSES)
