"""Exports compute what the run does on images that it never saw, in programs that know nothing of this one."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from commandline import refuse, succeed
from conftest import write_untrained
from PIL import Image

from tfinpaint.exporting.card import USAGE


def photos(folder: Path) -> dict[str, np.ndarray]:
    paths = sorted((folder / "new").rglob("*.png"))
    assert len({Image.open(path).size for path in paths}) == 2
    return {str(path): np.asarray(Image.open(path).convert("RGB")) for path in paths}


@pytest.fixture(scope="module")
def predicted(small_classifier, tmp_path_factory) -> dict[str, list[float]]:
    """Path of an image that the run never saw -> its probabilities by `tfinpaint predict`."""
    file = tmp_path_factory.mktemp("predicted") / "p.json"
    succeed("predict", small_classifier / "run", small_classifier / "new", "--json", file)
    rows = json.loads(file.read_text())["images"]
    return {row["image"]: [row["probabilities"][name] for name in ("cold", "warm")] for row in rows}


@pytest.fixture(scope="module")
def exports(small_classifier, tmp_path_factory) -> dict[str, Path]:
    """Format -> the folder of its export, with a photo to use it on."""
    folder, made = tmp_path_factory.mktemp("exports"), {}
    for kind in ("keras", "savedmodel"):
        output = succeed("export", small_classifier / "run", "--format", kind, "--output", folder / kind)
        assert re.search(
            r"differ from those of the run by at most \d(e-0[5-9]|e-1\d)? on 10 photos \(images of", output
        )
        made[kind] = folder / kind
        shutil.copy(small_classifier / "new" / "warm" / "001.png", folder / kind / "photo.jpg")
    return made


def use(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Execute the lines that the page has for a format, in the folder of the export."""
    monkeypatch.chdir(folder)
    values: dict = {}
    exec(USAGE[kind], values)  # noqa: S102
    return values


def test_the_lines_of_each_format_stand_in_its_card(exports):
    for kind, folder in exports.items():
        assert f"```python\n{USAGE[kind]}\n```" in (folder / "MODEL_CARD.md").read_text()


def test_a_keras_export_computes_what_the_run_does(exports, small_classifier, predicted):
    model = keras.saving.load_model(exports["keras"] / "model.keras")
    for path, pixels in photos(small_classifier).items():
        np.testing.assert_allclose(model.predict(pixels[None], verbose=0)[0], predicted[path], atol=1e-4)
    assert json.loads((exports["keras"] / "classes.json").read_text()) == ["cold", "warm"]


def test_a_keras_export_loads_where_tfinpaint_is_not_installed(exports, small_classifier, predicted):
    program = f"import sys; sys.modules['tfinpaint'] = None\n{USAGE['keras']}\nprint(*probabilities)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=exports["keras"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [float(word) for word in done.stdout.split("\n")[-2].split()]
    np.testing.assert_allclose(found, predicted[str(small_classifier / "new" / "warm" / "001.png")], atol=1e-4)


def test_a_saved_model_serves_batches_with_names(exports, small_classifier, predicted, monkeypatch):
    values = use("savedmodel", exports["savedmodel"], monkeypatch)
    assert [name.decode() for name in values["found"]["classes"].numpy()] == ["cold", "warm"]
    served = values["served"]
    assert list(served.structured_input_signature[1]) == ["images"]
    by_size: dict = {}
    for path, pixels in photos(small_classifier).items():
        by_size.setdefault(pixels.shape, []).append((path, pixels))
    for group in by_size.values():
        found = served(images=tf.constant(np.stack([pixels for _, pixels in group])))["probabilities"]
        np.testing.assert_allclose(found, [predicted[path] for path, _ in group], atol=1e-4)


def test_the_images_of_a_project_that_was_moved_are_those_in_its_folder(small_classifier, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in ("run", "data"):
        shutil.copytree(small_classifier / part, f"moved/{part}")
    words = ("export", "moved/run", "--format", "keras", "--output")
    there = f"{small_classifier.name}/data/testing"  # as the run has recorded it
    assert f"{there}, two of them" in succeed(*words, "not_in_a_project")
    Path("moved/project.json").write_text("{}")
    assert "photos (images of moved/data/testing, two of them enlarged)" in succeed(*words, "exported")
    card = Path("exported/MODEL_CARD.md").read_text()
    assert "`moved/data/training`" in card
    assert "Tested on `moved/data/testing`" in card


@pytest.fixture(scope="module")
def pretraining(small_classifier, tmp_path_factory) -> Path:
    """The checkpoint of a pretraining with the encoder `tiny` and the data of the classifier."""
    folder = tmp_path_factory.mktemp("pretraining")
    checkpoint = write_untrained(folder / "model_checkpoints")
    transforms = [{"resize": [32, 32]}, {"center": {}}]
    values = {"transforms": transforms, "input_transforms": [{"normalize": {"mean": 0.5, "std": 0.25}}]}
    config = {"data": {"input_path": str(small_classifier / "data" / "training"), **values}}
    progress = json.loads((checkpoint / "progress.json").read_text())
    (checkpoint / "progress.json").write_text(json.dumps(progress | {"config": config}))
    return checkpoint


def test_an_encoder_is_a_part_of_other_networks(pretraining, small_classifier, tmp_path, monkeypatch):
    output = succeed("export", pretraining, "--format", "encoder", "--output", tmp_path / "exported")
    assert "photos (images of " in output
    values = use("encoder", tmp_path / "exported", monkeypatch)
    assert values["features"].shape == (None, 128)
    assert "normalize {'mean': 0.5, 'std': 0.25}" in Path("MODEL_CARD.md").read_text()

    progress = pretraining / "progress.json"
    progress.write_text(progress.read_text().replace(str(small_classifier / "data"), str(tmp_path / "gone")))
    output = succeed("export", pretraining, "--format", "encoder", "--output", tmp_path / "again")
    assert "photos (generated, because the images of the run are not there)" in output


def test_an_onnx_export_computes_what_the_run_does(small_classifier, predicted, tmp_path, monkeypatch):
    for library in ("tf2onnx", "onnx", "onnxruntime"):
        pytest.importorskip(library)
    output = tmp_path / "exported"
    succeed("export", small_classifier / "run", "--format", "onnx", "--output", output)
    shutil.copy(small_classifier / "new" / "warm" / "001.png", output / "photo.jpg")
    session = use("onnx", output, monkeypatch)["session"]
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["cold", "warm"]
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    for path, pixels in photos(small_classifier).items():
        (found,) = session.run(["probabilities"], {"images": pixels[None]})
        np.testing.assert_allclose(found[0], predicted[path], atol=1e-4)


def test_a_card_names_data_recipe_figures_and_limits(exports):
    card = (exports["keras"] / "MODEL_CARD.md").read_text()
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings == ["Use", "Data", "Recipe", "Figures", "Limits", "Licence"]
    assert "in this order (also in `classes.json`): cold, warm." in card
    assert re.search(r"^Accuracy \d\.\d{3} on 7 test images \(95 % interval", card, re.MULTILINE)
    assert "Trained on 24 images of" in card
    assert "| optimizer | Adam, learning rate 0.01 |" in card


def test_a_card_has_no_figures_of_a_summary_that_cannot_be_used(small_classifier, tmp_path):
    shutil.copytree(small_classifier / "run", tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary | {"test_mean_recall": "good"}))
    output = succeed("export", tmp_path / "run", "--format", "keras", "--output", tmp_path / "exported")
    path = tmp_path / "run" / "summary.json"
    line = f'{path}: test_mean_recall is "good", expected a number; MODEL_CARD.md has no figures of the run'
    assert output.count(line) == 1
    assert "No figures on test images are recorded" in (tmp_path / "exported" / "MODEL_CARD.md").read_text()


def test_an_export_measures_what_decoding_at_a_fraction_changes(small_classifier, tmp_path):
    """Photos of 390 x 371 pixels are decoded at 1/4 for 40 x 36; those of the run are too small for that."""
    assert "large JPEG files" not in succeed(
        "export", small_classifier / "run", "--format", "keras", "--output", tmp_path / "small"
    )
    shutil.copytree(small_classifier / "run", tmp_path / "run")
    generator = np.random.default_rng(0)
    for name in ("cold", "warm"):
        (tmp_path / "large" / name).mkdir(parents=True)
        for number in range(2):
            coarse = Image.fromarray(generator.integers(0, 256, (80, 90, 3), np.uint8))
            coarse.resize((390, 371)).save(tmp_path / "large" / name / f"{number}.jpg")
    (tmp_path / "large" / "warm" / "damaged.jpg").write_bytes(b"no photo")
    for progress in tmp_path.glob("run/**/progress.json"):
        text, data = progress.read_text(), small_classifier / "data"
        progress.write_text(text.replace(str(data / "testing"), str(tmp_path / "large")))
    output = succeed("export", tmp_path / "run", "--format", "keras", "--output", tmp_path / "exported")
    found = re.search(r"large JPEG files at a fraction .* differ by up to (\S+) \(4 images of (.*)\)", output)
    assert found
    assert found.group(2).endswith("large")
    assert 0 < float(found.group(1)) < 0.1
    assert found.group(0) in (tmp_path / "exported" / "MODEL_CARD.md").read_text()


def test_an_export_that_does_not_agree_is_not_kept(small_classifier, tmp_path, monkeypatch):
    from tfinpaint.exporting import run

    monkeypatch.setattr(run, "_probabilities", lambda classifier, inputs: np.full((len(inputs), 2), 0.5) - 0.3)
    error = refuse("export", small_classifier / "run", "--format", "keras", "--output", tmp_path / "out")
    assert "more than 0.0001" in error
    assert list(tmp_path.iterdir()) == []


def test_refusals(small_classifier, pretraining, tmp_path, monkeypatch):
    run, out = small_classifier / "run", tmp_path / "out"
    assert "expected keras, savedmodel, onnx or encoder" in refuse("export", run, "--format", "kers", "--output", out)
    twice = ("--format", "keras", "--output", out, "--output", tmp_path / "other")
    assert "--output: is given 2 times" in refuse("export", run, *twice)
    named = refuse("export", run, "--format", "keras", "--output", tmp_path / "model.keras")
    assert "is named like a file; expected a folder" in named
    out.mkdir()
    assert "is there already" in refuse("export", run, "--format", "keras", "--output", out)
    new = ("--output", tmp_path / "new")
    error = refuse("export", pretraining, "--format", "savedmodel", *new)
    assert "is a pretraining, which has no classes" in error
    assert "its format is encoder" in error
    assert "it is not known which of them are the encoder" in refuse("export", run, "--format", "encoder", *new)
    (tmp_path / "empty").mkdir()
    assert "not a checkpoint" in refuse("export", tmp_path / "empty", "--format", "keras", *new)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "not installed; install the extra onnx" in refuse("export", run, "--format", "onnx", *new)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setattr("os._exit", lambda code: None)
    for command in (("export", run, "--format", "keras", *new), ("evaluate", run, "--data", small_classifier / "new")):
        assert "runs in one process, and a launcher has started 2" in refuse(*command)
    assert not (tmp_path / "new").exists()
