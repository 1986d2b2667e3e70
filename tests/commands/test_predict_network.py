"""Which checkpoint restores a photo, what its network is given, and networks that cannot or hardly restore one."""

import json
import re
import shutil
from pathlib import Path

import commandline
import numpy as np
import pytest
from conftest import write_config
from PIL import Image
from restorations import SIZE, noise, pixels_of, refuse, succeed, write_checkpoint, write_mask

from tfinpaint.checkpoint import store
from tfinpaint.checkpoint.header import InputSpec
from tfinpaint.checkpoint.reader import read_header
from tfinpaint.config.transforms import Transform
from tfinpaint.data.images.decode import DecodeOptions, read_image
from tfinpaint.storage import safe_hdf5


@pytest.fixture
def scans(monkeypatch) -> list[str]:
    """A list that gets the name of each HDF5 file that is scanned."""
    found, scan = [], safe_hdf5._scan

    def counted(file, *arguments):
        found.append(Path(file.filename).name)
        return scan(file, *arguments)

    monkeypatch.setattr(safe_hdf5, "_scan", counted)
    return found


def test_a_photo_is_restored_beside_itself_by_the_newest_checkpoint(capsys, tmp_path, small_inpainter, scans):
    run = Path(shutil.copytree(small_inpainter, tmp_path / "run"))  # which no test has loaded before
    photo = noise(SIZE, SIZE)
    Image.fromarray(photo).save(tmp_path / "my photo.bmp")
    hole = write_mask(tmp_path / "mask.png", SIZE, SIZE, (8, 12, 24, 20))
    shown = succeed(capsys, run, tmp_path / "my photo.bmp", tmp_path / "mask.png")
    output = tmp_path / "my photo_restored.png"
    assert shown == (
        f"Using model_checkpoint_10, the newest of {run}\n"
        f"Restored 12.5 % of my photo.bmp (32 x 32) in 1 window: {output}\n"
    )
    assert scans == ["model.weights.h5"]
    restored = pixels_of(output)
    assert np.array_equal(restored[~hole], photo[~hole])
    model = write_checkpoint(tmp_path / "same_weights", 10)
    seen = np.where(hole[..., None], 0, photo / np.float32(255))[None]
    made = np.rint(255 * model(seen, training=False).numpy()[0])
    assert np.abs(restored.astype(int) - made)[hole].max() <= 1  # eager and compiled may round differently
    assert np.ptp(made[hole]) > 5  # and not one colour that any mistake would give
    kept = run / "model_checkpoints"
    for place in (kept, kept / "model_checkpoint_10", kept / "model_checkpoint_10" / "model.weights.h5"):
        succeed(capsys, place, tmp_path / "my photo.bmp", tmp_path / "mask.png", "--overwrite")
        assert np.array_equal(pixels_of(output), restored)
    succeed(capsys, kept / "model_checkpoint_2", tmp_path / "my photo.bmp", tmp_path / "mask.png", "--overwrite")
    assert not np.array_equal(pixels_of(output), restored)


@pytest.mark.parametrize(
    ("fill", "transforms", "channels"),
    [
        ("mean", [{"normalize": {"mean": 0.5, "std": 0.25}}], 3),
        *(
            pytest.param(*case, marks=pytest.mark.stress)
            for case in [("noise", [], 3), ("black", [{"grayscale": True}], 1)]
        ),
    ],
)
def test_the_network_sees_what_it_saw_in_training(capsys, tmp_path, fill, transforms, channels):
    steps = tuple(Transform.model_validate(step) for step in transforms)
    trained = InputSpec(fill=fill, input_transforms=steps)
    model = write_checkpoint(tmp_path, 1, channels, restoration=trained)
    photo = noise(SIZE, SIZE)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    hole = write_mask(tmp_path / "mask.png", SIZE, SIZE, (8, 8, 24, 24))
    succeed(capsys, tmp_path / "model_checkpoint_1", tmp_path / "photo.png", tmp_path / "mask.png")
    restored = pixels_of(tmp_path / "photo_restored.png").astype(int)
    scaled = photo / np.float32(255)
    filling = scaled[~hole].mean(axis=0) if fill == "mean" else 0
    seen = np.where(hole[..., None], filling, scaled)
    if transforms:
        seen = (seen - 0.5) / 0.25 if channels == 3 else seen @ np.array([[0.2989], [0.5870], [0.1140]])
    difference = np.abs(restored - np.rint(255 * model(seen[None].astype(np.float32), training=False).numpy()[0]))[hole]
    if fill == "noise":
        assert difference.max() > 1  # something else than black
        succeed(capsys, tmp_path, tmp_path / "photo.png", tmp_path / "mask.png", "--overwrite")
        assert np.array_equal(pixels_of(tmp_path / "photo_restored.png"), restored)  # and always the same
    else:
        assert difference.max() <= 1


def test_a_network_of_grey_images_makes_the_photo_grey_and_says_so(capsys, tmp_path):
    write_checkpoint(tmp_path / "grey", 1, 1, 1)
    Image.fromarray(noise(40, 50, 4)).save(tmp_path / "photo.png")
    hole = write_mask(tmp_path / "mask.png", 40, 50)
    shown = succeed(capsys, tmp_path / "grey", tmp_path / "photo.png", tmp_path / "mask.png")
    assert "The colours of photo.png are dropped: the model was trained on grey images\n" in shown
    with Image.open(tmp_path / "photo_restored.png") as image:
        assert image.mode == "LA"
        luma = read_image(tmp_path / "photo.png", DecodeOptions(channels=1))[..., 0]
        assert np.array_equal(np.asarray(image)[..., 0][~hole], luma[~hole])
    Image.fromarray(noise(40, 50, 1)).save(tmp_path / "grey.png")
    assert "dropped" not in succeed(capsys, tmp_path / "grey", tmp_path / "grey.png", tmp_path / "mask.png")


@pytest.mark.stress
def test_networks_that_do_not_restore_images(capsys, tmp_path):
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(noise(40, 50)).save(photo)
    write_mask(mask, 40, 50)
    write_checkpoint(tmp_path, 1, restoration=None)
    write_checkpoint(tmp_path, 2, kind="classifier", classes=("a", "b"), restoration=None)
    broken = write_checkpoint(tmp_path / "broken", 3)
    one, two = tmp_path / "model_checkpoint_1", tmp_path / "model_checkpoint_2"
    for arguments in ((one, photo, mask), (one / "model.weights.h5", photo, mask)):
        assert "its model was not trained to restore photos: train one by tfinpaint pretrain" in refuse(
            capsys, *arguments
        )
    assert f"{two}/progress.json: does not have the configuration of the run; name" in refuse(capsys, two, photo, mask)
    three = tmp_path / "broken" / "model_checkpoint_3"
    broken.get_layer("decoder_layer_5").bias.assign([np.nan, 0, 0])
    store._write_weights(three / "model.weights.h5", broken, read_header(three))
    assert f"{three}: the model produced NaN or Inf" in refuse(capsys, three, photo, mask)
    assert not (tmp_path / "photo_restored.png").exists()


def test_a_network_below_the_baselines_of_its_run_is_warned_of(capsys, tmp_path, small_inpainter):
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(noise(40, 50)).save(photo)
    write_mask(mask, 40, 50)
    copy = Path(shutil.copytree(small_inpainter, tmp_path / "run"))
    (copy / "config.resolved.yaml").write_text("num_epochs: 10")
    newest = copy / "model_checkpoints" / "model_checkpoint_10"
    record = {"phase": "test", "loss": 0.5, "seconds": 1.0, "images_per_second": 9.0}
    scores = [{**record, "epoch": epoch, "hole_psnr_db": psnr} for epoch, psnr in ((2, 30.0), (10, 14.54))]
    (newest / "progress.json").write_text(json.dumps({"records": scores}))
    warning = (
        "Expect little of this network: it restored the held-out images of its run less well (PSNR in the hole 14.5 dB) "
        "than baselines that need no training (biharmonic 22.6, mean colour 15.0 dB); train it longer"
    )
    measured = {"network": 14.54, "mean_colour": 15.0, "biharmonic": 22.57, "nearest": 14.5}
    summary = {"measurements": {name: {"hole_psnr_db": value} for name, value in measured.items()}}
    assert "Expect" not in succeed(capsys, copy, photo, mask)  # the records do not tell
    (copy / "summary.json").write_text(json.dumps(summary))
    assert warning in succeed(capsys, copy, photo, mask, "--overwrite").splitlines()
    scores[1]["hole_psnr_db"] = 22.58
    (newest / "progress.json").write_text(json.dumps({"records": scores}))
    assert "Expect" not in succeed(capsys, copy, photo, mask, "--overwrite")


@pytest.mark.stress
def test_an_evaluation_at_another_size_names_both_shapes_and_scans_the_file_once(images, tmp_path, scans):
    write_checkpoint(tmp_path / "saved", kind="classifier", classes=("cold", "warm"))
    resize = [{"resize": [64, 96]}]
    config = write_config(tmp_path / "c.yaml", "classify", images, encoder="tiny", data__transforms=resize)
    load = ("--set", f"checkpoints.load={tmp_path / 'saved'}", "--set", "data.input_path=null")
    error = commandline.refuse("classify", "--config", config, *load)
    assert "the weights of layer dense_1 have the shapes [(128, 2), (2,)], the model needs [(768, 2), (2,)]: " in error
    assert "trained on images of 32 x 32 x 3, the data gives 96 x 64 x 3 (height x width x channels)" in error
    grey = ("--set", "data.transforms.0.resize=[32, 32]", "--set", "data.input_grayscale=true")
    error = commandline.refuse("classify", "--config", config, *load, *grey)
    assert re.search(r"layer conv1_conv have the shapes \[\(7, 7, 3, .*, the model needs \[\(7, 7, 1, ", error)
    assert "images of 32 x 32 x 3, the data gives 32 x 32 x 1" in error
    equal = ("--set", "data.transforms.0.resize=[32, 32]")
    scans.clear()
    assert "Transferred 33 layers by name, all of the model" in commandline.succeed(
        "classify", "--config", config, *load, *equal
    )
    assert scans == ["model.weights.h5"]
