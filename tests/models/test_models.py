"""The networks: names, counts, shapes, precision, freezing."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.errors import UserError
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.encoder import OUTPUT_LAYERS, build_encoder
from tfinpaint.models.inpaint import build_inpainter, encoder_part
from tfinpaint.models.trainable import set_trainable

GOLDEN = Path(__file__).parents[1] / "golden"


def weights_of(model: keras.Model) -> list[str]:
    """`layer/weight shape` of every weight, in order."""
    return [f"{layer.name}/{w.name} {tuple(w.shape)}" for layer in model.layers for w in layer.weights]


def trainable_count(model: keras.Model) -> int:
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.fixture(scope="module")
def inpainter():
    return build_inpainter(build_encoder("resnet50", "before_add", 128, 128))


@pytest.fixture(scope="module")
def classifier():
    return build_classifier(build_encoder("resnet50", "before_add", 128, 128), 8)


def test_names_and_shapes_are_the_golden_ones(inpainter, classifier):
    # tests/golden/weights.json: weights_of() of both models when they were first written. The names are the contract
    # of every saved checkpoint; the encoder's are those of keras.applications.ResNet50.
    golden = json.loads((GOLDEN / "weights.json").read_text())
    assert weights_of(inpainter) == golden["inpainter"]
    assert weights_of(classifier) == golden["classifier"]
    keras_names = [layer.name for layer in keras.applications.ResNet50(include_top=False, weights=None).layers]
    shared = [layer.name for layer in build_encoder("resnet50", "after_relu", 64, 64).layers]
    assert shared[1:] == keras_names[1:]


def test_parameter_counts_are_those_of_the_tutorial(inpainter, classifier):
    assert (trainable_count(inpainter), inpainter.count_params()) == (43_068_355, 43_121_475)
    assert classifier.count_params() == 23_849_864
    for preset, count in (("all", 23_796_744), ("batchnorm_frozen", 23_743_624), ("head_only", 262_152)):
        set_trainable(classifier, preset)
        assert trainable_count(classifier) == count
    assert sum(isinstance(layer, keras.layers.BatchNormalization) for layer in classifier.layers) == 53


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
@pytest.mark.parametrize("output", ["before_add", "after_relu"])
def test_any_multiple_of_32_has_the_same_trainable_count(size, output):
    model = build_inpainter(build_encoder("resnet50", output, *size))
    assert model.output_shape == (None, *size, 3)
    assert trainable_count(model) == 43_068_355


@pytest.mark.parametrize("encoder", ["resnet50", "tiny"])
def test_the_cut_is_before_the_add_or_after_the_relu(encoder):
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    after = build_encoder(encoder, "after_relu", 32, 32)
    before = keras.Model(after.input, after.get_layer(OUTPUT_LAYERS[encoder]["before_add"]).output)
    assert before(image).shape == after(image).shape == (2, 1, 1, after.output_shape[-1])
    assert float(tf.reduce_min(before(image))) < 0 <= float(tf.reduce_min(after(image)))


def test_the_encoder_part_shares_its_variables(inpainter):
    part = encoder_part(inpainter, "conv5_block3_3_bn")
    assert part.get_layer("conv1_conv").kernel is inpainter.get_layer("conv1_conv").kernel
    assert [layer.name for layer in part.layers][-1] == "conv5_block3_3_bn"


def test_outputs_are_probabilities_in_float32_under_mixed_precision():
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        restored = build_inpainter(build_encoder("tiny", "before_add", 32, 32))(image)
        classes = build_classifier(build_encoder("tiny", "before_add", 32, 32), 3)(image)
    finally:
        keras.config.set_dtype_policy("float32")
    assert restored.dtype == classes.dtype == tf.float32
    assert 0 < float(tf.reduce_min(restored)) < float(tf.reduce_max(restored)) < 1
    assert np.allclose(tf.reduce_sum(classes, axis=1), 1, atol=1e-6)


def test_trainable_by_patterns(classifier):
    set_trainable(classifier, ["conv5_*", "dense_1"])
    trained = {layer.name for layer in classifier.layers if layer.trainable_weights}
    assert "dense_1" in trained
    assert all(name.startswith(("conv5_", "dense_1")) for name in trained)
    with pytest.raises(UserError, match="no layer fits 'conv9_"):
        set_trainable(classifier, ["conv9_*"])
    for nothing in ([], ["*_relu"]):
        with pytest.raises(UserError, match="leaves no weights to train"):
            set_trainable(classifier, nothing)


def test_a_frozen_batch_norm_keeps_its_statistics():
    model = build_classifier(build_encoder("tiny", "before_add", 32, 32), 2)
    image = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    for preset, moves in (("batchnorm_frozen", False), ("head_only", False), ("all", True)):
        set_trainable(model, preset)
        before = model.get_layer("conv1_bn").moving_mean.numpy()
        model(image, training=True)
        assert (not np.array_equal(before, model.get_layer("conv1_bn").moving_mean.numpy())) == moves
