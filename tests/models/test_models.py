"""The networks: names, counts, shapes, precision, freezing."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from tfinpaint.config.encoders import ARCHITECTURES
from tfinpaint.errors import UserError
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.decoder import ChannelwiseDense, build_inpainter, encoder_part
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.trainable import set_trainable
from tfinpaint.models.transposed import Conv2DTranspose

GOLDEN = ROOT / "tests" / "golden"


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
    model = build_inpainter(build_encoder("resnet50", "after_relu", 64, 96))
    assert [layer.name for layer in model.layers][1 : len(keras_names)] == keras_names[1:]
    # Another end of the encoder and other multiples of 32 change no number of weights.
    assert model.output_shape == (None, 64, 96, 3)
    assert trainable_count(model) == 43_068_355


def test_parameter_counts_are_those_of_the_tutorial(inpainter, classifier):
    assert (trainable_count(inpainter), inpainter.count_params()) == (43_068_355, 43_121_475)
    assert classifier.count_params() == 23_849_864
    for preset, count in (("all", 23_796_744), ("batchnorm_frozen", 23_743_624), ("head_only", 262_152)):
        set_trainable(classifier, preset)
        assert trainable_count(classifier) == count
    assert sum(isinstance(layer, keras.layers.BatchNormalization) for layer in classifier.layers) == 53


def test_a_head_that_pools_has_a_weight_for_each_map_and_class():
    tiny, flat = (build_classifier(build_encoder("tiny", "before_add", 64, 96), 3, head=h) for h in ("pool", "flatten"))
    maps = ARCHITECTURES["tiny"].maps
    kernel = tiny.get_layer("dense_1").kernel
    assert (tuple(kernel.shape), tuple(flat.get_layer("dense_1").kernel.shape)) == ((maps, 3), (6 * maps, 3))
    assert [w for w in weights_of(tiny) if not w.startswith("dense_1/kernel")] == [
        w for w in weights_of(flat) if not w.startswith("dense_1/kernel")
    ]
    image = np.random.default_rng(0).random((2, 64, 96, 3), np.float32)
    features = keras.Model(tiny.input, tiny.get_layer("conv5_block1_3_bn").output)(image).numpy()
    logits = features.mean(axis=(1, 2)) @ tiny.get_layer("dense_1").kernel.numpy()
    np.testing.assert_allclose(tiny(image), tf.nn.softmax(logits), rtol=1e-4)


def test_the_encoder_ends_before_the_addition_or_after_the_relu(inpainter):
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    assert inpainter.get_layer("decoder_layer_1").input is inpainter.get_layer("conv5_block3_3_bn").output
    after = build_encoder("tiny", "after_relu", 32, 32)
    before = keras.Model(after.input, after.get_layer(ARCHITECTURES["tiny"].before_add).output)
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


def channelwise_inpainter(size: tuple[int, int] = (32, 64), **options) -> keras.Model:
    return build_inpainter(build_encoder("tiny", "before_add", *size), bottleneck="channelwise", **options)


@pytest.mark.parametrize(("size", "positions"), [((64, 64), 4), ((64, 96), 6)])
def test_the_channelwise_bottleneck_has_a_weight_for_each_pair_of_positions(size, positions):
    model, maps = channelwise_inpainter(size=size), ARCHITECTURES["tiny"].maps
    assert model.get_layer("bottleneck_channelwise").count_params() == maps * positions**2 + maps * positions
    assert model.get_layer("bottleneck_conv").count_params() == maps**2 + maps
    assert model.output_shape == (None, *size, 3)


def test_the_bottleneck_adds_two_layers_and_renames_none():
    model, maps, positions = channelwise_inpainter(size=(64, 64)), ARCHITECTURES["tiny"].maps, 4
    plain = build_inpainter(build_encoder("tiny", "before_add", 64, 64))
    assert trainable_count(model) == trainable_count(plain) + maps * (positions**2 + positions) + maps**2 + maps
    added = ("bottleneck_channelwise/", "bottleneck_conv/")
    assert [w for w in weights_of(model) if not w.startswith(added)] == weights_of(plain)
    part = encoder_part(model, ARCHITECTURES["tiny"].before_add)
    assert [layer.name for layer in part.layers][-1] == ARCHITECTURES["tiny"].before_add


def test_batch_norms_of_the_decoder_add_layers_and_change_none(inpainter):
    plain = build_inpainter(build_encoder("tiny", "before_add", 32, 32))
    model = build_inpainter(build_encoder("tiny", "before_add", 32, 32), decoder="batchnorm")
    added = [w for w in weights_of(model) if w not in weights_of(plain)]
    assert [w for w in weights_of(model) if w not in added] == weights_of(plain)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    filters = {1: 512, 2: 256, 3: 128, 4: 64}
    assert added == [f"decoder_layer_{n}_bn/{name} ({f},)" for n, f in filters.items() for name in names]
    assert trainable_count(model) == trainable_count(plain) + 2 * sum(filters.values())
    # Each ReLU acts on normalised values: mean beta and deviation gamma over the batch and its positions.
    model.get_layer("decoder_layer_2_bn").beta.assign(tf.fill([256], 3.0))
    image = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
    normalised = keras.Model(model.input, model.get_layer("decoder_layer_2_bn").output)(image, training=True)
    np.testing.assert_allclose(tf.reduce_mean(normalised, axis=[0, 1, 2]), np.full(256, 3.0), atol=1e-4)
    assert model.get_layer("decoder_layer_2").activation is keras.activations.linear
    assert (
        float(tf.reduce_min(normalised))
        < 0
        == float(tf.reduce_min(model.get_layer("decoder_layer_2_relu").call(normalised)))
    )


def test_the_decoder_with_batch_norms_multiplies_matrices_and_is_copied_from_its_description():
    model = build_inpainter(build_encoder("tiny", "before_add", 32, 32), decoder="batchnorm")
    names = [f"decoder_layer_{n}" for n in range(1, 5)]
    assert [type(model.get_layer(name)) for name in names] == [Conv2DTranspose] * 4
    assert model.get_layer(names[0])._is_product(tf.zeros([1, 1, 1, ARCHITECTURES["tiny"].maps]))
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    np.testing.assert_allclose(copy(image), model(image), atol=1e-6)


def test_a_channelwise_layer_connects_all_positions_of_a_map_and_no_others():
    layer = ChannelwiseDense()
    features = np.random.default_rng(0).random((2, 2, 3, 4), np.float32)
    layer.build(features.shape)
    layer.bias.assign(np.random.default_rng(1).random((6, 4)))
    outputs = layer(features).numpy()
    flat = np.einsum("bim,mij->bjm", features.reshape(2, 6, 4), layer.kernel.numpy()) + layer.bias.numpy()
    assert flat.min() < 0  # so that the ReLU shows
    np.testing.assert_allclose(outputs, np.maximum(flat, 0).reshape(2, 2, 3, 4), rtol=1e-5, atol=1e-6)

    layer.kernel.assign(np.abs(layer.kernel.numpy()))  # no ReLU hides a change
    before = layer(features).numpy()
    for row in range(2):
        for column in range(3):
            changed = features.copy()
            changed[0, row, column, 1] += 1
            moved = layer(changed).numpy() != before
            assert moved[0, :, :, 1].all()
            assert moved.sum() == 6


def test_a_channelwise_layer_by_hand():
    layer = ChannelwiseDense()
    layer.build((None, 1, 2, 2))
    # Map 0: (a, b) -> (a + 2b, 3a - b); map 1: (c, d) -> (d, c), with 10 added to its second position.
    layer.kernel.assign([[[1, 3], [2, -1]], [[0, 1], [1, 0]]])
    layer.bias.assign([[0, 0], [0, 10]])
    a, b, c, d = 1, 5, 7, 8
    np.testing.assert_array_equal(layer(np.float32([[[[a, c], [b, d]]]])), [[[[11, 8], [0, 17]]]])


def test_a_channelwise_layer_starts_with_glorots_range_for_one_map():
    layer = ChannelwiseDense()
    layer.build((None, 4, 4, 64))
    assert np.abs(layer.kernel.numpy()).max() == pytest.approx((6 / 32) ** 0.5, rel=0.01)
    assert layer.kernel.numpy().std() == pytest.approx((2 / 32) ** 0.5, rel=0.02)
    assert not layer.bias.numpy().any()


def test_the_bottleneck_lets_every_part_of_the_image_reach_every_other():
    # Without it, a change in one corner stays out of the far corner: the decoder's layers look 1 position around.
    image = np.random.default_rng(0).random((1, 32, 256, 3), np.float32)
    changed = image.copy()
    changed[:, :, 216:] = 0
    plain = build_inpainter(build_encoder("tiny", "before_add", 32, 256))
    assert np.array_equal(plain(image)[:, :, :8], plain(changed)[:, :, :8])
    connected = channelwise_inpainter(size=(32, 256))
    assert not np.array_equal(connected(image)[:, :, :8], connected(changed)[:, :, :8])


@pytest.mark.stress
def test_weights_of_the_bottleneck_survive_saving(tmp_path):
    image = np.random.default_rng(0).random((1, 32, 64, 3), np.float32)
    saved, loaded = channelwise_inpainter(), channelwise_inpainter()
    assert not np.array_equal(saved(image), loaded(image))
    saved.save_weights(tmp_path / "model.weights.h5")
    loaded.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(saved(image), loaded(image))


@pytest.mark.stress
@pytest.mark.parametrize(
    ("policy", "activation", "jit_compile"),
    [("mixed_bfloat16", "linear", False), ("float32", "sigmoid", True), ("mixed_bfloat16", "linear", True)],
)
def test_the_bottleneck_in_mixed_precision_and_compiled(policy, activation, jit_compile):
    keras.config.set_dtype_policy(policy)
    try:
        model = channelwise_inpainter(size=(32, 64), activation=activation)
    finally:
        keras.config.set_dtype_policy("float32")
    layer = model.get_layer("bottleneck_channelwise")
    assert layer.output.dtype == ("float32" if policy == "float32" else "bfloat16")
    assert layer.kernel.dtype == layer.bias.dtype == "float32"
    image = tf.constant(np.random.default_rng(0).random((2, 32, 64, 3), np.float32))

    @tf.function(jit_compile=jit_compile)
    def outputs_and_gradient():
        with tf.GradientTape() as tape:
            outputs = model(image, training=True)
            loss = tf.reduce_mean(tf.square(outputs))
        return outputs, tape.gradient(loss, layer.kernel.value)

    outputs, gradient = outputs_and_gradient()
    assert (outputs.dtype, gradient.dtype) == (tf.float32, tf.float32)
    assert float(tf.norm(gradient)) > 0


def test_a_linear_output_is_the_sigmoids_argument():
    image = np.random.default_rng(0).random((2, 32, 64, 3), np.float32)
    sigmoid, linear = channelwise_inpainter(), channelwise_inpainter(activation="linear")
    linear.set_weights(sigmoid.get_weights())
    assert linear.layers[-1].name == sigmoid.layers[-1].name == "decoder_output"
    assert float(tf.reduce_min(linear(image))) < 0
    np.testing.assert_allclose(tf.sigmoid(linear(image)), sigmoid(image), rtol=1e-5)


def test_trainable_by_patterns(classifier):
    set_trainable(classifier, ["conv5_*", "dense_1"])
    trained = {layer.name for layer in classifier.layers if layer.trainable_weights}
    assert "dense_1" in trained
    assert all(name.startswith(("conv5_", "dense_1")) for name in trained)
    with pytest.raises(UserError, match="no layer matches 'conv9_"):
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
