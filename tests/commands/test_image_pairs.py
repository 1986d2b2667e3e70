"""Training from images to other images, to masks of classes, and inference without targets."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from commandline import records, refuse, succeed, summary
from conftest import write_config
from network_files import conv, network
from PIL import Image

pytestmark = pytest.mark.usefixtures("undrawn_figures")


def negatives(images: Path, names: tuple[str, str] = ("training", "testing")) -> None:
    """Beside each of these folders, `<name>_targets` with the images' negatives."""
    for name in names:
        for path in sorted((images / name).rglob("*.png")):
            target = images / f"{name}_targets" / path.relative_to(images / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - np.asarray(Image.open(path))).save(target.with_suffix(".bmp"))


def test_image_to_image_learns_its_targets_and_writes_predictions(images, tmp_path):
    negatives(images)
    config = write_config(
        tmp_path / "c.yaml", "pretrain", images, num_epochs=20, loss={"function": "L1"},
        layers=network(tmp_path / "net.json", conv("conv1", 3, "sigmoid", kernel_size=[1, 1])),
        data__target_path=str(images / "training_targets"), data__test_target_path=str(images / "testing_targets"),
        data__test_output_path=str(tmp_path / "predictions"), data__transforms=[{"resize": [32, 32]}],
        optimizer={"type": "Adam", "learning_rate": 0.15}, figures_interval=100,
    )  # fmt: skip
    output = succeed("pretrain", "--config", config)
    assert f"images with targets of the same names in {images}/training_targets" in output
    first, last = (records(tmp_path / "run")[i]["loss"] for i in (1, -1))
    assert last < 0.05 < first  # a negative is sigmoid(-a x + b) but for its curve
    with h5py.File(tmp_path / "predictions" / "predictions.h5") as file:
        prediction = file["cold/000.png"][()]
        assert len(file["cold"]) + len(file["warm"]) == 7
    assert prediction.shape == (32, 32, 3)
    picture = np.asarray(Image.open(tmp_path / "predictions" / "cold" / "000.png"), np.float32)
    assert np.abs(picture - prediction * 255).max() <= 0.5
    assert (tmp_path / "run" / "figures" / "restorations.png").exists()
    (images / "training_targets" / "cold" / "003.bmp").unlink()
    assert "no image of the same name for 1 of" in refuse("pretrain", "--config", config, "--overwrite")


@pytest.mark.stress
def test_masks_of_classes_by_pixel(images, tmp_path):
    for name in ("training", "testing"):  # class 1 is where red is above 0.5, class 0 elsewhere
        for path in sorted((images / name).rglob("*.png")):
            red = np.asarray(Image.open(path))[..., 0]
            target = images / f"{name}_masks" / path.relative_to(images / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((red > 127).astype(np.uint8)).save(target)
    config = write_config(
        tmp_path / "c.yaml", "pretrain", images, num_epochs=20,
        loss={"function": "NLL", "weight": [1.0, 2.0]},
        layers=network(tmp_path / "net.json", conv("conv1", 2, "log_softmax", kernel_size=[1, 1])),
        data__target_path=str(images / "training_masks"), data__test_target_path=str(images / "testing_masks"),
        data__target_is_mask=True, data__transforms=[{"resize": [32, 32]}, {"random_rotate": 20.0}],
        data__test_output_path=str(tmp_path / "predictions"), optimizer={"type": "Adam", "learning_rate": 0.3},
    )  # fmt: skip
    succeed("pretrain", "--config", config)
    tested = [record for record in records(tmp_path / "run") if record["phase"] == "test"]
    assert tested[-1]["loss"] < 0.5 * tested[0]["loss"]
    assert tested[-1]["dice"] > 0.9
    assert summary(tmp_path / "run")["test_dice"] == tested[-1]["dice"]
    assert summary(tmp_path / "run")["test_pixel_accuracy"] == tested[-1]["accuracy"]
    assert (tmp_path / "run" / "figures" / "dice.png").exists()
    with h5py.File(tmp_path / "predictions" / "predictions.h5") as file:
        assert file["warm/000.png"].shape == (32, 32, 2)
    assert set(np.unique(Image.open(tmp_path / "predictions" / "warm" / "000.png"))) <= {0, 1}
    Image.fromarray(np.full((24, 20), 7, np.uint8)).save(images / "testing_masks" / "cold" / "000.png")
    assert "the value 7 is not a class; expected 0 to 1" in refuse("pretrain", "--config", config, "--overwrite")


@pytest.mark.stress
def test_inference_of_images_without_targets(images, tmp_path):
    config = write_config(
        tmp_path / "c.yaml", "pretrain", images, num_epochs=1, data__target_path=str(images / "training"),
        data__test_input_path=None, layers=network(tmp_path / "net.json", conv("conv1", 3, "sigmoid")),
        data__transforms=[{"resize": [32, 32]}],
    )  # fmt: skip
    succeed("pretrain", "--config", config)
    checkpoint = tmp_path / "run" / "model_checkpoints" / "model_checkpoint_1"
    changes = [
        "data.input_path=null", "data.target_path=null", f"data.test_input_path={images}/testing",
        f"checkpoints.load={checkpoint}", f"data.test_output_path={tmp_path}/out",
    ]  # fmt: skip
    words = [word for change in changes for word in ("--set", change)]
    succeed("pretrain", "--config", config, "--workdir", tmp_path / "infer", *words)
    assert records(tmp_path / "infer") == []
    assert len(list((tmp_path / "out").rglob("*.png"))) == 7
    assert "expected a folder model_checkpoint" in refuse(
        "pretrain",
        "--config",
        config,
        "--workdir",
        tmp_path / "infer2",
        *words,
        "--set",
        f"checkpoints.load={tmp_path}",
    )


def test_the_network_must_fit_the_images(images, tmp_path):
    changes = {"layers": network(tmp_path / "net.json", conv("conv1", 3, "sigmoid"), size=64)}
    error = refuse("pretrain", "--config", write_config(tmp_path / "c.yaml", "pretrain", images, **changes))
    assert "the network takes images of 64 x 64 x 3, the data gives 32 x 32 x 3" in error
    changes = {"layers": network(tmp_path / "net.json", conv("conv1", 1, "sigmoid"))}
    error = refuse("pretrain", "--config", write_config(tmp_path / "c.yaml", "pretrain", images, **changes))
    assert "the network makes images of 32 x 32 x 1, the targets are 32 x 32 x 3" in error
