"""The commands probe and features as a user runs them, on a tiny encoder, and one line for each wrong input."""

import json

import keras
import numpy as np
import pytest
from commandline import refuse, succeed
from conftest import write_config, write_images

from tfinpaint.models.encoder import build_encoder
from tfinpaint.probing import baselines, classifiers, evaluation, features

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A pretrained tiny encoder, and images in four classes, one of which has three images."""
    folder = tmp_path_factory.mktemp("probe")
    write_images(folder / "images", {"cold": 24, "warm": 24, "cool": 18, "rare": 3}, size=(32, 32))
    write_images(folder / "data" / "training", {"cold": 12, "warm": 12})
    changes = {"model__encoder_output": "after_relu", "num_epochs": 1, "data__test_input_path": None}
    config = write_config(folder / "c.yaml", "pretrain", folder / "data", encoder="tiny", **changes)
    succeed("pretrain", "--config", config)
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Fewer fits: their number is that of the tests of the classifiers."""
    monkeypatch.setattr(classifiers, "STRENGTHS", (0.01, 1.0))
    monkeypatch.setattr(evaluation, "SELECTION_STRENGTHS", (0.1,))
    monkeypatch.setattr(baselines, "INITIALISATIONS", 1)


@pytest.mark.usefixtures("quick")
def test_a_probe_says_and_writes_what_it_has_found(run):
    shown = succeed("probe", run / "run", "--data", run / "images", "--shares", "10", "100", "--repeats", "2")
    found = json.loads((run / "run" / "probe" / "probe.json").read_text())
    name = str(run / "run")
    assert f"Stage 5 of {name}: " in found["sentences"][0]
    assert found["sentences"][0] in shown
    assert "at 10 % of the labels (6), " in found["sentences"][0]
    assert "Logistic regression: test accuracy at each share of the labels" in shown
    assert [(row["features"], row["stage"], row["size"]) for row in found["rows"]] == [
        *((name, f"stage {stage}", size) for stage, size in ((2, 16), (3, 32), (4, 64), (5, 128))),
        (name, "stages 2 to 5", 240),
        *(("random encoder", f"stage {stage}", size) for stage, size in ((2, 16), (3, 32), (4, 64), (5, 128))),
        ("random encoder", "stages 2 to 5", 240),
        ("raw pixels", None, 32 * 32 * 3),
        ("HOG", None, 1764),
    ]
    for row in found["rows"]:
        assert [(score["share"], score["labels"], len(score["draws"])) for score in row["scores"]] == [
            (0.1, 6, 2),
            (1.0, 54, 1),
        ]
        assert row["scores"][0]["accuracy"] == pytest.approx(np.mean(row["scores"][0]["draws"]))
        assert row["scores"][0]["deviation"] == pytest.approx(np.std(row["scores"][0]["draws"], ddof=1))
    assert all(
        row["detail"].startswith("initialisation ") for row in found["rows"] if row["features"] == "random encoder"
    )
    assert found["images"] == {"train": [19, 14, 2, 20], "test": [5, 4, 1, 4]} or found["images"]["test"] == [
        5,
        4,
        1,
        5,
    ]
    assert "rare (1)" in found["sentences"][-2]
    assert found["sentences"][-1] == "No test image is a near-duplicate of a training image."
    last = found["stage5"]
    assert [each["images"] for each in last["classes"]] == found["images"]["test"]
    assert 0 <= last["calibration"]["expected_calibration_error"] <= 1
    page = (run / "run" / "probe" / "report.html").read_text()
    for heading in ("Result", "Calibration", "Nearest training images", "Map of the test images", "recall"):
        assert heading in page
    drawn = {path.name for path in (run / "run" / "probe").iterdir()}
    assert {"probe.png", "confusion.png", "reliability.png", "neighbours.png", "map.png"} <= drawn


@pytest.mark.stress
@pytest.mark.usefixtures("quick")
def test_more_weights_are_more_rows(run, tmp_path):
    checkpoint = run / "run" / "model_checkpoints" / "model_checkpoint_1"
    shown = succeed(
        "probe", run / "run", "--data", run / "images", "--shares", "100", "--compare", checkpoint,
        "--output", tmp_path / "out",
    )  # fmt: skip
    found = json.loads((tmp_path / "out" / "probe.json").read_text())
    rows = {(row["features"], row["stage"]): row["scores"] for row in found["rows"]}
    assert rows[str(checkpoint), "stage 5"] == rows[str(run / "run"), "stage 5"]  # the same weights
    assert f"Report (open it in a browser): {tmp_path}/out/report.html" in shown


def test_what_cannot_be_probed_is_refused_in_a_line(run, tmp_path, monkeypatch):
    images, weights = run / "images", run / "run"
    for arguments, expected in [
        ((weights, "--data", images, "--shares", "0"), "0: expected a percentage above 0, at most 100"),
        ((weights, "--data", images, "--repeats", "0"), "0: expected a whole number, 1 to 100"),
        ((weights, "--data", images, "--size", "20"), "20: expected a whole number, 32 to 8192"),
        ((weights, "--data", images, "--size", "64"), "was trained on images of 32 x 32 pixels"),
        ((weights, "--data", images, "--imagenet"), "--imagenet: is for weight files that Keras has saved"),
        ((weights, "--data", images, "--compare", weights), "--compare: names an encoder twice"),
        ((weights, "--data", images, "--output", images / "probe"), "among the images; name another folder"),
        ((weights, "--data", images, "--output", run / "c.yaml"), "c.yaml: is a file; name a folder"),
        ((weights, "--data", tmp_path / "nothing"), "nothing"),
        ((tmp_path / "nothing", "--data", images), "no such checkpoint"),
        ((run / "c.yaml", "--data", images), "not a checkpoint of tfinpaint"),
    ]:
        error = refuse("probe", *arguments)
        assert expected in error
        assert error.count("\n") == 1
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setattr("os._exit", lambda code: None)
    assert "tfinpaint probe runs in one process, and a launcher has started 2" in refuse(
        "probe", weights, "--data", images
    )


def test_wrong_folders_are_refused_before_tensorflow_is_loaded(run, tmp_path, monkeypatch):
    for module in ("tfinpaint.features", "tfinpaint.interface.probing", "tfinpaint.export"):
        monkeypatch.setattr(f"{module}.start_single_rank", lambda settings: pytest.fail("TensorFlow was loaded"))
    weights, nowhere, out = run / "run", tmp_path / "nowhere", ("--output", tmp_path / "f.npz")
    assert "nowhere: no such file or folder" in refuse("probe", weights, "--data", nowhere)
    assert "a classifier needs at least two class folders" in refuse(
        "probe", weights, "--data", run / "images" / "cold"
    )
    assert "nowhere: no such file or folder" in refuse("probe", weights, "--data", run / "images", "--test", nowhere)
    assert "nowhere: no such file or folder" in refuse("features", weights, nowhere, *out)
    assert "no such checkpoint" in refuse("export", nowhere, "--format", "keras", "--output", tmp_path / "new")


def test_features_are_written_for_other_programs(run, tmp_path):
    shown = succeed("features", run / "run", run / "images", "--output", tmp_path / "f.npz")
    assert (
        "Features of 69 images with labels of 4 classes (stage 2: 16, stage 3: 32, stage 4: 64, stage 5: 128" in shown
    )
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        assert found["stage5"].shape == (69, 128)
        assert found["names"][0] == "cold/000.png"
        assert found["classes"].tolist() == ["cold", "cool", "rare", "warm"]
        model = build_encoder("tiny", "after_relu", 32, 32)
        file = run / "run" / "model_checkpoints" / "model_checkpoint_1" / "encoder.weights.h5"
        model.load_weights(file)
        pixels = keras.utils.img_to_array(keras.utils.load_img(run / "images" / "cold" / "000.png")) / 255
        expected = model(pixels[None]).numpy().mean(axis=(1, 2))[0]
        np.testing.assert_allclose(found["stage5"][0], expected, rtol=1e-4, atol=1e-6)
    succeed("features", run / "run", run / "images" / "cold", "--output", tmp_path / "f.csv")
    assert (tmp_path / "f.csv").read_text().startswith("name,stage2_0,")


def test_features_leave_out_an_image_that_cannot_be_read(run, tmp_path):
    photos = write_images(tmp_path / "photos", {"cold": 3, "warm": 3}, size=(32, 32))
    (photos / "warm" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    shown = succeed("features", run / "run", photos, "--output", tmp_path / "f.npz")
    assert f"Unreadable, excluded: {photos}/warm/broken.jpg: " in shown
    assert "photos: 6 images in 2 classes, 1 unreadable" in shown
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        assert found["names"].tolist() == [f"{name}/00{place}.png" for name in ("cold", "warm") for place in range(3)]
        assert found["labels"].tolist() == [0, 0, 0, 1, 1, 1]


def test_what_cannot_be_written_is_refused_before_anything_is_computed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "extract_features", lambda *_: pytest.fail("features were computed"))
    assert "expected a name that ends in" in refuse("features", run / "run", run / "images", "--output", "f.txt")
    (tmp_path / "file").write_text("")
    error = refuse("features", run / "run", run / "images", "--output", tmp_path / "file" / "f.npz")
    assert f"--output {tmp_path}/file/f.npz: cannot be written: " in error
    error = refuse("probe", run / "run", "--data", run / "images", "--output", tmp_path / "file" / "probe")
    assert f"--output {tmp_path}/file/probe: cannot be written: Not a directory" in error
