"""Forms of network files: rmldnn's, both Keras formats, Sequential files, lists of layers, and the form that is kept."""

import copy
import json

import keras
import numpy as np
import pytest
from conftest import SHARED
from keras import layers
from layer_descriptions import KERNEL, image, layer, pixels, refused

from tfinpaint.errors import UserError
from tfinpaint.models.keras_json.build import build_network, output_activation
from tfinpaint.models.keras_json.parse import read_network

RMLDNN = SHARED / "data" / "seed"


def write(path, *listed, **config):
    document = {"class_name": "Model", "keras_version": "2.3.1", "config": {"layers": list(listed), **config}}
    path.write_text(json.dumps(document))
    return path


# rmldnn's own files.


@pytest.fixture(params=["feature_extract", "classifier"])
def rmldnn_file(request):
    path = RMLDNN / f"network_resnet50_{request.param}.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the project")
    return path


def test_rmldnns_networks_are_what_the_tutorial_says(rmldnn_file):
    network = read_network(rmldnn_file)
    model = build_network(network, rmldnn_file.name)
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    frozen = [each for each in model.layers if each.weights and not each.trainable]
    names = [each.name for each in model.layers]
    assert names == [each["name"] for each in json.loads(rmldnn_file.read_text())["config"]["layers"]]
    assert names[:4] == ["input_1", "conv1_pad", "conv1", "bn_conv1"]
    assert "res5c_branch2c" in names
    if "classifier" in rmldnn_file.name:
        assert (model.count_params(), trainable, len(frozen)) == (23_849_864, 23_743_624, 53)
        assert all(isinstance(each, layers.BatchNormalization) for each in frozen)
        assert (names[-1], model.output_shape, output_activation(network)) == ("dense_1", (None, 8), "log_softmax")
    else:
        assert (model.count_params(), trainable, frozen) == (43_121_475, 43_068_355, [])
        assert (names[-1], model.output_shape) == ("decoder_layer_5", (None, 128, 128, 3))
        assert output_activation(network) == "sigmoid"


# Keras 3, Keras 2, lists, and the canonical form.


def keras3_model():
    """A network with branches, a shared layer, a frozen layer, and parts of every kind."""
    entry = keras.Input((8, 8, 3), name="entry")
    shared = layers.Conv2D(3, 3, padding="same", activation="relu", kernel_regularizer="l2", name="shared")
    x = shared(shared(entry))
    y = layers.BatchNormalization(name="norm", trainable=False)(entry)
    y = layers.PReLU(shared_axes=[1, 2], name="prelu")(y)
    x = layers.Concatenate(name="join")([x, y, entry])
    x = layers.SeparableConv2D(4, 3, depthwise_constraint=keras.constraints.MaxNorm(2), name="separable")(x)
    x = layers.SpatialDropout2D(0.5, name="spatial")(layers.Dropout(0.5, name="dropout")(x))
    x = layers.LayerNormalization(name="layer_norm")(layers.LeakyReLU(0.2, name="leaky")(x))
    x = layers.Flatten(name="flatten")(layers.Cropping2D(1, name="crop")(layers.UpSampling2D(name="up")(x)))
    x = layers.Dense(5, activation="softmax", kernel_initializer=keras.initializers.HeNormal(), name="head")(x)
    return keras.Model(entry, x, name="mine")


def test_a_keras_3_file_computes_the_same(tmp_path):
    model = keras3_model()
    for number, weight in enumerate(model.weights):
        weight.assign(np.random.default_rng(number).uniform(0.1, 1, weight.shape))
    path = tmp_path / "network.json"
    path.write_text(model.to_json())
    network = read_network(path)
    again = build_network(network, path.name)
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(again(pixels()), model(pixels()), rtol=1e-5)
    assert [each.name for each in again.layers] == [each.name for each in model.layers]
    assert [w.path for w in again.trainable_weights] == [w.path for w in model.trainable_weights]
    assert (again.name, output_activation(network)) == ("network", "softmax")
    assert len(again.losses) == len(model.losses)


def test_keras_2_keys_are_understood():
    same = {"kernel_initializer": {"class_name": "Zeros", "config": {"dtype": "float32"}}, "kernel_constraint": None}
    model = build_network(
        read_network(
            [
                image(),
                layer(
                    "BatchNormalization", "norm", "image", axis=[3], fused=True, virtual_batch_size=None, epsilon=0.1
                ),
                layer("DepthwiseConv2D", "depthwise", "norm", kernel_size=[3, 3], groups=1, **same),
                layer("SeparableConv2D", "separable", "depthwise", **KERNEL, groups=1, **same),
                layer("SpatialDropout2D", "spatial", "separable", rate=0.1, noise_shape=None, trainable=True),
                layer("Conv2DTranspose", "up", "spatial", **KERNEL, groups=1, output_padding=None),
                layer("LeakyReLU", "leaky", "up", alpha=0.125),
                layer(
                    "Dense",
                    "head",
                    "leaky",
                    units=2,
                    kernel_initializer="glorot_uniform",
                    bias_initializer={"class_name": "Ones", "config": {"dtype": "float32"}},
                ),
            ]
        )
    )
    assert model.get_layer("norm").axis == 3
    assert model.get_layer("norm").epsilon == 0.1
    assert model.get_layer("leaky").negative_slope == 0.125
    assert model.get_layer("head").bias.numpy().tolist() == [1, 1]
    assert model.get_layer("head").kernel.numpy().any()


def test_a_list_of_layers_is_a_chain_where_it_does_not_say_otherwise():
    listed = [
        {"class_name": "Conv2D", "config": {"batch_input_shape": [7, 8, 8, 3], "activation": "ReLU", **KERNEL}},
        {"class_name": "BatchNormalization", "name": "norm"},
        {"class_name": "Activation", "config": {"name": "act", "activation": "Tanh"}},
        {"class_name": "Add", "name": "sum", "config": {}, "inbound_nodes": [[["norm", 0, 0], ["act", 0, 0]]]},
        {"class_name": "Softmax"},
    ]
    before = copy.deepcopy(listed)
    network = read_network(listed)
    assert listed == before
    model = build_network(network)
    names = ["conv2d_1_input", "conv2d_1", "norm", "act", "sum", "softmax_5"]
    assert [each.name for each in model.layers] == names
    assert model.input_shape == (*model.output_shape[:3], 3) == (None, 8, 8, 3)
    assert model.get_layer("conv2d_1").activation is keras.activations.relu
    assert output_activation(network) == "softmax"
    assert output_activation(read_network(listed[:3])) == "tanh"
    assert output_activation(read_network(listed[:2])) == "linear"


def test_what_was_read_can_be_kept_and_read_again(tmp_path):
    network = read_network([image(), layer("Conv2D", "conv", "image", **KERNEL), layer("Flatten", "flat", "conv")])
    kept = json.dumps(network, sort_keys=True)
    path = tmp_path / "kept.json"
    path.write_text(kept)
    assert json.dumps(read_network(path), sort_keys=True) == kept
    model = build_network(json.loads(kept))
    assert [each.name for each in model.layers] == ["image", "conv", "flat"]
    assert json.dumps(json.loads(kept), sort_keys=True) == kept  # building leaves its argument alone
    # A Keras 2 and a list form of the same network are one network.
    conv = {"class_name": "Conv2D", "config": {"name": "conv", **KERNEL}}
    chain = [image(), conv, {"class_name": "Flatten", "name": "flat", "config": {"name": "flat"}}]
    assert read_network(chain) == network
    assert read_network(write(path, *chain, name="network")) == network


def test_shared_layers_and_any_order():
    conv = layer("Conv2D", "conv", "image", filters=3, kernel_size=1)
    conv["inbound_nodes"].append([["conv", 0, 0, {}]])
    model = build_network(read_network([layer("Add", "sum", ("conv", 1, 0), "image"), conv, image()]))
    weights = model.get_layer("conv").get_weights()
    assert len(model.weights) == 2
    once = keras.ops.conv(pixels(), weights[0])
    assert np.allclose(model(pixels()), keras.ops.conv(once, weights[0]) + pixels(), atol=1e-6)
    chain = [image(), *[layer("ReLU", f"r{i}", f"r{i - 1}" if i else "image") for i in range(60)]]
    shuffled = build_network(read_network(chain[::-1]))
    assert [each.name for each in shuffled.layers] == [each["name"] for each in chain]


def test_named_outputs_leave_the_rest_out():
    listed = [image(), layer("ReLU", "a", "image"), layer("Conv2D", "b", "image", **KERNEL)]
    network = {"layers": listed, "input_layers": ["image", 0, 0], "output_layers": [["a", 0, 0]]}
    assert [each.name for each in build_network(network).layers] == ["image", "a"]
    assert "one of output_layers, not 2 (a, b)" in refused(*listed)
    assert "output_layers names 'c', call 0" in refused(*listed, output_layers=[["c", 0, 0]])
    assert "input_layers names 'a', which is not an InputLayer" in refused(
        *listed, input_layers=[["a", 0, 0]], output_layers=[["b", 0, 0]]
    )


def sequential(path, config, version="2.4.0"):
    path.write_text(json.dumps({"class_name": "Sequential", "keras_version": version, "config": config}))
    return read_network(path)


def chain_of(*first):
    conv = {"class_name": "Conv2D", "config": {"name": "conv", **KERNEL}}
    return [*first, conv, {"class_name": "Dropout", "config": {"name": "drop", "rate": 0}}]


def test_a_sequential_file_of_every_keras_is_a_chain(tmp_path):
    entry = {
        "class_name": "InputLayer",
        "config": {"name": "entry", "batch_input_shape": [None, 8, 8, 3], "dtype": "float32"},
    }
    inside = chain_of()
    inside[0]["config"]["batch_input_shape"] = [None, 8, 8, 3]
    forms = {
        "keras 2 with an input layer": {"name": "s", "layers": chain_of(entry)},
        "the shape in its first layer": {"name": "s", "layers": inside},
        "its shape apart": {"name": "s", "layers": chain_of(), "build_input_shape": [None, 8, 8, 3]},
        "a list, before Keras 2.2.3": chain_of(entry),
    }
    for config in forms.values():
        model = build_network(sequential(tmp_path / "s.json", config))
        assert [each.name for each in model.layers][1:] == ["conv", "drop"]
        assert (model.input_shape, model.output_shape) == ((None, 8, 8, 3), (None, 8, 8, 4))
    made = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv"), layers.Flatten(name="flat")])
    (tmp_path / "three.json").write_text(made.to_json())
    again = build_network(read_network(tmp_path / "three.json"))
    again.set_weights(made.get_weights())
    assert np.array_equal(again(pixels()), made(pixels()))
    with pytest.raises(UserError, match=r"layer conv .Conv2D.: comes first and has no input"):
        sequential(tmp_path / "s.json", {"layers": chain_of()})
