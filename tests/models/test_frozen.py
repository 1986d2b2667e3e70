"""Where a model is divided behind its frozen layers, and that both parts together are the model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.decoder import build_inpainter
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.frozen import divide
from tfinpaint.models.trainable import set_trainable


@pytest.fixture(scope="module")
def resnet():
    return build_encoder("resnet50", "before_add", 64, 64)


@pytest.mark.parametrize(
    ("trainable", "last"),
    [
        (["conv5_*", "dense_1"], "conv4_block6_out"),
        (["conv3_block2_2_*", "conv[45]_*", "dense_1"], "conv3_block1_out"),  # within a block: before it
        ("batchnorm_frozen", ""),
        ("all", ""),
        *(
            pytest.param(*case, marks=pytest.mark.stress)
            for case in [
                ("head_only", "flatten_1"),
                (["conv5_block3_*", "dense_1"], "conv5_block2_out"),
                (["conv5_block1_0_conv", "dense_1"], "conv4_block6_out"),  # the shortcut alone
            ]
        ),
    ],
)
def test_resnet50_is_divided_behind_a_whole_block(resnet, trainable, last):
    model = build_classifier(resnet, 3)
    set_trainable(model, trainable)
    parts = divide(model)
    assert parts.last_frozen == last
    if not last:
        assert parts.frozen is None
        assert parts.trained is model
        return
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    features = parts.frozen(images)
    assert np.array_equal(parts.trained(features, training=True), model(images, training=True))
    assert {id(v) for v in parts.trained.trainable_variables} == {id(v) for v in model.trainable_variables}
    assert parts.frozen.trainable_variables == []
    assert model.get_layer("conv5_block3_3_bn").output is resnet.output  # nothing else is rewired


def test_a_frozen_encoder_is_divided_from_its_decoder():
    encoder = build_encoder("tiny", "after_relu", 32, 32)
    model = build_inpainter(encoder, bottleneck="channelwise")
    set_trainable(model, ["decoder_*", "bottleneck_*"])
    assert divide(model).last_frozen == "conv5_block1_out"
    set_trainable(model, ["decoder_*"])
    assert divide(model).last_frozen == "bottleneck_conv"


def test_operations_that_are_no_layers_are_passed():
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="first")(image)
    for number in (1, 2):  # as MobileNetV3 in keras.applications computes its gates
        gate = layers.ReLU(6.0)(layers.Conv2D(4, 1, name=f"gate_{number}")(x) + 3.0) * (1.0 / 6.0)
        x = layers.Multiply(name=f"scaled_{number}")([x, gate])
    model = build_classifier(keras.Model(image, x), 3)
    for trainable, last in ((["gate_2", "dense_1"], "scaled_1"), ("head_only", "flatten_1")):
        set_trainable(model, trainable)
        parts = divide(model)
        assert parts.last_frozen == last
        images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
        assert np.array_equal(parts.trained(parts.frozen(images)), model(images))


def sequence(*inner: layers.Layer) -> keras.Model:
    """These layers between a frozen convolution and a trained dense layer."""
    image = x = layers.Input((8, 8, 3))
    for layer in (layers.Conv2D(4, 3, name="frozen", trainable=False), *inner, layers.Flatten(), layers.Dense(2)):
        x = layer(x)
    return keras.Model(image, x)


@pytest.mark.parametrize(
    ("inner", "last"),
    [
        ((layers.ReLU(name="relu"), layers.Dropout(0.5)), "relu"),
        ((layers.GaussianNoise(0.1),), "frozen"),
        ((layers.ReLU(name="relu"), layers.BatchNormalization(center=False, scale=False)), "relu"),  # trains nothing
        ((layers.BatchNormalization(trainable=False), layers.ReLU(activity_regularizer="l2")), "batch_normalization"),
        ((layers.Dropout(0.0), layers.ReLU(name="relu")), "flatten"),
    ],
)
def test_what_changes_in_training_is_in_the_trained_part(inner, last):
    assert divide(sequence(*inner)).last_frozen.startswith(last)


def test_layers_without_weights_alone_are_no_frozen_part():
    image = layers.Input((8, 8, 3))
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(layers.Rescaling(2.0)(image))))
    assert divide(model).frozen is None


def test_a_layer_that_is_called_twice_does_not_mislead():
    image, conv, add = layers.Input((8, 8, 3)), layers.Conv2D(3, 1, trainable=False), layers.Add(name="sum")
    model = keras.Model(image, layers.Dense(2)(add([conv(conv(image)), image])))
    parts = divide(model)
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    features = images if parts.frozen is None else parts.frozen(images)
    assert np.array_equal(parts.trained(features), model(images))


def test_both_inputs_of_a_shared_layer_are_needed_behind_a_division():
    image, shared = layers.Input((4,)), layers.Dense(4, name="shared", trainable=False)
    doubled = layers.Dense(4, name="first", trainable=False)(image)
    sums = layers.Add()([shared(image), shared(doubled)])
    assert divide(keras.Model(image, layers.Dense(2)(sums))).frozen is None


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_features_have_the_precision_of_the_network(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = build_classifier(build_encoder("tiny", "after_relu", 32, 32), 2)
    finally:
        keras.config.set_dtype_policy("float32")
    set_trainable(model, "head_only")
    parts = divide(model)
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    features = parts.frozen(images)
    assert features.dtype == tf.as_dtype(policy.removeprefix("mixed_"))
    assert np.array_equal(parts.trained(features), model(images))
