import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfinpaint.models.decoder import ChannelwiseDense
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


def kernel_gradients(inputs, filters, **options):
    """The gradient of a kernel, by ours and by TensorFlow's own operation; and the operations of ours."""
    generator = np.random.default_rng(0)
    channels = inputs.shape[-1]
    kernel = tf.constant(generator.normal(size=(3, 3, channels, filters)), inputs.dtype)
    received = tf.constant(generator.normal(size=(*inputs.shape[:3], filters)), inputs.dtype)

    @tf.function(autograph=False)
    def ours(inputs, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            outputs = tf.nn.conv2d(inputs, kernel, 1, "SAME", **options)
        return tape.gradient(outputs, kernel, output_gradients=received)

    own = tf.raw_ops.Conv2DBackpropFilter(
        input=inputs, filter_sizes=kernel.shape, out_backprop=received, strides=[1, 1, 1, 1], padding="SAME"
    )
    graph = tf.function(ours).get_concrete_function(inputs, kernel).graph
    names = {node.op for function in graph.as_graph_def().library.function for node in function.node_def}
    return ours(inputs, kernel), own, names


@pytest.mark.parametrize(
    ("height", "width", "channels", "filters"),
    [(1, 1, 512, 512), (2, 2, 512, 512), (4, 4, 256, 256), (2, 3, 96, 128), (1, 2, 64, 32)],
)
def test_kernel_gradient_of_a_small_map_is_that_of_tensorflow(height, width, channels, filters):
    inputs = tf.constant(np.random.default_rng(1).normal(size=(8, height, width, channels)), tf.float32)
    found, expected, names = kernel_gradients(inputs, filters)
    assert "MatMul" in names
    np.testing.assert_allclose(found, expected, atol=2e-6 * float(tf.reduce_max(tf.abs(expected))))


@pytest.mark.parametrize(("side", "channels"), [(8, 2048), (4, 128)])
def test_kernel_gradient_of_a_larger_map_is_left_to_tensorflow(side, channels):
    inputs = tf.zeros((2, side, side, channels))
    _, _, names = kernel_gradients(inputs, 8)
    assert "MatMul" not in names
    assert "Conv2DBackpropFilter" in names
