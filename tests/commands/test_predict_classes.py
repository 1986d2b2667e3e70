"""The command that predicts the classes of photos: the probabilities of the evaluation, odd photos, broken ones."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from commandline import succeed, tfinpaint
from conftest import write_config, write_images, write_training_and_testing
from PIL import Image

from tfinpaint.config.transforms import Transform
from tfinpaint.data.examples import split_steps
from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.data.listing.listing import list_images
from tfinpaint.report.photo_classes import PhotoClasses
from tfinpaint.runs.photo_classes import Classifier, classify_photos, load_classifier

# Steps that a photo must not miss: without any of them, probabilities are others.
STEPS = {
    "data__transforms": [{"resize": [40, 36]}, {"center_crop": [32, 32]}, {"random_horizontal_flip": 0.5}],
    "data__input_transforms": [{"normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with `data`, a classifier's `run`, and its predictions of the test images in `out`."""
    folder = tmp_path_factory.mktemp("classifier")
    data = write_training_and_testing(folder)
    write_images(data / "testing", {"cold": 4, "warm": 3}, size=(60, 31), seed=2)
    out = str(folder / "out")
    succeed(
        "classify", "--config", write_config(folder / "c.yaml", "classify", data, data__test_output_path=out, **STEPS)
    )
    return folder


@pytest.fixture
def expected(folder) -> dict[str, np.ndarray]:
    """Path of a test image, in `data/testing` -> the probabilities that the evaluation has given."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(folder / "out" / "predictions.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    assert len(found) == 7
    return found


def test_the_probabilities_are_those_of_the_evaluation(folder, expected, monkeypatch):
    monkeypatch.chdir(folder)
    output = succeed("predict", "run", "data/testing", "--json", "p.json", "--csv", "p.csv")
    lines = output.splitlines()
    assert lines[0] == "Using model_checkpoint_2, the newest of run"
    assert lines[1].split() == ["photo", "class", "second"]
    best = Counter(("cold", "warm")[values.argmax()] for values in expected.values()).most_common()
    assert sorted(lines[-1].removeprefix("7 photos: ").split(", ")) == sorted(f"{name} ({n})" for name, n in best)
    found = json.loads(Path("p.json").read_text())
    assert found["checkpoint"] == str(folder / "run" / "model_checkpoints" / "model_checkpoint_2")
    assert found["unreadable"] == []
    assert [each["image"] for each in found["images"]] == [f"data/testing/{path}" for path in sorted(expected)]
    rows = list(csv.reader(Path("p.csv").read_text().splitlines()))
    assert rows[0] == ["image", "class", "probability", "probability_cold", "probability_warm"]
    for each, row, line in zip(found["images"], rows[1:], lines[2:-1], strict=True):
        values = expected[each["image"].removeprefix("data/testing/")]
        assert each["probabilities"] == {"cold": float(values[0]), "warm": float(values[1])}  # to the last bit
        first, second = (("cold", "warm")[index] for index in np.argsort(-values))
        assert each["class"] == first
        assert row == [each["image"], first, *(f"{value:.6f}" for value in (values.max(), *values))]
        assert line.rstrip() == (
            f"{each['image']}  {first} {100 * values.max():.1f} %  {second} {100 * values.min():.1f} %"
        )


def test_photos_folders_and_any_kind_of_image(folder, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos/more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (700, 1000, 3), np.uint8)
    Image.fromarray(pixels).save("photos/large.jpg")
    Image.fromarray(pixels[:50, :40, 0]).save("photos/more/grey.png")
    Image.fromarray(pixels[:50, :40]).convert("P").save("photos/palette.gif")
    Path("photos/notes.txt").write_text("not a photo")
    Path("photos/broken.png").write_bytes((folder / "data/testing/warm/000.png").read_bytes()[:900])
    Path("empty.jpg").touch()
    one = folder / "data" / "testing" / "warm" / "001.png"
    done = tfinpaint("predict", folder / "run", "photos", one, "missing.jpg", "empty.jpg", "--json", "p.json")
    assert done.returncode == 2
    assert "error: missing.jpg: no such file or folder\n" in done.stderr
    assert "error: photos/broken.png: truncated" in done.stderr
    assert "error: empty.jpg: " in done.stderr
    assert done.stderr.count("\n") == 3
    assert "photos: 1 file excluded: 1 .txt (notes.txt)\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("4 photos: ")
    found = {each["image"]: each["probabilities"] for each in json.loads(Path("p.json").read_text())["images"]}
    assert list(found) == ["photos/large.jpg", "photos/more/grey.png", "photos/palette.gif", str(one)]
    np.testing.assert_allclose(list(found[str(one)].values()), expected["warm/001.png"], rtol=1e-5)
    assert [each["image"] for each in json.loads(Path("p.json").read_text())["unreadable"]] == ["photos/broken.png"]


def test_records_are_read_as_folders_are(folder, expected, tmp_path):
    records = tmp_path / "records"
    succeed("prepare", folder / "data" / "testing", records, "--records")
    both = records / "training", records / "testing"
    assert "7 photos: " in succeed("predict", folder / "run", *both, "--json", tmp_path / "p.json")
    found = [list(each["probabilities"].values()) for each in json.loads((tmp_path / "p.json").read_text())["images"]]
    wanted = [values.tolist() for values in expected.values()]
    np.testing.assert_allclose(sorted(found), sorted(wanted), rtol=1e-5)


def test_a_photo_alone_is_one_line(folder, expected, monkeypatch):
    monkeypatch.chdir(folder)
    lines = succeed("predict", "run", "data/testing/cold/003.png").splitlines()
    values = expected["cold/003.png"]
    first = ("cold", "warm")[values.argmax()]
    assert lines[-1].startswith(f"data/testing/cold/003.png  {first} {100 * values.max():.1f} %")
    assert len(lines) == 3


def test_a_classifier_computes_in_the_precision_of_its_run(folder, tmp_path):
    checkpoint = Path(shutil.copytree(folder / "run" / "model_checkpoints" / "model_checkpoint_2", tmp_path / "saved"))
    progress = json.loads((checkpoint / "progress.json").read_text())
    before = keras.config.dtype_policy().name
    for precision, dtype in (("mixed_bfloat16", "bfloat16"), ("auto", "float32")):  # auto: as old records lack it
        progress["config"]["precision"] = precision
        (checkpoint / "progress.json").write_text(json.dumps(progress))
        assert load_classifier(checkpoint).model.layers[1].compute_dtype == dtype
        assert keras.config.dtype_policy().name == before


def test_outputs_that_are_logarithms_or_not_finite(tmp_path):
    write_images(tmp_path / "photos", {"a": 3})
    steps = split_steps(((0, Transform.model_validate({"resize": [8, 8]})),), DecodeOptions())
    probabilities = np.array([0.25, 0.5, 0.25], np.float32)

    def model(inputs, training):
        assert not training
        return tf.math.log(probabilities) + tf.zeros([tf.shape(inputs)[0], 1])

    classifier = Classifier(tmp_path, ("x", "y", "z"), model, True, steps, batch_size=2)
    found = classify_photos(classifier, [list_images(tmp_path / "photos")])
    np.testing.assert_allclose(found.probabilities, [probabilities] * 3, rtol=1e-6)
    assert found.table()[1][1:] == ["y 50.0 %", "x 25.0 %", "z 25.0 %"]  # of equal ones, the first comes first
    assert found.counts() == "3 photos: y (3), x (0), z (0)"


def test_the_classes_of_no_photo_are_named_or_counted():
    few = PhotoClasses(("cat", "dog", "rare"), ("a", "b"), np.eye(3)[[1, 1]], {})
    assert few.counts() == "2 photos: dog (2), cat (0), rare (0)"
    many = PhotoClasses(tuple(map(str, range(21))), ("a",), np.eye(21)[[4]], {})
    assert many.counts() == "1 photo: 4 (1), none of 20 other classes"
