"""Networks from JSON: rmldnn's files, both Keras formats, lists of layers, and what is refused."""

import copy
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, SHARED
from keras import layers

from tfinpaint.checkpoint import transfer
from tfinpaint.errors import UserError
from tfinpaint.models.keras_json.build import ACTIVATIONS, LAYERS, build_network, output_activation
from tfinpaint.models.keras_json.parse import _first_line, read_network
from tfinpaint.models.layer_names import file_name, keras_name, renaming_note
from tfinpaint.models.trainable import set_trainable

RMLDNN = SHARED / "data" / "seed"
KERNEL = {"filters": 4, "kernel_size": [3, 3], "padding": "same"}


def layer(class_name, name, *inputs, **config):
    """A layer as Keras 2 writes it; `inputs` are the names it takes, () for an InputLayer."""
    node = [[[each, 0, 0, {}] if isinstance(each, str) else [*each, {}] for each in inputs]]
    return {
        "class_name": class_name,
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": node if inputs else [],
    }


def image(name="image", **config):
    return layer("InputLayer", name, batch_input_shape=[None, 8, 8, 3], dtype="float32", sparse=False, **config)


def write(path, *listed, **config):
    document = {"class_name": "Model", "keras_version": "2.3.1", "config": {"layers": list(listed), **config}}
    path.write_text(json.dumps(document))
    return path


def pixels(count=2):
    return np.random.default_rng(0).random((count, 8, 8, 3), np.float32)


def refused(*listed, **config):
    """The message with which a network is refused, by reading or building."""
    with pytest.raises(UserError) as raised:
        build_network(read_network([*listed]) if not config else {"layers": [*listed], **config}, "network.json")
    assert "\n" not in str(raised.value)
    return str(raised.value)


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


# Forms: Keras 3, Keras 2, lists, and the canonical one.


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


# Names that Keras 3 does not accept.

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


# Precision and freezing.


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


# Refusals.


def test_nothing_in_the_file_is_run_or_imported(tmp_path):
    trap = tmp_path / "trap"
    code = f"open({str(trap)!r}, 'w').close()"
    payload = layer("Lambda", "bad", "image", function={"class_name": "__lambda__", "config": {"code": code}})
    assert refused(image(), payload) == (
        "layers: layer bad (Lambda): this class is not supported, because it holds Python code, and no code from a "
        "file is run"
    )
    unknown = refused(image(), layer("InstanceNormalization", "bad", "image"))
    assert (
        "bad (InstanceNormalization): this class is not supported; supported are Activation, Add, AlphaDropout,"
        in unknown
    )
    added = {**layer("TFOpLambda", "bad"), "inbound_nodes": [["image", 0, 0, {"y": 3.0, "name": None}]]}  # image + 3.0
    assert "bad (TFOpLambda): this class is not supported, because it calls a TensorFlow function by" in refused(
        image(), added
    )
    assert "because images have two dimensions" in refused(image(), layer("Conv3D", "bad", "image"))
    for name in ("os", "os.system", "__import__", "Functional", "TFOpLambda", "Layer"):
        assert "this class is not supported" in refused(image(), layer(name, "bad", "image"))
    system = {"module": "os", "class_name": "system", "config": f"touch {trap}", "registered_name": "os>system"}
    for key in ("kernel_initializer", "kernel_regularizer", "kernel_constraint"):
        message = refused(image(), layer("Conv2D", "conv", "image", **KERNEL, **{key: system}))
        assert message.startswith(f'network.json: layer conv (Conv2D): {key} "system" is unknown; supported are ')
    for key in ("activation", "filters", "foo"):
        assert f"conv (Conv2D): {key}" in refused(image(), layer("Conv2D", "conv", "image", **{**KERNEL, key: system}))
    inner = {"class_name": "Constant", "config": {"value": [system]}}
    assert "must be a plain value" in refused(image(), layer("Dense", "d", "image", units=1, bias_initializer=inner))
    odd = {"module": "os", "class_name": "Ones", "config": {}, "registered_name": "os>system"}
    model = build_network(read_network([image(), layer("Dense", "d", "image", units=1, bias_initializer=odd)]))
    assert model.get_layer("d").bias.numpy().tolist() == [1]
    assert not trap.exists()


def test_every_listed_activation_is_one_of_keras():
    for name in ACTIVATIONS:
        build_network(read_network([image(), layer("Activation", "act", "image", activation=name.upper())]))
    message = refused(image(), layer("Activation", "act", "image", activation="exec"))
    assert message.startswith('network.json: layer act (Activation): activation "exec" is unknown; supported are elu,')
    assert len(LAYERS) == 37


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([], "`layers` must be a list of at least one layer"),
        (["conv"], "layer 1 must be an object with class_name"),
        ([image(), {"class_name": "ReLU", "config": []}], "layer 2 (ReLU): config must be an object"),
        ([image(), layer("ReLU", 5, "image")], "its name must be a text, not 5"),
        ([layer("ReLU", "a", "image"), layer("ReLU", "a", "image")], "2 layers are called 'a'"),
        ([{"class_name": "ReLU", "config": {}}], "comes first and has no input; put an InputLayer with batch_shape before it"),
        ([image()], "one of output_layers, not 0 (none)"),
        ([image("a"), image("b"), layer("Add", "sum", "a", "b")], "one of input_layers, not 2 (a, b)"),
        ([image(), layer("ReLU", "a", "nowhere")], "layer a: its input 'nowhere', call 0, does not exist"),
        ([image(), layer("ReLU", "a", ("image", 3, 0))], "its input 'image', call 3, does not exist"),
        ([image(), layer("ReLU", "a", ("image", 0, 1))], "takes output 1 of 'image'"),
        ([image(), layer("Add", "a", "image", "c"), layer("ReLU", "b", "a"), layer("ReLU", "c", "b"), layer("ReLU", "d", "c")],
         "these layers take their own output: a -> b -> c -> a"),
        ([image(), layer("ReLU", "a", "a")], "take their own output: a -> a"),
        ([image(), {**layer("ReLU", "a"), "inbound_nodes": [[["image", 0, 0, {"training": True}]]]}], "is called with training=true"),
        ([image(), {**layer("ReLU", "a"), "inbound_nodes": [[["image", 0, 0, {"training": False}]]]}], "is called with training=false"),
        ([image(), {**layer("ReLU", "a"), "inbound_nodes": [{"args": [5], "kwargs": {}}]}], "is not the output of a layer"),
        ([image(), {**layer("ReLU", "a"), "inbound_nodes": [{"args": [], "kwargs": {}}]}], "must have one argument"),
        ([image(), {**layer("ReLU", "a"), "inbound_nodes": []}], "inbound_nodes must be empty for an InputLayer, and for no other"),
        ([image(), {**layer("ReLU", "a"), "inbound_nodes": [["image"]]}], '["image"] must be [layer name, call, tensor]'),
        ([image(), {**layer("ReLU", "a"), "inbound_nodes": [[]]}], "a call without inputs"),
        ([image(), layer("ReLU", "a", "image", "image")], "layer a (ReLU): takes one input, not 2"),
        ([image(), layer("Dense", "d", "image")], "layer d (Dense): Dense.__init__() missing 1 required"),
        ([image(), layer("Conv2D", "c", "image", **KERNEL, colour=1)], "layer c (Conv2D): Unrecognized keyword arguments"),
        ([image(), layer("Conv2D", "c", "image", filters=4, kernel_size=11)], "layer c (Conv2D): "),
        ([image(), layer("BatchNormalization", "n", "image", axis=[1, 2])], "axis must be one number, not [1, 2]"),
        ([image(), layer("BatchNormalization", "n", "image", virtual_batch_size=4)], "virtual_batch_size=4 is not supported by Keras 3"),
        ([layer("InputLayer", "i", batch_shape=[None, "8"]), layer("ReLU", "a", "i")], "batch_shape must be a list of positive integers"),
        ([layer("InputLayer", "i", batch_shape=[None, 8], sparse=True), layer("ReLU", "a", "i")], "sparse=true is not supported"),
        ([layer("InputLayer", "i"), layer("ReLU", "a", "i")], "and nothing else; it has nothing"),
        ([image(), layer("Reshape", "r", "image", target_shape={1, 2})], "layers: contains a value that JSON cannot represent"),
        ([image(), layer("ReLU", "r", "image", max_value=float("nan"))], "layers: contains a value that JSON cannot represent"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_reported_with_the_layer(listed, expected):
    assert expected in refused(*listed)


def test_the_reason_is_taken_from_a_long_error():
    text = "Exception encountered when calling Conv2D.call().\n\n\x1b[1mNegative size\x1b[0m\n\nArguments received"
    assert _first_line(ValueError(text)) == "Negative size"
    assert _first_line(KeyError()) == "KeyError"


def test_keras_3_call_arguments_are_refused_by_name(tmp_path):
    entry = keras.Input((8, 8, 3))
    dropped = layers.Dropout(0.5, name="drop")
    path = tmp_path / "network.json"
    path.write_text(keras.Model(entry, dropped(entry)).to_json())
    assert '"training": false' in path.read_text()  # Keras 3 writes it by itself and lets the model override it
    read_network(path)
    path.write_text(keras.Model(entry, layers.Dropout(0.5, name="drop")(entry, training=True)).to_json())
    with pytest.raises(UserError, match=r"network.json: layer drop \(Dropout\): is called with training=true"):
        read_network(path)


def test_files_that_are_no_networks(tmp_path):
    path = tmp_path / "network.json"
    with pytest.raises(UserError, match=r"network.json: there is no such file; `layers` names"):
        read_network(path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(UserError, match="no such file"):
        read_network(fifo)
    for text, expected in (
        ("{", "is not JSON .*to_json"),
        ("[" * 100_000, "is not JSON"),
        ('{"layers": NaN}', "NaN is not a JSON number"),
        ("[]", "must be a list of at least one layer"),
        ("3", "must contain an object"),
        ('{"class_name": "Sequential", "config": []}', "must be a list of at least one layer"),
        ('{"class_name": "Sequential", "config": 3}', "`config` must be an object"),
        (
            '{"class_name": "Other", "config": []}',
            "class_name is 'Other', must be Model, Functional or Sequential; write",
        ),
        ('{"class_name": "Model", "config": 3}', "`config` must be an object that contains `layers`"),
        ("{}", "`layers` must be a list"),
        ('{"layers": [{"class_name": "InputLayer"}], "output_layers": {}}', "output_layers: must be a list"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=expected) as raised:
            read_network(path)
        assert str(raised.value).startswith(f"{path}: ")
        assert "\n" not in str(raised.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not JSON"):
        read_network(path)
    with path.open("wb") as file:
        file.truncate(5 * 2**20)
    with pytest.raises(UserError, match="is larger than 4 MiB"):
        read_network(path)


def test_the_docs_name_every_layer():
    page = " ".join((ROOT / "docs" / "configuration.md").read_text().split())
    known = page.partition("these layers are known: ")[2].partition(". `trainable")[0]
    assert known.split(", ") == sorted(LAYERS)


# What a few bytes could ask for.


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("Dense", {"units": 10**9}),
        ("Dense", {"units": 10**30}),
        ("Conv2D", {"filters": 2, "kernel_size": [10**6, 10**6], "padding": "same"}),
        ("SeparableConv2D", {"filters": 2, "kernel_size": 1, "depth_multiplier": 10**9}),
        ("DepthwiseConv2D", {"kernel_size": 1, "depth_multiplier": 10**9}),
        ("Conv2DTranspose", {"filters": 10**9, "kernel_size": 1}),
    ],
)
def test_too_many_weights_are_refused_before_they_are_made(name, config):
    assert f"layer big ({name}): with this layer the network has more than 268435456 weights" in refused(
        image(), layer(name, "big", "image", **config)
    )


def test_weights_of_all_layers_together_are_counted():
    network = read_network([image(), layer("Dense", "a", "image", units=5), layer("Dense", "b", "a", units=5)])
    model = build_network(network, max_weights=50)
    assert model.count_params() == 3 * 5 + 5 + 5 * 5 + 5
    assert all("add_weight" not in vars(each) for each in model.layers)
    with pytest.raises(UserError, match=r"layer b \(Dense\): with this layer the network has more than 49 weights"):
        build_network(network, max_weights=49)


def test_too_large_images_within_a_network_are_refused():
    assert "layer big (UpSampling2D): its output has 192000000000000 numbers per image" in refused(
        image(), layer("UpSampling2D", "big", "image", size=[10**6, 10**6])
    )


def test_too_many_layers_and_references_are_refused():
    assert "2001 layers, at most 2000" in refused(*[image(f"i{n}") for n in range(2001)])
    many = layer("Add", "sum", *["image"] * 10_001)
    assert "layers take 10001 outputs of others, at most 10000" in refused(image(), many)


def test_names_that_spoil_a_message_are_refused():
    assert "its name must be a text, not 'a\\n\\x1b[31m'" in refused(image("a\n\x1b[31m"))
    assert "layer 1 must be an object with class_name" in refused(layer("Dense\nerror: x", "d"))


def test_what_names_code_builds_nothing_but_the_layer(tmp_path):
    named = {"module": "os", "registered_name": "evil>Dense", "build_config": {"input_shape": [10**9]}}
    dense = layer("Dense", "d", "image", units=2) | named
    assert type(build_network(read_network([image(), dense])).get_layer("d")) is layers.Dense
    for name in ("Lambda", "TFOpLambda", "Functional", "Sequential", "Model", "TextVectorization"):
        assert f"layer x ({name}): this class is not supported" in refused(image(), layer(name, "x", "image"))
