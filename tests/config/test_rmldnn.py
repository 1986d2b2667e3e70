"""rmldnn's public configurations and network files: what runs, what is refused and why, what its scripts read."""

import json
import re
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from commandline import refuse, succeed, summary
from conftest import SHARED
from network_files import conv, network
from PIL import Image

from tfinpaint.cli import arguments
from tfinpaint.config.loader import dump_config, load_config
from tfinpaint.config.schema import ConfigError
from tfinpaint.errors import UserError
from tfinpaint.models.keras_json.build import build_network
from tfinpaint.models.keras_json.parse import input_size, read_network

ZIP = SHARED / "data" / "seed" / "rmldnn_configurations_and_networks.zip"
# (parameters, trainable parameters) that Keras 2 counts (tf_keras 2.21, which needs the names that YOLOv3's layers lack and
# Keras's name of the activation log_softmax_v2).
COUNTS = json.loads((Path(__file__).parents[1] / "golden" / "rmldnn_networks.json").read_text())
QUICK = [
    "resources/classification/MobileNet/network.json",
    "resources/segmentation/PSPNet/DenseNet121/network.json",
    "tutorials/mnist_classification/mnist_keras_net.json",
    "tutorials/pets_image_segmentation/network_xception2D.json",
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The folder of rmldnn's files."""
    if not ZIP.exists():
        pytest.skip(f"{ZIP.name} is not beside the project")
    folder = tmp_path_factory.mktemp("rmldnn")
    with zipfile.ZipFile(ZIP) as file:
        file.extractall(folder)
    return folder


def counts(path: Path) -> list[int]:
    keras.backend.clear_session()
    model = build_network(read_network(path), path.name)
    return [model.count_params(), sum(int(np.prod(w.shape)) for w in model.trainable_weights)]


@pytest.mark.parametrize("name", QUICK)
def test_small_networks_have_the_parameters_that_keras_2_counts(archive, name):
    assert counts(archive / name) == COUNTS[name]


@pytest.mark.stress
@pytest.mark.parametrize("name", [name for name in COUNTS if name not in QUICK])
def test_networks_have_the_parameters_that_keras_2_counts(archive, name):
    assert counts(archive / name) == COUNTS[name]


def test_every_network_file_is_counted_or_has_three_dimensions(archive):
    files = {str(path.relative_to(archive)) for path in archive.rglob("*.json") if "config" not in path.name}
    others = files - set(COUNTS)
    assert set(COUNTS) <= files
    assert len(COUNTS) == 71
    assert {Path(name).name for name in others} == {"unet3d_poisson.json", "unet3d_seismic.json"}
    for name in others:
        with pytest.raises(
            UserError, match=r"layer .*3d.* \(.*3D\): this class is not supported, because images have two dim"
        ):
            build_network(read_network(archive / name), name)


REFUSED = {
    "smoke_tests/config_rmltf_test.json": r"data.type: a data loader of rmldnn that is not supported: arrays are not",
    "tutorials/neural_Poisson3D_PDE_solver/config_poisson3d_pde.json": r"arrays are not read, only folders of images",
    "tutorials/neural_Poisson3D_PDE_solver/config_poisson3d_pde_inference.json": r"arrays are not read",
    "tutorials/seismic_facies_classification/config_dnn_seismic3d.json": r"arrays are not read",
    "tutorials/seismic_facies_classification/config_dnn_seismic3d_inference.json": r"arrays are not read",
}


def test_every_configuration_runs_or_is_refused_for_a_true_reason_in_one_line(archive):
    tried = set()
    for path in sorted(archive.rglob("*config*.json")):
        name = str(path.relative_to(archive))
        section = json.loads(path.read_text())["neural_network"]
        for key, place in section["data"].items():  # what the tutorials tell to download, or to train first
            if key.endswith("_path") and "output" not in key:
                (path.parent / place).mkdir(parents=True, exist_ok=True)
        if "load" in section.get("checkpoints", {}):
            (path.parent / section["checkpoints"]["load"]).parent.mkdir(parents=True, exist_ok=True)
            (path.parent / section["checkpoints"]["load"]).touch()
        task = "classify" if section["data"].get("type") is None else "pretrain"
        if name in REFUSED:
            with pytest.raises(ConfigError, match=REFUSED[name]) as refusal:
                arguments.load_checked(path, [], task, 1)
            assert "\n" not in str(refusal.value)
        else:
            config = arguments.load_checked(path, [], task, 1)
            assert config.output_format == "rmldnn"
        tried.add(name)
    assert (len(tried), set(REFUSED) - tried) == (19, set())


def write_json(path: Path, **section: object) -> Path:
    path.write_text(json.dumps({"neural_network": section}))
    return path


def test_what_an_rmldnn_file_says_beyond_the_schema(tmp_path):
    data = {"test_tag": "testing", "training_tag": "training"}
    config = load_config(write_json(tmp_path / "c.json", debug=False, debug_interval=5, data=data))
    assert (config.data.testing_tag, config.data.training_tag, config.output_format) == (
        "testing",
        "training",
        "rmldnn",
    )
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(config))
    assert load_config(again) == config
    assert load_config(write_json(tmp_path / "d.json"), ["output_format=tfinpaint"]).output_format == "tfinpaint"
    (tmp_path / "own.json").write_text('{"seed": 1}')
    assert load_config(tmp_path / "own.json").output_format == "tfinpaint"
    with pytest.raises(ConfigError, match=r"debug is a key of rmldnn .*`false` is accepted"):
        load_config(write_json(tmp_path / "e.json", debug=True))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], [{"resize": [16, 12]}]),
        ([{"random_horizontal_flip": 0.5}], [{"resize": [16, 12]}, {"random_horizontal_flip": 0.5}]),
        (
            [{"jitter_crop": 0.1}, {"grayscale": True}],
            [{"jitter_crop": 0.1}, {"resize": [16, 12]}, {"grayscale": True}],
        ),
        ([{"resize": [8, 8]}], [{"resize": [8, 8]}]),
    ],
)
def test_without_a_size_images_take_that_of_the_networks_input(tmp_path, steps, expected):
    (tmp_path / "images" / "a").mkdir(parents=True)
    listed = [
        {"class_name": "Conv2D", "config": {"batch_input_shape": [None, 12, 16, 3], "filters": 1, "kernel_size": 1}}
    ]
    data = {"input_path": "images", "target_type": "labels", "transforms": steps}
    path = write_json(tmp_path / "c.json", layers=listed, data=data)
    config = arguments.load_checked(path, [], "classify", 1)
    assert [step.model_dump() for step in config.data.transforms] == expected
    listed[0]["config"]["batch_input_shape"] = [None, None, 16, 3]
    assert input_size(read_network(listed)) is None
    path = write_json(tmp_path / "c.json", layers=listed, data={**data, "transforms": []})
    with pytest.raises(ConfigError, match="must produce images of one size: add a resize"):
        arguments.load_checked(path, [], "classify", 1)


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory) -> Path:
    """A folder as in rmldnn's segmentation tutorials: images and masks of 3 classes, a run of `train.json` done there."""
    folder = tmp_path_factory.mktemp("segmentation")
    generator = np.random.default_rng(0)
    for part, count in (("training", 12), ("testing", 3)):
        for number in range(count):
            pixels = generator.integers(0, 256, (16, 16, 3), np.uint8)
            for kind, image in (("inputs", pixels), ("masks", (pixels[..., 0] // 86).astype(np.uint8))):
                (folder / part / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / part / kind / f"{number}.png")
    layers = network(
        folder / "net.json", conv("conv/1", 8, "relu", kernel_size=[1, 1]), conv("conv/2", 3, "softmax"), size=16
    )
    places = {
        f"{a}{b}_path": f"./{c}/{d}/"
        for a, c in (("", "training"), ("test_", "testing"))
        for b, d in (("input", "inputs"), ("target", "masks"))
    }
    write_json(
        folder / "train.json", debug=False, outfile="out.txt", num_epochs=3, layers=layers,
        checkpoints={"save": "model/"}, loss={"function": "Dice", "source": "softmax"},
        optimizer={"type": "rmsprop", "learning_rate": 0.01},
        data={"type": "images", **places, "test_output_path": "./predictions/", "batch_size": 4, "target_grayscale": True,
              "target_is_mask": True, "transforms": [{"normalize": {"mean": 0.0, "std": 1.0}}]},
    )  # fmt: skip
    output = succeed("pretrain", "--config=", folder / "train.json")
    assert "images are resized to 16 x 16 pixels, the network's input" in output
    assert (
        output.count("2 layer names have characters that Keras 3 does not accept: 'conv/1' is 'conv>2F1' within Keras")
        == 1
    )
    return folder


def dice(mask, classes):
    """Of the most probable classes, by hand: the mean over 3 classes, one that is in neither counting as 1."""
    found = [(mask == k, classes == k) for k in range(3)]
    return np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0 for a, b in found])


def test_the_scripts_of_the_tutorials_find_their_predictions(segmentation):
    assert not (segmentation / "predictions" / "predictions.h5").exists()
    scores, right = [], []
    with h5py.File(segmentation / "predictions" / "output_1.h5") as predictions:
        assert len(predictions) == 3
        for name in predictions:
            assert predictions[name].shape == (3, 16, 16)
            classes = predictions[name][()].transpose(1, 2, 0).argmax(2)
            assert np.array_equal(classes, Image.open(segmentation / "predictions" / name))
            mask = np.asarray(Image.open(segmentation / "testing" / "masks" / name))
            scores.append(dice(mask, classes))
            right.append((mask == classes).mean())
    done = summary(segmentation / "train_run")
    assert np.isclose(done["test_dice"], np.mean(scores), atol=1e-6)
    assert np.isclose(done["test_pixel_accuracy"], np.mean(right), atol=1e-6)


def test_the_hyperparameter_script_finds_epochs_and_dice_in_the_log(segmentation):
    records = [json.loads(line) for line in (segmentation / "train_run" / "metrics.jsonl").read_text().splitlines()]
    expected = [(record["epoch"], record["dice"]) for record in records if record["phase"] == "test"]
    found = []
    for line in (segmentation / "out_test.txt").read_text().splitlines():
        numbers = re.findall(r"[0-9]*\.?[0-9]+", line)  # as it does
        found.append((int(numbers[0]), float(numbers[-1])))
    assert np.allclose(found, expected, atol=1e-7)
    assert len(found) == 3
    assert len((segmentation / "out_train.txt").read_text().splitlines()) == 3


def test_layers_with_a_slash_are_transferred_by_the_names_of_the_file(segmentation, tmp_path):
    changed = (segmentation / "net.json").read_text().replace("conv/2", "conv/3")
    (tmp_path / "net.json").write_text(changed)
    options = ["--set", f"layers={tmp_path / 'net.json'}", "--set", "num_epochs=1", "--set", "steps_per_epoch=1"]
    options += [
        "--set",
        f"checkpoints.load={segmentation / 'model' / 'model_checkpoint_3'}",
        "--set",
        "data.test_output_path=null",
    ]
    output = succeed("pretrain", segmentation / "train.json", "--workdir", tmp_path / "run", *options, "--set", "checkpoints.save=null",
                     "--set", f"outfile={tmp_path / 'out.txt'}")  # fmt: skip
    assert "Skipping layer conv/3: not found in model_checkpoint_3" in output
    assert "Transferred 1 layers by name; skipped 1, mismatched 0, not needed 1" in output


def test_a_source_that_is_not_the_networks_is_refused(segmentation, tmp_path):
    options = ("--workdir", tmp_path / "run", "--set", "checkpoints.save=null", "--set", "outfile=null")
    error = refuse("pretrain", segmentation / "train.json", *options, "--set", "loss.source=sigmoid")
    assert "loss.source is sigmoid, but the network ends in softmax; write that, or remove loss.source" in error
