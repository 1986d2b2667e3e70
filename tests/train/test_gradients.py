import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfinpaint.models.decoder import ChannelwiseDense
from tfinpaint.models.fused_batchnorm import fuse_batchnorm
from tfinpaint.models.transposed import Conv2DTranspose
from tfinpaint.train.gradients import replace_gradients


@pytest.fixture(autouse=True)
def _replaced():
    replace_gradients()


@pytest.fixture(params=["eager", "graph", "xla"])
def compiled(request):
    """A function that compiles another one in one of the three ways in which TensorFlow runs it."""
    return {
        "eager": lambda function: function,
        "graph": lambda function: tf.function(function, autograph=False),
        "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
    }[request.param]


@pytest.mark.parametrize(("data_format", "shape"), [("NHWC", (24, 32, 32, 2)), ("NCHW", (24, 2, 32, 32))])
def test_a_sum_of_24576_ones_is_24576(compiled, data_format, shape):
    bias = tf.Variable(tf.zeros(2))

    def gradient(inputs):
        with tf.GradientTape() as tape:
            outputs = tf.nn.bias_add(inputs, tf.cast(bias, tf.bfloat16), data_format)
        return tape.gradient(outputs, bias, tf.ones_like(outputs))

    assert compiled(gradient)(tf.zeros(shape, tf.bfloat16)).numpy().tolist() == [24576, 24576]  # 256 without


def test_float16_is_summed_in_float32_too():
    bias = tf.Variable(tf.zeros(1))
    with tf.GradientTape() as tape:
        outputs = tf.nn.bias_add(tf.zeros([2, 5000, 1], tf.float16), tf.cast(bias, tf.float16))
    assert tape.gradient(outputs, bias).numpy().tolist() == [10000]  # 2048 where float16 is summed


@pytest.mark.parametrize(
    "make",
    [
        lambda policy: layers.Conv2D(4, 3, padding="same", activation="relu", dtype=policy),
        lambda policy: layers.Conv2DTranspose(4, 4, strides=2, padding="same", dtype=policy),
        lambda policy: Conv2DTranspose(4, 4, strides=2, padding="same", dtype=policy),
        lambda policy: layers.Dense(4, dtype=policy),
        lambda policy: layers.SeparableConv2D(4, 3, dtype=policy),
        lambda policy: layers.BatchNormalization(dtype=policy),
        lambda policy: ChannelwiseDense(dtype=policy),
    ],
)
def test_every_kind_of_layer_has_the_gradient_of_float32(make):
    inputs = np.random.default_rng(0).normal(size=(200, 8, 8, 3)).astype(np.float32)

    def gradient(policy: str) -> np.ndarray:
        keras.utils.set_random_seed(0)
        layer = make(policy)
        with tf.GradientTape() as tape:
            outputs = layer(inputs, **({"training": True} if isinstance(layer, layers.BatchNormalization) else {}))
            total = tf.reduce_sum(tf.cast(outputs, tf.float32))
        bias = layer.beta if isinstance(layer, layers.BatchNormalization) else layer.bias
        return tape.gradient(total, bias.value).numpy()

    exact = gradient("float32")
    np.testing.assert_allclose(gradient("mixed_bfloat16"), exact, rtol=0.03)  # ReLUs near 0 differ


def test_float32_keeps_tensorflows_own_gradient():
    @tf.function(autograph=False)
    def gradient(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = tf.nn.bias_add(inputs, inputs[0])
        return tape.gradient(outputs, inputs)

    graph = gradient.get_concrete_function(tf.TensorSpec([5, 3])).graph
    assert "BiasAddGrad" in {operation.type for operation in graph.get_operations()}


def operations(function, *arguments) -> set[str]:
    graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph
    return {operation.type for operation in graph.get_operations()}


def bias_gradient(inputs: tf.Tensor, policy: str, *, training: bool, twice: bool = False) -> np.ndarray:
    """The gradient of a bias whose outputs go into a batch norm, and perhaps into the loss too."""
    bias = tf.Variable(tf.ones(inputs.shape[-1]))
    norm = layers.BatchNormalization(dtype=policy)
    norm_inputs = keras.Input(inputs.shape[1:])
    fuse_batchnorm(keras.Model(norm_inputs, norm(norm_inputs)))

    def gradient(inputs):
        with tf.GradientTape() as tape:
            biased = tf.nn.bias_add(inputs, tf.cast(bias, inputs.dtype))
            total = tf.reduce_sum(tf.cast(norm.call(biased, training=training), tf.float32) ** 3)
            total += tf.reduce_sum(tf.cast(biased, tf.float32)) if twice else 0.0
        return tape.gradient(total, bias)

    return tf.function(gradient, autograph=False)(inputs).numpy()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_bias_in_front_of_a_batch_norm_in_training_has_the_gradient_0(policy):
    inputs = tf.cast(np.random.default_rng(0).normal(1, 2, (8, 16, 16, 6)), policy.removeprefix("mixed_"))
    found = bias_gradient(inputs, policy, training=True)
    assert found.tolist() == [0] * 6  # and not what rounding leaves of a sum of 2048 values


def test_a_bias_that_something_else_depends_on_has_a_gradient():
    inputs = tf.constant(np.random.default_rng(0).normal(1, 2, (8, 16, 16, 6)), tf.float32)
    found = bias_gradient(inputs, "float32", training=True, twice=True)
    np.testing.assert_allclose(found, [8 * 16 * 16] * 6, rtol=1e-4)


def test_a_bias_in_front_of_a_batch_norm_in_inference_has_a_gradient():
    inputs = tf.constant(np.random.default_rng(0).normal(1, 2, (8, 16, 16, 6)), tf.float32)
    found = bias_gradient(inputs, "float32", training=False)
    expected = np.sum(3 * (inputs + 1) ** 2, axis=(0, 1, 2))  # mean 0 and variance 1 are kept, but for epsilon
    np.testing.assert_allclose(found, expected, rtol=0.002)


def kernel_gradients(inputs, filters, *, size=3, strides=1, padding="SAME"):
    """The gradient of a kernel, by ours and by TensorFlow's own operation; and the operations of ours."""
    generator = np.random.default_rng(0)
    channels, sides = inputs.shape[-1], [-(-side // strides) for side in inputs.shape[1:3]]
    kernel = tf.constant(generator.normal(size=(size, size, channels, filters)), inputs.dtype)
    received = tf.constant(generator.normal(size=(len(inputs), *sides, filters)), inputs.dtype)

    def ours(inputs, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            outputs = tf.nn.conv2d(inputs, kernel, strides, padding)
        return tape.gradient(outputs, kernel, output_gradients=received)

    own = tf.raw_ops.Conv2DBackpropFilter(
        input=inputs, filter_sizes=kernel.shape, out_backprop=received, strides=[1, strides, strides, 1],
        padding=padding,
    )  # fmt: skip
    found = tf.function(ours, autograph=False)(inputs, kernel)
    return tf.cast(found, tf.float32), tf.cast(own, tf.float32), operations(ours, inputs, kernel)


def images(height, width, channels, dtype=tf.float32):
    return tf.cast(np.random.default_rng(1).normal(size=(8, height, width, channels)), dtype)


@pytest.mark.parametrize(
    ("height", "width", "channels", "filters", "options"),
    [
        (1, 1, 512, 512, {}),
        (2, 2, 512, 512, {}),
        (4, 4, 256, 256, {}),
        (2, 3, 96, 128, {}),
        (1, 2, 64, 32, {}),
        (2, 2, 64, 256, {"size": 1}),
        (4, 8, 128, 256, {"size": 1, "strides": 2}),
        (4, 4, 64, 64, {"size": 1, "strides": 2, "padding": "VALID"}),
    ],
)
def test_kernel_gradient_of_a_small_map_is_that_of_tensorflow(height, width, channels, filters, options):
    found, expected, names = kernel_gradients(images(height, width, channels), filters, **options)
    assert "MatMul" in names
    np.testing.assert_allclose(found, expected, atol=2e-6 * float(tf.reduce_max(tf.abs(expected))))


@pytest.mark.parametrize(
    ("height", "width", "channels", "filters", "options"),
    [
        (8, 8, 128, 128, {}),
        (16, 16, 16, 32, {"size": 1}),
        (12, 16, 32, 8, {"size": 1, "strides": 2}),
        (16, 12, 32, 8, {"size": 1, "strides": 2, "padding": "VALID"}),
    ],
)
def test_kernel_gradient_in_bfloat16_is_a_product_for_larger_maps_too(height, width, channels, filters, options):
    found, _, names = kernel_gradients(images(height, width, channels, tf.bfloat16), filters, **options)
    _, exact, _ = kernel_gradients(
        tf.cast(images(height, width, channels, tf.bfloat16), tf.float32), filters, **options
    )
    assert "MatMul" in names
    np.testing.assert_allclose(found, exact, atol=0.01 * float(tf.reduce_max(tf.abs(exact))))


@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        ((8, 8, 2048), tf.float32, {}),
        ((4, 4, 128), tf.float32, {}),
        ((8, 8, 64), tf.float32, {"size": 1}),
        ((16, 16, 128), tf.bfloat16, {}),
        ((5, 4, 256), tf.bfloat16, {"size": 1, "strides": 2}),  # every second of 5 rows
        ((4, 4, 256), tf.float16, {}),  # products may be summed in float16
        ((4, 4, 256), tf.bfloat16, {"strides": 2}),
        ((4, 4, 256), tf.bfloat16, {"size": 5}),
    ],
)
def test_other_kernel_gradients_are_left_to_tensorflow(shape, dtype, options):
    _, _, names = kernel_gradients(images(*shape, dtype), 8 if options else shape[-1], **options)
    assert "MatMul" not in names
    assert "Conv2DBackpropFilter" in names


def test_a_received_gradient_without_a_known_shape_is_left_to_tensorflow():
    inputs, kernel = images(4, 4, 256), tf.ones((3, 3, 256, 256))

    @tf.custom_gradient
    def without_shape(values):
        return tf.identity(values), lambda received: tf.numpy_function(lambda each: each, [received], tf.float32)

    def gradient(inputs, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            outputs = without_shape(tf.nn.bias_add(tf.nn.conv2d(inputs, kernel, 1, "SAME"), tf.zeros(256)))
        return tape.gradient(outputs, kernel)

    assert "MatMul" not in operations(gradient, inputs, kernel)
