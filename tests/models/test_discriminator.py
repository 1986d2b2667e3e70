"""The discriminator and the adversarial losses."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.models.discriminator import build_discriminator, discriminator_loss, generator_loss


def random_images(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Black but for a square."""
    images = np.zeros((count, height, width, 3), np.float32)
    images[:, 8:24, 12:28] = np.random.default_rng(0).random((count, 16, 16, 3))
    return images


@pytest.fixture
def tiny():
    keras.utils.set_random_seed(0)
    return build_discriminator(32, 48, 3, filters=4)


def test_layers_and_parameter_count():
    model = build_discriminator(64, 96, 3)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [64, 128, 256, 512]
    assert [layer.output.shape[1:3] for layer in convolutions] == [(32, 48), (16, 24), (8, 12), (4, 6)]
    weights = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 4 * 6 * 512
    biases = 64 + 128 + 256 + 512 + 1
    norms = 2 * (128 + 256 + 512)
    assert model.count_params() == weights + biases + norms
    assert all(layer.name.startswith("discriminator_") for layer in model.layers)
    assert all(layer.negative_slope == pytest.approx(0.2) for layer in model.layers if "relu" in layer.name)
    kernels = [layer.kernel.numpy() for layer in convolutions]
    for kernel in kernels:
        assert kernel.std() == pytest.approx(0.02, rel=0.05)
        assert abs(kernel.mean()) < 0.002


@pytest.mark.parametrize(
    ("policy", "jit_compile"),
    [("mixed_bfloat16", False), pytest.param("float32", True, marks=pytest.mark.stress)],
)
def test_logits_are_one_float32_per_image(policy, jit_compile):
    keras.config.set_dtype_policy(policy)
    try:
        model = build_discriminator(32, 48, 3, filters=4)
    finally:
        keras.config.set_dtype_policy("float32")
    logits = tf.function(model, jit_compile=jit_compile)(random_images(5))
    assert model.output_shape == (None,)
    assert (logits.shape, logits.dtype) == ((5,), tf.float32)
    assert model(random_images(1)).shape == (1,)
    assert all(weight.dtype == "float32" for weight in model.weights)
    assert np.all(np.isfinite(logits))


@pytest.mark.parametrize("training", [False, True])
def test_a_score_does_not_depend_on_the_rest_of_the_batch(tiny, training):
    images = random_images(6)
    images[3:] *= 0.1  # another mean and variance
    together = tiny(images, training=training).numpy()
    alone = np.concatenate([tiny(image[None], training=training).numpy() for image in images])
    assert together.std() > 0.01
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_losses_by_hand():
    # D(real) = 3/4, D(fake) = 1/5: -log(3/4) - log(4/5) = log(5/3), and -log(1/5) = log 5.
    real, fake = tf.constant([0.0, math.log(3)]), tf.constant([0.0, -math.log(4)])
    np.testing.assert_allclose(discriminator_loss(real, fake), [2 * math.log(2), math.log(5 / 3)], rtol=1e-6)
    np.testing.assert_allclose(generator_loss(fake), [math.log(2), math.log(5)], rtol=1e-6)


def test_losses_of_extreme_logits_and_of_bfloat16_are_finite():
    high, low = tf.constant([1e4, -1e4]), tf.constant([-1e4, 1e4])
    np.testing.assert_allclose(discriminator_loss(high, low), [0, 2e4])
    np.testing.assert_allclose(generator_loss(high), [0, 1e4])
    assert discriminator_loss(tf.cast(high, tf.bfloat16), tf.cast(low, tf.bfloat16)).dtype == tf.float32
    with tf.GradientTape() as tape:
        tape.watch(high)
        loss = generator_loss(high)
    np.testing.assert_allclose(
        tape.gradient(loss, high), [0, -1]
    )  # the gradient is largest where the discriminator is right


def test_gradients_reach_the_images_and_every_weight(tiny):
    images = tf.constant(random_images(4))
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = discriminator_loss(tiny(images[:2], training=True), tiny(images[2:], training=True))
    gradients = tape.gradient(loss, [images, *tiny.trainable_variables])
    assert all(float(tf.norm(gradient)) > 0 for gradient in gradients)


def test_an_all_black_region_has_bounded_gradients(tiny):
    # Its variance is 0, and three norms divide by it one after the other.
    def largest(images: np.ndarray) -> float:
        with tf.GradientTape() as tape:
            loss = generator_loss(tiny(images, training=True))
        return float(tf.linalg.global_norm(tape.gradient(loss, tiny.trainable_variables)))

    assert largest(np.zeros((2, 32, 48, 3), np.float32)) < 100 * largest(random_images(2))


@pytest.mark.stress
def test_it_learns_to_distinguish_flat_from_noisy_regions(tiny):
    real = random_images(8)
    fake = np.where(real > 0, np.float32(0.5), np.float32(0))
    optimizer = keras.optimizers.Adam(2e-3)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(discriminator_loss(tiny(real, training=True), tiny(fake, training=True)))
        optimizer.apply(tape.gradient(loss, tiny.trainable_variables), tiny.trainable_variables)
        return loss

    for _ in range(40):
        loss = float(step())
    assert loss < 0.2
    assert np.all(tiny(real) > 0)
    assert np.all(tiny(fake) < 0)
