"""Files of plain Keras: the layers that Keras itself would load, by name, whoever wrote the names and wherever."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from tfinpaint.checkpoint import transfer
from tfinpaint.checkpoint.keras_files import KerasFile
from tfinpaint.checkpoint.reader import open_weights
from tfinpaint.errors import UserError
from tfinpaint.models.encoder import build_encoder

SHAPE = (32, 32, 3)


def block(prefix="", name=None, units=4):
    """Two convolutions of equal shapes side by side: only their order, or their names, tell them apart."""
    image = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, name=f"{prefix}entry")(image)
    x = layers.BatchNormalization(name=f"{prefix}norm")(x)
    x = layers.Add()([layers.Conv2D(4, 1, name=f"{prefix}{side}")(x) for side in ("right", "left")])
    x = layers.SeparableConv2D(units, 3, name=f"{prefix}separable")(x)
    return randomised(keras.Model(image, x, name=name))


def randomised(model, seed=1):
    generator = np.random.default_rng(seed)
    model.set_weights([generator.random(w.shape).astype(np.float32) for w in model.get_weights()])
    return model


def classifier(inner):
    parts = [keras.Input(SHAPE), inner, layers.GlobalAveragePooling2D(), layers.Dense(3, name="dense_1")]
    return keras.Sequential(parts)


def nested_twice(inner):
    image = keras.Input(SHAPE)
    return keras.Model(image, classifier(inner)(layers.RandomFlip("horizontal")(image)))


def compiled(inner):
    inner.compile("adam", "mse", metrics=["mae"])
    inner.optimizer.build(inner.trainable_variables)
    return inner


def half_frozen(inner):
    inner.get_layer("norm").trainable = False
    return classifier(inner)


MODELS = {
    "flat": lambda inner: inner,
    "nested": classifier,
    "nested twice": nested_twice,
    "optimizer": compiled,
    "frozen": half_frozen,
}


def read_keras_file(path, model, encoder):
    with open_weights(path) as file:
        assert isinstance(file, KerasFile)
        return file.read_weights(model, encoder)


def assert_all_arrive(path, source, count, by=None):
    """Reading a file must give each layer of `source`, a plain model, its weights bit for bit."""
    read = read_keras_file(path, by or source, None)
    expected = {layer.name: layer.get_weights() for layer in source.layers if layer.weights}
    assert len(expected) == count
    for name, weights in expected.items():
        assert [w.tobytes() for w in read.layers[name]] == [w.tobytes() for w in weights], name
    return read


def without_names(path):
    """As Keras before 3.6 writes it."""
    found = []
    with h5py.File(path, "a") as file:
        file.visititems(lambda _, item: found.append(item) if "name" in item.attrs else None)
        for item in found:
            del item.attrs["name"]
    return path


def old_archive(path):
    """A `.keras` file whose weights have no names."""
    weights = path.with_suffix(".h5")
    with zipfile.ZipFile(path) as archive:
        weights.write_bytes(archive.read("model.weights.h5"))
        description = archive.read("config.json")
    without_names(weights)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # and packed again by another program
        archive.writestr("config.json", description)
        archive.writestr("model.weights.h5", weights.read_bytes())
    return path


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("ending", [".h5", ".weights.h5", ".keras"])
def test_every_layer_arrives_by_name(tmp_path, case, ending):
    inner = block()
    model, path = MODELS[case](inner), tmp_path / f"x{ending}"
    if ending == ".weights.h5":
        model.save_weights(path)
    else:
        model.save(path)
    read = assert_all_arrive(path, inner, 5)
    assert read.notes == ()
    if "nested" in case:
        assert [w.shape for w in read.layers["dense_1"]] == [(4, 3), (3,)]
    if ending == ".keras":
        assert_all_arrive(old_archive(path), inner, 5)


def test_what_is_read_is_what_keras_loads(tmp_path):
    model = classifier(block())
    model.save(tmp_path / "x.keras")
    loaded = keras.models.load_model(tmp_path / "x.keras")
    assert_all_arrive(tmp_path / "x.keras", loaded.layers[0], 5)


def test_without_names_the_order_within_a_class_decides_if_all_shapes_fit(tmp_path):
    inner = block("other_")
    classifier(inner).save_weights(tmp_path / "x.weights.h5")
    target = block(name="encoder")
    read = read_keras_file(without_names(tmp_path / "x.weights.h5"), classifier(target), target)
    for name in ("entry", "norm", "right", "left", "separable"):
        for mine, theirs in zip(read.layers[name], inner.get_layer(f"other_{name}").get_weights(), strict=True):
            assert np.array_equal(mine, theirs)
    assert read.notes == (
        "x.weights.h5 holds no layer names (Keras before 3.6): its layers are assigned in their order, which "
        "agrees in number and shapes with this run's encoder",
    )
    assert len(read.layers) == 6  # with the dense layer, which has no name of the target


def test_without_names_nothing_is_guessed(tmp_path):
    path, target = tmp_path / "x.weights.h5", block(name="encoder")
    inner = block()
    longer = keras.Model(inner.input, layers.Conv2D(4, 1)(inner.output))  # its first layers would fit
    for source in (block(units=5), longer):
        source.save_weights(path)
        with pytest.raises(
            UserError, match=r"x\.weights\.h5: holds no layer names .* from those of this run's encoder; "
        ):
            read_keras_file(without_names(path), target, None)
    image = keras.Input(SHAPE)
    keras.Model(image, layers.Add()([block("a_")(image), block("b_")(image)])).save_weights(path)
    with pytest.raises(UserError, match="holds 2 models that fit; save the right one as a file"):
        read_keras_file(without_names(path), target, None)


@pytest.mark.parametrize("ending", [".h5", ".weights.h5", ".keras"])
def test_a_name_that_stands_for_two_layers_is_refused(tmp_path, ending):
    image, path = keras.Input(SHAPE), tmp_path / f"x{ending}"
    twice = keras.Model(image, layers.Add()([block(name="a")(image), block(name="b")(image)]))
    twice.save_weights(path) if ending == ".weights.h5" else twice.save(path)
    with pytest.raises(
        UserError, match=rf"x{ending}: holds several layers named (entry|norm), so the right one is unknown"
    ):
        read_keras_file(path, block(), None)
    other = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(2, 1, name="other")])
    assert "entry" in read_keras_file(path, other, None).layers  # nobody asks for it


def rewritten(path, change):
    """A `.keras` file with other members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, contents in members.items():
            archive.writestr(name, contents)
        change(archive, members)
    return path


def linked(archive, members):
    info = zipfile.ZipInfo("assets/x")
    info.external_attr = 0o120777 << 16
    archive.writestr(info, "/etc/passwd")


def replaced(name, contents):
    """The archive without a member, or with other contents of it."""

    def change(archive, members):
        path = archive.filename
        archive.close()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as other:
            for each, stored in {**members, name: contents}.items():
                if stored is not None:
                    other.writestr(each, stored)

    return change


ARCHIVES = {
    "link": (linked, "'assets/x' is a link or lies outside"),
    "climbing": (lambda a, m: a.writestr("../x", "x"), "'../x' is a link or lies outside"),
    "absolute": (lambda a, m: a.writestr("/x", "x"), "'/x' is a link or lies outside"),
    "many": (lambda a, m: [a.writestr(f"assets/{n}", "") for n in range(1000)], "holds 1003 files"),
    "bomb": (replaced("model.weights.h5", bytes(2**26)), "'model.weights.h5' claims 67108864 bytes in "),
    "large description": (lambda a, m: a.writestr("assets/x", b""), None),
    "name that is not ASCII": (lambda a, m: a.writestr("assets/ä", b""), None),
    "backslash": (lambda a, m: a.writestr("assets\\x", b""), r"'assets\\x' is a link or lies outside"),
    "no weights": (replaced("model.weights.h5", None), "holds no model.weights.h5 and config.json"),
    "no description": (replaced("config.json", None), "holds no model.weights.h5 and config.json"),
    "description of levels": (replaced("config.json", b"[" * 10**5), "damaged, or not a weight file of Keras ("),
    "description of another kind": (replaced("config.json", b"[1]"), "damaged, or not a weight file of Keras ("),
    "weights that are no HDF5": (replaced("model.weights.h5", b"text"), "damaged, or not a weight file of Keras ("),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_hold_what_keras_writes(tmp_path, case):
    block().save(tmp_path / "x.keras")
    change, expected = ARCHIVES[case]
    path = rewritten(tmp_path / "x.keras", change)
    if expected is None:
        assert_all_arrive(path, block(), 5)
        return
    with pytest.raises(UserError) as raised:
        read_keras_file(path, block(), None)
    assert str(raised.value).startswith(f"{path}: ")
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_code_in_a_description_is_data(tmp_path):
    block().save(tmp_path / "x.keras")
    with zipfile.ZipFile(tmp_path / "x.keras") as archive:
        description = json.loads(archive.read("config.json"))
    code = {"class_name": "__lambda__", "config": {"code": "raise SystemExit"}}
    description["config"]["layers"].append(
        {"class_name": "Lambda", "config": {"name": "evil", "function": code}, "module": "os", "registered_name": "x"}
    )
    path = rewritten(tmp_path / "x.keras", replaced("config.json", json.dumps(description).encode()))
    assert_all_arrive(path, block(), 5)


def fixed_length(path, found):
    """Weights alone, as Keras 2.3.1 with h5py 2 writes them: names of fixed length."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([name.encode() for name in found], "S")
        for name, arrays in found.items():
            group = file.create_group(name)
            names = [f"{name}_3/weight_{i}:0" for i in range(len(arrays))]  # the third model of its process
            group.attrs["weight_names"] = np.array([each.encode() for each in names], "S")
            for each, array in zip(names, arrays, strict=True):
                group[each] = array
    return path


def classic_name(name):
    """The name of a layer of ResNet50 in Keras before 2.3."""
    if name in ("conv1_conv", "conv1_bn"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}[name]
    stage, block_, part, kind = name.removeprefix("conv").split("_")
    branch = "1" if part == "0" else f"2{'abc'[int(part) - 1]}"
    return f"{'res' if kind == 'conv' else 'bn'}{stage}{'abcdef'[int(block_[-1]) - 1]}_branch{branch}"


@pytest.fixture(scope="module")
def resnet50():
    return randomised(keras.applications.ResNet50(include_top=False, weights=None, input_shape=SHAPE))


@pytest.mark.parametrize(
    "case",
    [
        "before 2.3",
        *(
            pytest.param(case, marks=pytest.mark.stress)
            for case in ("h5", "weights", "keras", "nested h5", "nested keras", "2.3.1", "no names")
        ),
    ],
)
def test_files_of_a_whole_resnet50_fill_our_encoder(tmp_path, resnet50, case):
    encoder = build_encoder("resnet50", "before_add", 32, 32)
    found = {layer.name: layer.get_weights() for layer in resnet50.layers}
    path = tmp_path / {"weights": "x.weights.h5", "no names": "x.weights.h5"}.get(case, "x.h5")
    if case in ("2.3.1", "before 2.3"):
        weighted = {name: arrays for name, arrays in found.items() if arrays}
        fixed_length(path, weighted if case == "2.3.1" else {classic_name(n): a for n, a in weighted.items()})
    elif path.name == "x.weights.h5":
        resnet50.save_weights(path)
    else:
        path = path.with_suffix(".keras") if "keras" in case else path
        (classifier(resnet50) if "nested" in case else resnet50).save(path)
    if case == "no names":
        without_names(path)
    read = assert_all_arrive(path, resnet50, 106, by=encoder)
    plan = transfer.plan_transfer(read.layers, encoder)
    assert (len(plan.copied), plan.not_copied) == (106, [])
    if case == "before 2.3":
        assert "conv1 is conv1_conv" in read.notes[0]
