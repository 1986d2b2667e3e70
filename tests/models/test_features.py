"""Distances between the features of a frozen encoder."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.errors import UserError
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.features import build_features, feature_distance


def random_images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 32, 64, 3), np.float32)


@pytest.fixture
def encoder():
    keras.utils.set_random_seed(0)
    return build_encoder("tiny", "after_relu", 32, 64)


def test_the_features_are_the_layers_outputs_and_frozen(encoder):
    features = build_features(encoder, "conv3_block1_out")
    assert features.output_shape == (None, 4, 8, 32)
    assert features.layers[-1] is encoder.get_layer("conv3_block1_out")
    assert features.trainable_weights == []
    before = [weight.numpy() for weight in features.weights]
    features(random_images(2, 0), training=True)
    for weight, was in zip(features.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), was, err_msg=weight.path)


def test_the_distance_is_the_mean_squared_difference_of_each_image(encoder):
    features = build_features(encoder, "conv3_block1_out")
    restored, originals = random_images(3, 1), random_images(3, 2)
    restored[1] = originals[1]
    distance = feature_distance(features, restored, originals)
    assert distance.dtype == tf.float32
    squares = (features(restored).numpy() - features(originals).numpy()) ** 2
    np.testing.assert_allclose(distance, squares.sum(axis=(1, 2, 3)) / (4 * 8 * 32), rtol=1e-5)
    assert distance[1] == 0
    assert distance[0] > 0


def test_the_distance_by_hand():
    # One feature, twice the pixel: (2 * 0.5 - 2 * 0.25)^2 at one pixel of four.
    image = keras.Input((2, 2, 1))
    convolution = keras.layers.Conv2D(1, 1, kernel_initializer=keras.initializers.Constant(2.0), name="double")
    features = build_features(keras.Model(image, convolution(image)), "double")
    restored, originals = np.full((1, 2, 2, 1), 0.25, np.float32), np.full((1, 2, 2, 1), 0.25, np.float32)
    restored[0, 1, 0, 0] = 0.5
    np.testing.assert_allclose(feature_distance(features, restored, originals), [0.0625])


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.stress)])
def test_the_gradient_flows_to_the_restored_images_and_not_to_the_originals(encoder, jit_compile):
    features = build_features(encoder, "conv4_block1_out")

    @tf.function(jit_compile=jit_compile)
    def gradients(restored, originals):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([restored, originals])
            distance = feature_distance(features, restored, originals)
        assert tape.gradient(distance, originals) is None
        return tape.gradient(distance, restored)

    gradient = gradients(tf.constant(random_images(2, 1)), tf.constant(random_images(2, 2)))
    assert np.all(np.linalg.norm(np.reshape(gradient, (2, -1)), axis=1) > 0)


def test_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        features = build_features(build_encoder("tiny", "after_relu", 32, 64), "conv3_block1_out")
    finally:
        keras.config.set_dtype_policy("float32")
    restored, originals = random_images(2, 1), random_images(2, 2)
    # Rounded to bfloat16 only once: the features, not their difference.
    squares = (np.float32(features(restored)) - np.float32(features(originals))) ** 2
    distance = feature_distance(features, restored, originals)
    assert distance.dtype == tf.float32
    np.testing.assert_allclose(distance, squares.mean(axis=(1, 2, 3)), rtol=1e-5)


def test_an_unknown_layer_is_refused_with_similar_names(encoder):
    with pytest.raises(UserError, match=r"no layer 'conv3_block2_out'; the most similar names are conv3_block1_out, "):
        build_features(encoder, "conv3_block2_out")
    with pytest.raises(UserError, match=r"no layer 'conv5_block1_out'"):
        build_features(build_encoder("tiny", "before_add", 32, 64), "conv5_block1_out")
