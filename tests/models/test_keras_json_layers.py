"""Layers of network files: padding, activations, names that Keras 3 does not accept, precision and freezing."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from keras import layers
from layer_descriptions import KERNEL, image, layer, pixels, refused

from tfinpaint.checkpoint import transfer
from tfinpaint.errors import UserError
from tfinpaint.models.keras_json.build import ACTIVATIONS, LAYERS, build_network, output_activation
from tfinpaint.models.keras_json.parse import read_network
from tfinpaint.models.layer_names import file_name, keras_name, renaming_note
from tfinpaint.models.trainable import set_trainable


def compute(*listed):
    """The output for `pixels`, and the model, whose weights rise evenly to 1 in each array."""
    model = build_network(read_network(list(listed)))
    for weight in model.weights:
        size = int(np.prod(weight.shape))
        weight.assign(np.arange(1, size + 1).reshape(weight.shape) / size)
    return model(pixels()).numpy(), model


@pytest.mark.parametrize(("padding", "sides"), [(1, (1, 1)), ([2, 0], (2, 0)), ([0, 1], (0, 1))])
@pytest.mark.parametrize(
    ("class_name", "config"),
    [
        ("Conv2D", {"filters": 2, "kernel_size": [3, 3], "strides": [2, 2]}),
        ("DepthwiseConv2D", {"kernel_size": [3, 3]}),
        ("SeparableConv2D", {"filters": 2, "kernel_size": [3, 3]}),
        ("AveragePooling2D", {"pool_size": [3, 3], "strides": [1, 1]}),
    ],
)
def test_padding_as_numbers_puts_zeros_around(class_name, config, padding, sides):
    found, model = compute(image(), layer(class_name, "window", "image", **config, padding=padding))
    wide = np.pad(pixels(), [(0, 0), (sides[0],) * 2, (sides[1],) * 2, (0, 0)])
    plain = getattr(layers, class_name)(**config, padding="valid")
    plain(wide)
    plain.set_weights(model.get_layer("window").get_weights())
    assert np.allclose(found, plain(wide), atol=1e-6)


def test_numeric_padding_of_shared_layers_and_its_limits():
    conv = layer("Conv2D", "conv", "image", filters=3, kernel_size=3, padding=1)
    conv["inbound_nodes"].append([["conv", 0, 0, {}]])
    network = read_network([image(), conv])
    assert build_network(network).output_shape == (None, 8, 8, 3)
    assert read_network(network["layers"])["layers"] == network["layers"]
    for nothing in (0, [0, 0]):
        pooled = layer("MaxPooling2D", "pool", "image", padding=nothing)
        assert [each.name for each in build_network(read_network([image(), pooled])).layers] == ["image", "pool"]
    assert 'pool (MaxPooling2D): padding of this class must be "valid", "same" or 0, not 1' in refused(
        image(), layer("MaxPooling2D", "pool", "image", padding=1)
    )
    for wrong in (-1, [1], [1, 2, 3], [1, "a"], True, 0.5, {"a": 1}):
        with pytest.raises(UserError, match='padding must be "valid", "same", a number or two numbers'):
            read_network([image(), layer("Conv2D", "c", "image", filters=1, kernel_size=1, padding=wrong)])


def test_what_other_versions_write_for_an_activation():
    for name, plain in (("log_softmax_v2", "log_softmax"), ("softmax_v2", "softmax"), ("SoftMax", "softmax")):
        network = read_network([image(), layer("Activation", "act", "image", activation=name, axis=1)])
        assert output_activation(network) == plain
        outputs = build_network(network)(pixels()).numpy()
        assert np.allclose((np.exp(outputs) if "log" in name else outputs).sum(-1), 1, atol=1e-6)
    for axis in (1, -1, 3):
        build_network(read_network([image(), layer("Activation", "act", "image", activation="softmax", axis=axis)]))
    assert "act (Activation): axis must be that of the channels" in refused(
        image(), layer("Activation", "act", "image", activation="softmax", axis=2)
    )
    assert output_activation(read_network([image(), layer("Softmax", "s", "image", axis=1)])) == "softmax over axis 1"
    number = {"type": "ndarray", "value": 6.0}
    model = build_network(read_network([image(), layer("ReLU", "r", "image", max_value=number)]))
    assert model.get_layer("r").max_value == 6.0


def test_hard_sigmoid_is_that_of_the_keras_that_wrote_the_file(tmp_path):
    listed = [image(), layer("Activation", "act", "image", activation="hard_sigmoid")]
    values = pixels() * 8 - 4
    for version, slope in (("2.3.1", 5), ("2.15.0", 5), ("3.1.0", 6)):
        path = tmp_path / "network.json"
        path.write_text(json.dumps({"class_name": "Model", "keras_version": version, "config": {"layers": listed}}))
        network = read_network(path)
        assert output_activation(network) == "hard_sigmoid"
        expected = np.clip(values / slope + 0.5, 0, 1)
        built = build_network(network)
        assert np.allclose(built(values), expected, atol=1e-6)
        assert np.allclose(keras.models.clone_model(built)(values), expected, atol=1e-6)  # as checkpoints are written
        assert np.allclose(build_network(read_network(network["layers"]))(values), expected, atol=1e-6)


NAMES = ["conv1/conv", "conv1>2Fconv", "conv1%2Fconv", "conv1_conv", "a b", "ä", "c:0", "d~1", "/", "e%"]


def test_any_name_of_a_layer_goes_into_keras_and_back():
    assert [file_name(keras_name(name)) for name in NAMES] == NAMES
    assert len({keras_name(name) for name in NAMES}) == len(NAMES)
    assert keras_name("conv1/conv") == "conv1>2Fconv"
    plain = ["conv2d_1", "res5c_branch2c", "block-1.conv"]
    assert [keras_name(name) for name in plain] == plain
    assert renaming_note(plain) is None
    assert renaming_note(["conv1/conv", "a", "b/c"]).startswith(
        "2 layer names have characters that Keras 3 does not accept"
    )


def test_layers_of_any_name_are_trained_and_transferred_by_it(tmp_path):
    kernel = {"filters": 3, "kernel_size": 1}
    convs = [layer("Conv2D", name, before, **kernel) for before, name in zip(["image", *NAMES], NAMES, strict=False)]
    model, other = (build_network(read_network([image(), *convs])) for _ in range(2))
    step = tf.function(lambda images: model(images, training=True))  # names become scopes of the graph
    weights = transfer.layer_weights(model)
    assert list(weights) == NAMES
    path = tmp_path / "a.weights.h5"
    model.save_weights(path)
    other.load_weights(path)
    assert np.allclose(other(pixels()), step(pixels()), atol=1e-6)
    third = build_network(read_network([image(), *convs[:3], layer("Conv2D", "new/one", NAMES[2], **kernel)]))
    plan = transfer.plan_transfer(weights, third)
    assert (plan.copied, plan.missing) == (tuple(NAMES[:3]), ("new/one",))
    transfer.copy_weights(plan, weights, third)
    copied = transfer.layer_weights(third)
    assert all(np.array_equal(a, b) for name in NAMES[:3] for a, b in zip(copied[name], weights[name], strict=True))
    set_trainable(third, ["conv1/*"])
    assert [each.name for each in third.layers if each.weights and each.trainable] == ["conv1>2Fconv"]


@pytest.mark.parametrize(
    "last",
    [
        {"class_name": "Conv2DTranspose", "config": {**KERNEL, "activation": "sigmoid", "dtype": "bfloat16"}},
        {"class_name": "Dense", "config": {"units": 4, "activation": "log_softmax"}},
        {"class_name": "Softmax", "config": {}},
    ],
    ids=lambda last: last["class_name"],
)
def test_the_policy_holds_but_the_output_is_float32(last):
    first = layer("Conv2D", "conv", "image", **KERNEL, dtype="float32")
    network = read_network([image(), first, {**last, "name": "last"}])
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_network(network)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("conv").compute_dtype == "bfloat16"
    assert model.get_layer("last").compute_dtype == "float32"
    outputs = model(pixels())
    assert outputs.dtype == tf.float32
    assert not np.array_equal(outputs, tf.cast(tf.cast(outputs, tf.bfloat16), tf.float32))
    if last["class_name"] == "Dense":
        assert np.allclose(np.exp(outputs).sum(-1), 1, atol=1e-6)


def test_frozen_layers_stay_frozen():
    norm = layer("BatchNormalization", "norm", "image", trainable=False)
    model = build_network(read_network([image(), norm, layer("Dense", "head", "norm", units=1, trainable=True)]))
    before = model.get_layer("norm").get_weights()
    model(pixels() + 5, training=True)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_layer("norm").get_weights(), strict=True))
    assert [w.path for w in model.trainable_weights] == ["head/kernel", "head/bias"]
    assert "trainable must be true or false" in refused(image(), layer("ReLU", "a", "image", trainable="no"))


def test_every_listed_activation_is_one_of_keras():
    for name in ACTIVATIONS:
        build_network(read_network([image(), layer("Activation", "act", "image", activation=name.upper())]))
    message = refused(image(), layer("Activation", "act", "image", activation="exec"))
    assert message.startswith('network.json: layer act (Activation): activation "exec" is unknown; supported are elu,')
    assert len(LAYERS) == 37


def test_the_docs_name_every_layer():
    page = " ".join((ROOT / "docs" / "configuration.md").read_text().split())
    known = page.partition("these layers are known: ")[2].partition(". `trainable")[0]
    assert known.split(", ") == sorted(LAYERS)
