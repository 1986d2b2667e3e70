"""Each loss of two views against a plain NumPy computation, on one rank and divided among ranks; the projector."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.loss import Agreement
from tfinpaint.models.agreement import (
    barlow_twins,
    build_agreement,
    build_projector,
    nt_xent,
    pool,
    split_views,
    vicreg,
)


def views(images=128, width=96, seed=0):
    """Return two correlated views of real size, float32 [images, width], with dimensions of different scales."""
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(images, width)) * generator.uniform(0.1, 2.0, width) + generator.normal(size=width)
    return [(common + 0.5 * generator.normal(size=common.shape)).astype(np.float32) for _ in range(2)]


def plain_nt_xent(first, second, temperature):
    rows = np.concatenate([first, second]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    count, found = len(rows), []
    for i in range(count):
        positive = (i + count // 2) % count
        similar = [float(rows[i] @ rows[k]) / temperature for k in range(count)]
        found.append(-similar[positive] + np.log(sum(np.exp(similar[k]) for k in range(count) if k != i)))
    return np.array(found)


def plain_vicreg(first, second, factors):
    first, second = first.astype(np.float64), second.astype(np.float64)
    width = first.shape[1]
    variance = covariance = 0.0
    for view in (first, second):
        variance += np.maximum(0, 1 - np.sqrt(view.var(axis=0, ddof=1) + 1e-4)).mean() / 2
        matrix = np.cov(view, rowvar=False)
        covariance += (matrix**2)[~np.eye(width, dtype=bool)].sum() / width
    return factors[0] * ((first - second) ** 2).mean() + factors[1] * variance + factors[2] * covariance


def plain_barlow_twins(first, second, factor):
    a, b = ((v - v.mean(axis=0)) / np.sqrt(v.var(axis=0) + 1e-5) for v in (np.float64(first), np.float64(second)))
    matrix = a.T @ b / len(a)
    diagonal = np.diag(matrix)
    return ((1 - diagonal) ** 2).sum() + factor * ((matrix**2).sum() - (diagonal**2).sum())


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_that_of_numpy(temperature):
    rows = np.concatenate(views())
    found = nt_xent(tf.constant(rows), tf.constant(rows), 0, temperature=temperature)
    assert found.dtype == tf.float32
    expected = plain_nt_xent(*views(), temperature)
    assert float(tf.reduce_mean(found)) == pytest.approx(expected.mean(), rel=1e-6)
    assert np.allclose(found, expected, rtol=0, atol=5e-7 / temperature)  # cosines round to 1e-7


def test_nt_xent_of_rows_that_are_all_alike_is_the_logarithm_of_the_others():
    rows = tf.ones([8, 4])
    assert np.allclose(nt_xent(rows, rows, 0, temperature=0.2), np.log(7), rtol=1e-6)


@pytest.mark.parametrize("factors", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_vicreg_is_that_of_numpy(factors):
    first, second = views()
    assert float(vicreg(first, second, factors)) == pytest.approx(plain_vicreg(first, second, factors), rel=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.005, 1.0])
def test_barlow_twins_is_that_of_numpy(factor):
    first, second = views()
    assert float(barlow_twins(first, second, factor)) == pytest.approx(
        plain_barlow_twins(first, second, factor), rel=1e-6
    )


def test_gradients_are_finite_where_all_rows_are_alike_and_vicreg_spreads_them_again():
    rows = tf.Variable(tf.ones([8, 4]) + 1e-4 * np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))
    for section in (Agreement(), Agreement(type="vicreg"), Agreement(type="barlow_twins")):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(build_agreement(section)(rows.value(), rows.value(), 0))
        assert np.isfinite(tape.gradient(loss, rows)).all(), section.type
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(build_agreement(Agreement(type="vicreg"))(rows.value(), rows.value(), 0))
    step = rows - 0.1 * tape.gradient(loss, rows)
    assert np.std(step, axis=0).mean() > 2 * np.std(rows, axis=0).mean()


@pytest.mark.parametrize("name", ["nt_xent", "vicreg", "barlow_twins"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_the_mean_over_ranks_and_its_gradient_are_those_of_one_rank(name, ranks):
    first, second = (tf.constant(view) for view in views())
    compare = build_agreement(Agreement(type=name))
    # Rank r has the images r, r + ranks, ... of both views; gradients flow to the rows of all ranks.
    order = np.concatenate([np.concatenate([np.arange(r, 128, ranks), 128 + np.arange(r, 128, ranks)]) for r in range(ranks)])  # fmt: skip
    rows = tf.concat([first, second], axis=0)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        alone = tf.reduce_mean(compare(rows, rows, 0))
    wanted = tape.gradient(alone, rows).numpy()
    with tf.GradientTape() as tape:
        tape.watch(rows)
        gathered = tf.gather(rows, order)
        parts = tf.split(gathered, ranks)
        losses = [tf.reduce_mean(compare(part, gathered, rank)) for rank, part in enumerate(parts)]
        together = sum(losses) / ranks
    found = tf.convert_to_tensor(tape.gradient(together, rows)).numpy()
    assert float(together) == pytest.approx(float(alone), rel=1e-5)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_views_of_all_ranks_are_put_in_one_order():
    rows = tf.constant([[0.0], [1], [10], [11], [2], [3], [12], [13]])  # two ranks with two images each
    first, second = split_views(rows[:4], rows)
    assert first[:, 0].numpy().tolist() == [0, 1, 2, 3]
    assert second[:, 0].numpy().tolist() == [10, 11, 12, 13]


def test_the_projector_is_float32_under_any_policy_and_ends_without_norm_or_bias():
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        projector = build_projector(6, (5, 4, 3))
    finally:
        keras.config.set_dtype_policy(policy)
    features = tf.cast(tf.random.stateless_normal([7, 2, 2, 6], [0, 1]), tf.bfloat16)
    pooled = pool(features)
    assert pooled.dtype == tf.float32
    assert np.allclose(pooled, np.float32(features).mean(axis=(1, 2)), rtol=1e-6)
    x = pooled.numpy().astype(np.float64)
    for number in (1, 2):
        x = x @ projector.get_layer(f"projector_dense_{number}").kernel.numpy()
        x = np.maximum((x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-3), 0)
    x = x @ projector.get_layer("projector_dense_3").kernel.numpy()
    found = projector(pooled, training=True)
    assert found.dtype == tf.float32
    assert np.allclose(found, x, atol=1e-5)
    assert [v.name for v in projector.trainable_variables].count("bias") == 0


def test_defaults_of_each_type():
    assert (Agreement().widths, Agreement().factors) == ((2048, 128), ())
    assert (Agreement(type="VICReg").widths, Agreement(type="vicreg").factors) == ((2048, 2048, 2048), (25, 25, 1))
    assert Agreement(type="barlow_twins").factors == (0.005,)
