"""Weight files of Keras 2: the same arrays that Keras 3 itself would load, and nothing but arrays."""

import os

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from tfinpaint.checkpoint import keras2, keras_files
from tfinpaint.checkpoint.keras_files import KerasFile
from tfinpaint.checkpoint.reader import open_weights
from tfinpaint.errors import UserError


def is_legacy(path):
    """Whether the file is one of Keras 2."""
    try:
        with open_weights(path) as file:
            return isinstance(file, KerasFile) and keras2.has_layer_names(file.file)
    except UserError:
        return False


def read_layers(path, wanted=()):
    with open_weights(path) as file, keras_files.explaining_damage(path):
        return {layer.name: layer.weights for layer in keras2.read_layers(file.file, wanted)}


def network(classes=3, extra=True, frozen=False):
    """Conv, batch norm, dense; weights are random, batch-norm statistics too."""
    entry = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv1")(entry)
    x = layers.BatchNormalization(name="bn_conv1", trainable=not frozen)(x)
    x = layers.Activation("relu", name="act")(x)
    if extra:
        x = layers.SeparableConv2D(4, 3, name="extra")(x)
    x = layers.Dense(classes, name="head")(layers.GlobalAveragePooling2D(name="pool")(x))
    model = keras.Model(entry, x)
    generator = np.random.default_rng(classes)
    model.set_weights([generator.random(w.shape).astype(np.float32) for w in model.weights])
    return model


def write_weights(path, found, encode=str.encode, chunks=1):
    """A weights-only file as Keras 2 writes it; in several attributes if `chunks` is more than 1."""
    with h5py.File(path, "w") as file:
        parts = np.array_split(np.array([encode(name) for name in found], dtype=object), chunks)
        for number, part in enumerate(parts):
            file.attrs["layer_names" + (str(number) if chunks > 1 else "")] = list(part)
        for name, arrays in found.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [encode(f"{name}/weight_{i}:0") for i in range(len(arrays))]
            for i, array in enumerate(arrays):
                group[f"{name}/weight_{i}:0"] = array
    return path


def same(found, expected):
    assert list(found) == list(expected)
    for name, arrays in expected.items():
        assert [(a.shape, a.dtype, a.tobytes()) for a in found[name]] == [
            (a.shape, a.dtype, a.tobytes()) for a in arrays
        ]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_whole_model_gives_its_weights_by_layer(tmp_path, frozen):
    model = network(frozen=frozen)
    model.save(tmp_path / "model.h5")
    assert is_legacy(tmp_path / "model.h5")
    same(read_layers(tmp_path / "model.h5"), {each.name: each.get_weights() for each in model.layers if each.weights})
    gamma, beta, mean, variance = read_layers(tmp_path / "model.h5")["bn_conv1"]
    norm = model.get_layer("bn_conv1")
    for array, weight in ((gamma, norm.gamma), (beta, norm.beta), (mean, norm.moving_mean), (variance, norm.moving_variance)):  # fmt: skip
        assert np.array_equal(array, weight)


@pytest.mark.parametrize("encode", [str.encode, str], ids=["bytes", "text"])
@pytest.mark.parametrize("chunks", [1, 3])
def test_weights_alone_in_the_files_order(tmp_path, encode, chunks):
    generator = np.random.default_rng(0)
    found = {f"z{9 - i}": [generator.random((2, i + 1)).astype(np.float32), np.float32(i)] for i in range(10)}
    path = write_weights(tmp_path / "weights.h5", {"input_1": [], **found, "flatten": []}, encode, chunks)
    assert is_legacy(path)
    same(read_layers(path), {name: [array, np.asarray(scalar)] for name, (array, scalar) in found.items()})


def test_names_that_keras_itself_cuts_into_chunks(tmp_path):
    entry = keras.Input((1,))
    x = entry
    for number in range(70):
        x = layers.Dense(1, name=f"{number}_".ljust(1000, "x"))(x)
    model = keras.Model(entry, x)
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5") as file:
        assert "layer_names1" in file["model_weights"].attrs
    assert is_legacy(tmp_path / "model.h5")
    same(read_layers(tmp_path / "model.h5"), {each.name: each.get_weights() for each in model.layers if each.weights})


@pytest.mark.parametrize("frozen", [False, True])
def test_copying_equal_names_and_shapes_is_what_keras_loads_by_name(tmp_path, frozen):
    source = network(classes=3, extra=False)
    source.save(tmp_path / "model.h5")
    alone = write_weights(tmp_path / "alone.h5", {each.name: each.get_weights() for each in source.layers})
    for path in (tmp_path / "model.h5", alone):
        by_keras, by_us = network(classes=5, frozen=frozen), network(classes=5, frozen=frozen)
        with pytest.warns(UserWarning, match="head"):
            by_keras.load_weights(path, by_name=True, skip_mismatch=True)
        copied = []
        for name, arrays in read_layers(path).items():
            target = by_us.get_layer(name)
            if [a.shape for a in arrays] == [tuple(w.shape) for w in target.weights]:
                target.set_weights(arrays)
                copied.append(name)
        assert copied == ["conv1", "bn_conv1"]  # not the head, of another shape; `extra` is missing in the file
        for one, other in zip(by_keras.weights, by_us.weights, strict=True):
            assert one.numpy().tobytes() == other.numpy().tobytes(), one.path
        assert not np.array_equal(by_us.get_layer("conv1").kernel, network(classes=5).get_layer("conv1").kernel)


def test_keras_loads_by_halves_where_whole_layers_are_copied_here(tmp_path):
    # Why the arrays are read at all: of a layer with another kernel, Keras still takes the bias, and warns at most.
    def convolution(size):
        entry = keras.Input((8, 8, 3))
        return keras.Model(entry, layers.Conv2D(4, size, name="conv1", bias_initializer="random_normal")(entry))

    source, target = convolution(3), convolution(5)
    source.save(tmp_path / "model.h5")
    with pytest.warns(UserWarning, match="conv1"):
        target.load_weights(tmp_path / "model.h5", by_name=True, skip_mismatch=True)
    kernel, bias = read_layers(tmp_path / "model.h5")["conv1"]
    assert np.array_equal(bias, target.get_layer("conv1").bias)
    assert kernel.shape != target.get_layer("conv1").kernel.shape


def test_other_formats_are_not_legacy(tmp_path):
    model = network()
    model.save_weights(tmp_path / "new.weights.h5")
    model.save(tmp_path / "new.keras")
    (tmp_path / "text.h5").write_text("layer_names")
    for name in ("new.weights.h5", "new.keras", "text.h5", "absent.h5"):
        path = tmp_path / name
        assert not is_legacy(path)
        with pytest.raises(UserError) as raised:
            read_layers(path)
        assert str(raised.value).startswith(f"{path}: ")
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="it has no layer_names"):
        read_layers(tmp_path / "new.weights.h5")


def layer_file(path, change):
    """A good file of one layer `conv1` with one weight, then `change(file, group)`."""
    write_weights(path, {"conv1": [np.ones(3, np.float32)]})
    with h5py.File(path, "a") as file:
        change(file, file["conv1/conv1"])
    return path


def replace(group, **created):
    del group["weight_0:0"]
    group.create_dataset("weight_0:0", **created)


def relink(group, link):
    del group["weight_0:0"]
    group["weight_0:0"] = link


def lengthen(file):
    """Names that together are longer than any names, each a text that is no longer than the file."""
    del file.attrs["layer_names"]
    for number in range(300):
        file.attrs[f"layer_names{number}"] = "x" * 60_000


def virtual(group, path):
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource(path, "secret", (3,))
    del group["weight_0:0"]
    group.create_virtual_dataset("weight_0:0", layout)


CHANGES = {
    "external link": (lambda f, g, p: relink(g, h5py.ExternalLink(p, "/secret")), "is a link"),
    "soft link": (lambda f, g, p: relink(g, h5py.SoftLink("/elsewhere")), "is a link"),
    "external storage": (lambda f, g, p: replace(g, shape=(3,), dtype="f4", external=[(p, 0, 12)]), "lies in another file"),
    "virtual": (lambda f, g, p: virtual(g, p), "lies in another file"),
    "text": (lambda f, g, p: replace(g, data=[b"a", b"b"]), "not numbers"),
    "objects": (lambda f, g, p: replace(g, shape=(1,), dtype=h5py.ref_dtype), "not numbers"),
    "records": (lambda f, g, p: replace(g, shape=(1,), dtype=[("a", "f4")]), "not numbers"),
    "empty": (lambda f, g, p: replace(g, data=h5py.Empty("f4")), "not numbers"),
    "hollow": (lambda f, g, p: replace(g, shape=(2**40,), dtype="f4", chunks=(1024,)), "claims 4398046511104 bytes"),
    "absent": (lambda f, g, p: g.pop("weight_0:0"), "is missing"),
    "group for array": (lambda f, g, p: (g.pop("weight_0:0"), g.create_group("weight_0:0")), "is not a dataset"),
    "absent layer": (lambda f, g, p: f.pop("conv1"), "conv1 in / is missing"),
    "absolute name": (lambda f, g, p: f["conv1"].attrs.__setitem__("weight_names", ["/conv1/conv1/weight_0:0"]), "is missing"),
    "names are numbers": (lambda f, g, p: f.attrs.__setitem__("layer_names", [1, 2]), "not a list of names"),
    "long names": (lambda f, g, p: lengthen(f), "layer_names of / is longer than 16777216 bytes"),
    "long name": (lambda f, g, p: f.attrs.__setitem__("layer_names", "x" * 60_000), "weight file of Keras ('xxx"),
    "many names": (lambda f, g, p: f.attrs.__setitem__("layer_names", np.array([b""] * 20_001)), "has more than 20000 names"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_only_numbers_of_this_file_are_read(tmp_path, case):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["secret"] = np.ones(3, np.float32)
    change, expected = CHANGES[case]
    path = layer_file(tmp_path / "weights.h5", lambda file, group: change(file, group, str(secret)))
    with pytest.raises(UserError) as raised:
        read_layers(path)
    assert expected in str(raised.value)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500 + len(str(path))


def test_a_linked_group_of_weights_is_not_followed(tmp_path):
    write_weights(tmp_path / "other.h5", {"conv1": [np.ones(3, np.float32)]})
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["model_weights"] = h5py.ExternalLink("other.h5", "/")
    assert not is_legacy(path)
    with pytest.raises(UserError, match="is a link"):
        read_layers(path)


def test_damaged_files_are_told(tmp_path):
    network().save(tmp_path / "model.h5")
    whole = (tmp_path / "model.h5").read_bytes()
    path = tmp_path / "damaged.h5"
    for kept in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        assert not is_legacy(path)
        with pytest.raises(UserError, match=r"damaged.h5: not a checkpoint of tfinpaint"):
            read_layers(path)
    os.mkfifo(tmp_path / "fifo.h5")
    assert not is_legacy(tmp_path / "fifo.h5")
    with pytest.raises(UserError, match=r"fifo\.h5: not a checkpoint"):
        read_layers(tmp_path / "fifo.h5")


def test_compressed_arrays_are_refused(tmp_path):
    zeros = np.zeros((1000, 2000), np.float32)
    path = layer_file(tmp_path / "weights.h5", lambda file, group: replace(group, data=zeros, compression="gzip"))
    assert not is_legacy(path)
    with pytest.raises(UserError, match="/conv1/conv1/weight_0:0 is compressed or filtered"):
        read_layers(path)


def test_a_model_within_the_model_gives_its_layers_slashes_in_their_names_too(tmp_path):
    generator = np.random.default_rng(0)
    inner = {name: [generator.random((2, n)).astype(np.float32)] for n, name in enumerate(("conv1/conv", "bn"), 1)}
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["densenet", "dense_1"]
        for entry, found in {"densenet": inner, "dense_1": {"dense_1": [np.ones(2, np.float32)]}}.items():
            group = file.create_group(entry)
            group.attrs["weight_names"] = [f"{name}/kernel:0" for name in found]
            for name, (array,) in found.items():
                group[f"{name}/kernel:0"] = array
    same(read_layers(path, {"conv1/conv", "bn", "dense_1"}), {**inner, "dense_1": [np.ones(2, np.float32)]})
    assert list(read_layers(path, {"densenet"})) == ["densenet", "dense_1"]  # that is a layer of the model itself
    with h5py.File(path, "a") as file:
        file["dense_1"].attrs["weight_names"] = ["dense_1/kernel:0"] * 2
    with pytest.raises(UserError, match="weight_names of /dense_1 has a name twice"):
        read_layers(path)
