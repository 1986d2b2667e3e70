"""A run of an rmldnn segmentation tutorial: what its scripts read, and layer names that Keras 3 does not accept."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from commandline import refuse, succeed, summary
from network_files import conv, network
from PIL import Image


def write_json(path: Path, **section: object) -> Path:
    path.write_text(json.dumps({"neural_network": section}))
    return path


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory) -> Path:
    """A folder as in rmldnn's segmentation tutorials: images and label maps of 3 classes, and a run of `train.json`."""
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


@pytest.mark.stress
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
    assert "Transferred 1 layer by name; skipped 1, mismatched 0, unused 1" in output


def test_a_source_that_is_not_the_networks_is_refused(segmentation, tmp_path):
    options = ("--workdir", tmp_path / "run", "--set", "checkpoints.save=null", "--set", "outfile=null")
    error = refuse("pretrain", segmentation / "train.json", *options, "--set", "loss.source=sigmoid")
    assert "loss.source is sigmoid, but the network ends in softmax; write that, or remove loss.source" in error
