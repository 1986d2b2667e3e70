"""Transposed convolutions as matrix products: results, gradients and files are those of Keras's layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfinpaint.models import transposed
from tfinpaint.models.decoder import build_inpainter
from tfinpaint.models.transposed import Conv2DTranspose, transposed_convolution


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def operations(layer: keras.Layer, shape: tuple[int | None, ...]) -> set[str]:
    """The types of the operations by which a layer computes its output."""
    function = tf.function(lambda inputs: layer(inputs), autograph=False)
    return {op.type for op in function.get_concrete_function(tf.TensorSpec(shape)).graph.get_operations()}


def decoder_layer(filters: int = 8, **options) -> Conv2DTranspose:
    return Conv2DTranspose(filters, **{"kernel_size": 4, "strides": 2, "padding": "same", **options})


def test_an_input_of_one_position_by_hand():
    # Output row 2 i + u - 1: of the four rows of the kernel, the second and the third lie inside of two rows.
    kernel = values(4, 4, 3, 5)
    outputs = transposed_convolution(tf.constant(values(1, 1, 1, 5)), tf.constant(kernel))
    expected = np.einsum("c,uvfc->uvf", values(1, 1, 1, 5)[0, 0, 0], kernel[1:3, 1:3])
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "channels", "filters", "jit_compile"),
    [
        ((4, 4), 2048, 512, False),
        *((*case, jit) for case in [((1, 1), 512, 7), ((3, 5), 513, 3), ((8, 2), 512, 1)] for jit in (False, True)),
        pytest.param((4, 4), 2048, 512, True, marks=pytest.mark.stress),
    ],
)
def test_results_and_gradients_are_those_of_keras(size, channels, filters, jit_compile):
    inputs = tf.constant(values(2, *size, channels))
    ours, keras_layer = (
        kind(filters, 4, strides=2, padding="same", activation="tanh")
        for kind in (Conv2DTranspose, layers.Conv2DTranspose)
    )
    for layer in (ours, keras_layer):
        layer.build(inputs.shape)
        layer.set_weights([values(4, 4, filters, channels) / channels**0.5, values(filters)])
    assert "Conv2DBackpropInput" not in operations(ours, (None, *size, channels))  # the batch may have any size

    def compute(layer: keras.Layer) -> list[np.ndarray]:
        @tf.function(input_signature=[tf.TensorSpec([None, *size, channels])], jit_compile=jit_compile, autograph=False)
        def function(inputs):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = layer(inputs)
                loss = tf.reduce_mean(outputs * tf.constant(values(1, 2 * size[0], 2 * size[1], filters)))
            return [outputs, *tape.gradient(loss, [inputs, layer.kernel.value, layer.bias.value])]

        return [tensor.numpy() for tensor in function(inputs)]

    for found, expected in zip(compute(ours), compute(keras_layer), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (decoder_layer(), (None, 5, 4, 512)),  # more positions than a 32nd of the channels
        (decoder_layer(), (None, None, 4, 512)),  # a map of unknown size
        (decoder_layer(), (None, 4, 4, 511)),  # fewer channels than 32 times the positions
        (decoder_layer(kernel_size=3), (None, 4, 4, 512)),
        (decoder_layer(strides=1), (None, 4, 4, 512)),
        (decoder_layer(padding="valid"), (None, 4, 4, 512)),
        (decoder_layer(output_padding=1), (None, 4, 4, 512)),
    ],
)
def test_other_forms_are_left_to_keras(layer, shape):
    assert "Conv2DBackpropInput" in operations(layer, shape)


def test_gpus_get_the_convolution(monkeypatch):
    assert "MatMul" in operations(decoder_layer(), (None, 4, 4, 512))
    monkeypatch.setattr(transposed.tf.config, "list_logical_devices", lambda kind: ["a GPU"])
    assert "Conv2DBackpropInput" in operations(decoder_layer(), (None, 4, 4, 512))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_in_the_policys_type(policy):
    layer, exact = Conv2DTranspose(6, 4, strides=2, padding="same", dtype=policy), decoder_layer(6)
    inputs = tf.cast(tf.cast(values(2, 3, 3, 512), tf.bfloat16), tf.float32)
    outputs, _ = layer(inputs), exact(inputs)  # which builds both
    assert outputs.dtype == keras.DTypePolicy(policy).compute_dtype
    exact.set_weights([tf.cast(tf.cast(weight, tf.bfloat16), tf.float32) for weight in layer.get_weights()])
    expected = exact(inputs)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("ending", [".weights.h5", ".keras", ".h5"])
def test_files_are_those_of_keras(tmp_path, ending):
    def network(kind: type[keras.Layer]) -> keras.Model:
        x = image = layers.Input((2, 2, 512))
        for filters in (8, 4):
            x = kind(filters, 4, strides=2, padding="same", activation="relu", name=f"decoder_layer_{filters}")(x)
        return keras.Model(image, x)

    for writer, reader in ((Conv2DTranspose, layers.Conv2DTranspose), (layers.Conv2DTranspose, Conv2DTranspose)):
        written, read, path = network(writer), network(reader), tmp_path / f"{writer.__module__}{ending}"
        written.save_weights(path) if ending == ".weights.h5" else written.save(path)
        read.load_weights(path)
        for found, expected in zip(read.get_weights(), written.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_the_decoder_begins_with_a_matrix_product():
    image = keras.Input((64, 64, 3))
    inpainter = build_inpainter(keras.Model(image, layers.Conv2D(2048, 32, strides=32)(image)))  # a ResNet50's maps
    for number in range(1, 6):
        layer = inpainter.get_layer(f"decoder_layer_{number}")
        assert type(layer) is Conv2DTranspose
    assert "MatMul" in operations(inpainter.get_layer("decoder_layer_1"), (None, 2, 2, 2048))
