"""Recomputed blocks: outputs, gradients and batch-norm statistics are those of the plain model, in less memory."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.decoder import build_inpainter
from tfinpaint.models.encoder import block_ends, build_encoder
from tfinpaint.models.frozen import divide
from tfinpaint.models.recompute import recomputing
from tfinpaint.models.trainable import set_trainable


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def inpainter() -> keras.Model:
    return build_inpainter(build_encoder("tiny", "after_relu", 64, 64))


def classifier(trainable) -> keras.Model:
    model = build_classifier(build_encoder("tiny", "before_add", 64, 64), 3)
    set_trainable(model, trainable)
    return model


def step(model: keras.Model, *, recompute: bool, jit_compile: bool = False):
    """A function from images to outputs and gradients, in training."""
    parts = divide(model)
    plain, wanted = lambda x: [parts.trained(x, training=True)], model.outputs
    forward = recomputing(parts, wanted, block_ends("tiny", model), jit_compile=jit_compile) if recompute else plain

    @tf.function(autograph=False, jit_compile=jit_compile)
    def compute(images):
        inputs = parts.inputs_of_trained({"inputs": images})
        with tf.GradientTape() as tape:
            (outputs,) = forward(inputs)
            loss = tf.reduce_mean(tf.square(outputs))
        return [outputs, *tape.gradient(loss, model.trainable_variables)]

    return compute


@pytest.mark.parametrize(
    ("policy", "build"),
    [
        ("float32", lambda: classifier(["conv3_*", "conv5_*", "dense_1"])),
        *(
            pytest.param(*case, marks=pytest.mark.stress)
            for case in [
                ("float32", inpainter),
                ("mixed_bfloat16", lambda: classifier("all")),
                ("float32", lambda: classifier("batchnorm_frozen")),
                ("float32", lambda: classifier("head_only")),
            ]
        ),
    ],
    indirect=["policy"],
)
def test_outputs_gradients_and_statistics_are_the_same(policy, build):
    model = build()
    images = np.random.default_rng(0).random((4, 64, 64, 3), np.float32)
    before = [variable.numpy() for variable in model.variables]
    results = []
    for recompute in (False, True):
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)
        computed = step(model, recompute=recompute)(images)
        results.append([*computed, *(variable.value for variable in model.non_trainable_variables)])
    for plain, recomputed in zip(*results, strict=True):
        np.testing.assert_allclose(plain, recomputed, rtol=1e-6, atol=1e-6 * np.abs(plain).max())
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.99}


def convolutions(model: keras.Model, **options) -> int:
    graph = step(model, **options).get_concrete_function(tf.TensorSpec([4, 64, 64, 3])).graph
    return sum(operation.type == "Conv2D" for operation in graph.get_operations())


@pytest.mark.stress
def test_only_blocks_with_trained_layers_are_computed_twice():
    counts = [convolutions(inpainter(), recompute=recompute) for recompute in (False, True)]
    assert counts[1] - counts[0] == 1 + 4 * 4  # the first layer, and the blocks
    model = classifier(["conv5_*", "dense_1"])
    counts = [convolutions(model, recompute=recompute) for recompute in (False, True)]
    assert counts[1] == counts[0]  # the last block ends with the encoder, where the head begins


@pytest.mark.stress
def test_xla_keeps_both_computations():
    model, images = inpainter(), tf.zeros([4, 64, 64, 3])
    counts = []
    for recompute in (False, True):
        compute = step(model, recompute=recompute, jit_compile=True)
        counts.append(compute.experimental_get_compiler_ir(images)(stage="optimized_hlo").count(" convolution("))
    assert counts[1] >= counts[0] + 4  # those of 3 x 3; XLA computes those of 1 x 1 as matrix products
