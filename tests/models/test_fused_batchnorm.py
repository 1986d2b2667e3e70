import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.fused_batchnorm import fuse_batchnorm

ROUNDING = {"float32": 2e-5, "mixed_bfloat16": 3e-2}


def make(shape, precision, *, fused, scale=True, center=True):
    """A model of one batch norm with weights and statistics that are not those it starts with."""
    image = keras.Input(shape[1:])
    layer = keras.layers.BatchNormalization(epsilon=1.001e-5, scale=scale, center=center, dtype=precision, name="bn")
    model = keras.Model(image, layer(image))
    generator = np.random.default_rng(1)
    model.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
    if fused:
        fuse_batchnorm(model)
    return model


def results(model, inputs, gradient, *, training, compiled=False):
    """Outputs, gradients of inputs and weights, and the weights afterwards, as float32."""

    @tf.function(jit_compile=compiled)
    def compute(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = model(inputs, training=training)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * gradient)
        return outputs, tape.gradient(loss, [inputs, *[weight.value for weight in model.trainable_weights]])

    outputs, gradients = compute(inputs)
    return [np.asarray(each, np.float32) for each in (outputs, *gradients, *model.get_weights())]


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(8, 16, 16, 256), (2, 5, 3, 7), (4, 1, 1, 2048)])
def test_fused_equals_keras(shape, training, precision):
    generator = np.random.default_rng(0)
    inputs = tf.constant(generator.normal(3, 2, shape), tf.float32)
    gradient = tf.constant(generator.normal(0, 1, shape), tf.float32)
    found, expected = (
        results(make(shape, precision, fused=fused), inputs, gradient, training=training) for fused in (True, False)
    )
    for one, other in zip(found, expected, strict=True):
        limit = ROUNDING[precision] * max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one, other, atol=limit)


def test_variance_of_a_single_value_is_zero():
    model = make((1, 1, 1, 3), "float32", fused=True)
    layer = model.get_layer("bn")
    before = layer.moving_variance.numpy()
    outputs = model(tf.constant([[[[3.0, 1.0, 2.0]]]]), training=True)
    np.testing.assert_array_equal(outputs[0, 0, 0], layer.beta)
    np.testing.assert_allclose(layer.moving_variance, 0.99 * before, rtol=1e-6)


@pytest.mark.parametrize(("scale", "center"), [(False, True), (True, False), (False, False)])
def test_without_scale_or_center(scale, center):
    shape = (4, 6, 6, 5)
    generator = np.random.default_rng(0)
    inputs, gradient = (tf.constant(generator.normal(1, 2, shape), tf.float32) for _ in range(2))
    found, expected = (
        results(make(shape, "float32", fused=fused, scale=scale, center=center), inputs, gradient, training=True)
        for fused in (True, False)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_frozen_layer_keeps_its_statistics():
    model = make((4, 6, 6, 5), "float32", fused=True)
    model.get_layer("bn").trainable = False
    before = model.get_weights()
    inputs = tf.random.stateless_normal((4, 6, 6, 5), (0, 0))
    outputs = model(inputs, training=True)
    np.testing.assert_allclose(outputs, model(inputs, training=False), atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_xla_compiles_it():
    generator = np.random.default_rng(0)
    inputs, gradient = (tf.constant(generator.normal(1, 2, (4, 6, 6, 5)), tf.float32) for _ in range(2))
    compiled, plain = (
        results(make(inputs.shape, "float32", fused=True), inputs, gradient, training=True, compiled=compiled)
        for compiled in (True, False)
    )
    for one, other in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_all_batch_norms_of_the_encoder_are_fused():
    encoder = build_encoder("tiny", "after_relu", 32, 32)
    graph = tf.function(lambda x: encoder(x, training=True)).get_concrete_function(tf.TensorSpec((2, 32, 32, 3))).graph
    operations = [operation.type for operation in graph.get_operations()]
    norms = [layer for layer in encoder.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert operations.count("FusedBatchNormV3") == len(norms) > 0


def test_mask_is_left_to_keras():
    model = make((2, 4, 4, 3), "float32", fused=True)
    inputs = tf.random.stateless_normal((2, 4, 4, 3), (0, 0))
    mask = tf.constant(np.arange(32).reshape(2, 4, 4) % 2 == 0)
    model.get_layer("bn")(inputs, training=True, mask=mask)
    visible = inputs.numpy()[mask.numpy()]
    start = make((2, 4, 4, 3), "float32", fused=False).get_layer("bn").moving_mean.numpy()
    np.testing.assert_allclose(model.get_layer("bn").moving_mean, 0.99 * start + 0.01 * visible.mean(axis=0), rtol=1e-5)
