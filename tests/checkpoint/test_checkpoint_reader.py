"""The reader of checkpoints: each file is scanned once, and what is not as it should be is refused by name."""

import json

import h5py
import keras
import numpy as np
import pytest
from test_store import PROGRESS, RANKS, companions, contents, header, save, source

from tfinpaint.checkpoint.header import FORMAT
from tfinpaint.checkpoint.keras_files import KerasFile
from tfinpaint.checkpoint.model import network_digest
from tfinpaint.checkpoint.reader import load_weights, open_checkpoint, open_weights, read_header, restore_training
from tfinpaint.checkpoint.store import TrainingState, save_checkpoint
from tfinpaint.errors import UserError
from tfinpaint.layout import ENCODER_WEIGHTS, MODEL_WEIGHTS, OPTIMIZER_STATE
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.keras_json.build import build_network
from tfinpaint.models.keras_json.parse import read_network
from tfinpaint.storage import safe_hdf5

NETWORK = [
    {"class_name": "InputLayer", "name": "image", "config": {"batch_input_shape": [None, 32, 32, 3]}, "inbound_nodes": []},
    {"class_name": "Conv2D", "name": "conv", "config": {"filters": 3, "kernel_size": 1}, "inbound_nodes": [[["image", 0, 0, {}]]]},
]  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("saved"), *source())


@pytest.fixture
def scans(monkeypatch):
    """Return a list that gets the name of each HDF5 file that is scanned."""
    found, scan = [], safe_hdf5._scan

    def counted(file, *arguments):
        found.append(str(file.filename).rpartition("/")[2])
        return scan(file, *arguments)

    monkeypatch.setattr(safe_hdf5, "_scan", counted)
    return found


def test_header_and_weights_come_from_one_scan_of_the_file(saved, scans):
    with open_checkpoint(saved) as found:
        assert found.header == header()
        model, layers = found.model(), found.layer_weights()
    assert scans == ["model.weights.h5"]
    for mine, theirs in zip(model.variables, source()[0].variables, strict=True):
        assert np.array_equal(mine, theirs)
    assert np.array_equal(layers["conv1_conv"][0], model.get_layer("conv1_conv").kernel)


def test_an_encoder_is_built_for_images_of_another_size(saved, scans):
    with open_checkpoint(saved / ENCODER_WEIGHTS, allowed=("encoder",)) as found:
        encoder = found.model((64, 96))
    assert encoder.input_shape == (None, 64, 96, 3)
    assert scans == ["encoder.weights.h5"]


def test_a_network_of_its_own_is_built_from_the_same_scan(tmp_path, scans):
    network = read_network(NETWORK)
    model = build_network(network)
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    described = header(network=network_digest(network), encoder=None, encoder_output=None)
    state = TrainingState(model, optimizer, None, network)
    path = save_checkpoint(tmp_path, described, PROGRESS, RANKS, state, 1)
    with open_checkpoint(path) as found:
        assert np.array_equal(found.layer_weights()["conv"][0], model.get_layer("conv").kernel)
    assert scans == ["model.weights.h5"]


def test_a_run_is_resumed_by_one_scan_of_each_file(tmp_path, scans):
    state = contents(*source(), **companions(0))
    path = save_checkpoint(tmp_path, header(adversarial="RMSprop"), PROGRESS, RANKS, state, 1)
    assert read_header(path) == header(adversarial="RMSprop")
    restore_training(path, state)
    assert scans == ["model.weights.h5", "discriminator.weights.h5", "projector.weights.h5"]


@pytest.mark.parametrize("ending", [".h5", ".weights.h5", ".keras"])
def test_a_file_of_keras_is_scanned_once(tmp_path, scans, ending):
    model = build_encoder("tiny", "before_add", 32, 32)
    path = tmp_path / f"x{ending}"
    model.save_weights(path) if ending == ".weights.h5" else model.save(path)
    with open_weights(path) as found:
        assert isinstance(found, KerasFile)
        assert set(found.read_weights(model, None).layers) == {each.name for each in model.layers if each.weights}
    assert len(scans) == 1
    with pytest.raises(UserError, match="not a checkpoint of tfinpaint"), open_checkpoint(path):
        pass


def test_kinds_are_told_apart_also_of_a_file_on_its_own(tmp_path, saved):
    alone = tmp_path / "somewhere.weights.h5"
    alone.write_bytes((saved / ENCODER_WEIGHTS).read_bytes())
    assert read_header(alone).kind == "encoder"
    with pytest.raises(UserError, match="holds the weights of kind inpainter; expected: classifier"):
        read_header(saved, allowed=("classifier",))
    with pytest.raises(UserError, match=r"somewhere\.weights\.h5: holds the weights of kind encoder"):
        read_header(alone, allowed=("inpainter",))


@pytest.mark.parametrize("more", [{}, {"unknown": 1}])
def test_a_newer_checkpoint_is_called_newer_and_one_without_a_number_loads(saved, more):
    found = json.loads(header().model_dump_json())
    assert found.pop("format") == FORMAT
    path = changed(saved, lambda file: file.attrs.__setitem__("tfinpaint", json.dumps(found)))
    assert read_header(path) == header()
    newer = json.dumps(found | {"format": 7} | more)
    path = changed(saved, lambda file: file.attrs.__setitem__("tfinpaint", newer))
    words = r"x\.weights\.h5: was written by a newer tfinpaint \(its format is 7, this one reads 1\); update tfinpaint"
    with pytest.raises(UserError, match=words):
        read_header(path)
    for number in (0, "7", None, [7]):
        text = json.dumps(found | {"format": number})
        path = changed(saved, lambda file, text=text: file.attrs.__setitem__("tfinpaint", text))
        with pytest.raises(UserError, match="not a checkpoint of tfinpaint"):
            read_header(path)


def test_what_is_not_a_checkpoint_is_refused(tmp_path):
    plain = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    plain.save_weights(tmp_path / "plain.weights.h5")
    (tmp_path / "text.h5").write_text("text")
    (tmp_path / "empty").mkdir()
    for name in ("plain.weights.h5", "text.h5", "empty"):
        with pytest.raises(UserError, match=f"{name}: not a checkpoint of tfinpaint"):
            read_header(tmp_path / name)


def test_weights_and_states_that_do_not_fit_are_refused(tmp_path):
    model, optimizer = source()
    path = save(tmp_path, model, optimizer)
    with pytest.raises(UserError, match="cannot load the weights"):
        load_weights(path / MODEL_WEIGHTS, build_classifier(build_encoder("tiny", "before_add", 32, 32), 3))
    other = keras.optimizers.RMSprop()
    other.build(model.trainable_variables)
    with pytest.raises(UserError, match=r"optimizer.npz: holds \d+ arrays, expected \d+|\d+ expected arrays take"):
        restore_training(path, contents(model, other))
    whole = (path / OPTIMIZER_STATE).read_bytes()
    for damaged in (b"PK not a zip", b"", whole[: len(whole) // 2]):
        (path / OPTIMIZER_STATE).write_bytes(damaged)
        with pytest.raises(UserError, match=r"optimizer\.npz: (damaged or not an \.npz file|\d+ bytes, but its)"):
            restore_training(path, contents(model, optimizer))


def changed(path, change):
    """The weight file of a checkpoint on its own, changed."""
    alone = path.parent / "x.weights.h5"
    alone.write_bytes((path / MODEL_WEIGHTS).read_bytes())
    with h5py.File(alone, "a") as file:
        change(file)
    return alone


CONTRADICTIONS = {
    "side": ({"height": 2**20}, "images of 32 x 1048576"),
    "no side": ({"width": 0}, "images of 0 x 32"),
    "channels": ({"target_channels": 2}, "with 3 channels become 2 channels"),
    "no classes": ({"kind": "classifier"}, "a classifier without classes"),
    "classes": ({"kind": "classifier", "classes": ["a"] * 40_000}, "5120000 weights of one layer in"),
    "bottleneck": ({"bottleneck": "channelwise", "height": 512, "width": 512}, "8388608 weights of one layer in"),
    "missing network": ({"network": "0" * 64, "encoder": None}, "it names a network that the file lacks"),
    "no encoder": ({"encoder": None}, "it names neither an encoder nor a network"),
    "end": ({"encoder": "densenet121"}, "densenet121: it does not end in an addition"),
    "stem": ({"encoder": "densenet121", "encoder_output": "after_relu", "stem": "small"}, "stem: small is for the ResNets"),
    "small stem": ({"stem": "small", "kind": "classifier", "classes": ["a"] * 4_000}, "8192000 weights of one layer in"),
    "stride": ({"height": 33}, "no encoder makes images of 32 x 33"),
    "resizing": ({"restoration": {"fill": "black", "input_transforms": [{"resize": [8, 8]}]}}, "change more than pixel values"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_headers_that_cannot_be_true_are_refused_before_anything_is_built(saved, case):
    changes, expected = CONTRADICTIONS[case]
    text = json.dumps(header().model_dump(mode="json") | changes)
    with pytest.raises(UserError, match="inconsistent header: ") as raised:
        read_header(changed(saved, lambda file: file.attrs.__setitem__("tfinpaint", text)))
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_bottleneck_that_the_file_can_hold_is_allowed(saved):
    text = header(bottleneck="channelwise", kind="inpainter").model_dump_json()
    path = changed(saved, lambda file: file.attrs.__setitem__("tfinpaint", text))
    assert read_header(path).bottleneck == "channelwise"


@pytest.mark.parametrize("text", [b"[" * 10**5, b"\xff", b"[]", b""])
def test_a_damaged_network_is_told(saved, text):
    def change(file):
        file.create_dataset("tfinpaint_network", data=np.frombuffer(text, np.uint8))
        file.attrs["tfinpaint"] = header(network="0" * 64).model_dump_json()

    with (
        pytest.raises(UserError, match=r"x\.weights\.h5: its network is damaged \("),
        open_checkpoint(changed(saved, change)) as found,
    ):
        found.model()


def test_more_than_the_model_holds_is_not_read(saved):
    model, _ = source()
    path = changed(saved, lambda file: file.create_dataset("extra/vars/0", data=np.ones(2**22, np.float32)))
    with pytest.raises(UserError, match=r"x\.weights\.h5: cannot load the weights: \d+ bytes in 107 arrays are more"):
        load_weights(path, model)
    linked = changed(saved, lambda file: file.__setitem__("extra", h5py.ExternalLink("other.h5", "/")))
    with pytest.raises(UserError, match=r"x\.weights\.h5: /extra is a link"):
        load_weights(linked, model)


def test_a_name_by_which_keras_would_take_the_file_for_an_archive_is_refused(saved):
    other = saved.parent / "x.keras"
    other.write_bytes((saved / MODEL_WEIGHTS).read_bytes())
    with pytest.raises(UserError, match=r"expected a name that ends in \.weights\.h5"):
        load_weights(other, source()[0])
