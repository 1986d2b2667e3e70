"""Network files that are refused: wrong in themselves, code, and networks that are too large."""

import os

import keras
import pytest
from keras import layers
from layer_descriptions import KERNEL, image, layer, refused

from tfinpaint.errors import UserError
from tfinpaint.models.keras_json.build import build_network
from tfinpaint.models.keras_json.parse import _first_line, read_network


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
