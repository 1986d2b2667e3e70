"""A run that meets NaN or Inf saves the batch, and `replay` finds where in the network they first occur."""

import re
from pathlib import Path

import numpy as np
import pytest
from commandline import refuse, succeed
from conftest import write_config
from PIL import Image

from tfinpaint.errors import UserError
from tfinpaint.runs.nonfinite import NonfiniteKeeper, find_nonfinite_batch, load_nonfinite_batch

pytestmark = pytest.mark.usefixtures("undrawn_figures")

# Black stays 0; white is divided until it is beyond float32.
OVERFLOWING = [{"normalize": {"mean": 0.0, "std": 1e-30}}, {"normalize": {"mean": 0.0, "std": 1e-10}}]


def read_no_inputs(examples):
    raise UserError(f"examples {examples} are gone")


def blacken(images):
    for path in (images / "training").rglob("*.png"):
        Image.new("RGB", (20, 24)).save(path)


def whiten(path):
    Image.new("RGB", (20, 24), (255, 255, 255)).save(path)


@pytest.mark.parametrize("task", [pytest.param("pretrain", marks=pytest.mark.stress), "classify"])
def test_a_nonfinite_batch_is_saved_and_its_image_is_found(images, tmp_path, task):
    changes = {"num_epochs": 1, "data__input_transforms": OVERFLOWING}
    config = write_config(tmp_path / "c.yaml", task, images, **changes)
    blacken(images)
    white = images / "training" / "warm" / "003.png"
    whiten(white)
    folder = tmp_path / "run"
    error = refuse(task, "--config", config)
    (kept,) = (folder / "nonfinite_batches").iterdir()
    assert f"Examine {kept} with tfinpaint replay." in error
    found = load_nonfinite_batch(kept)
    assert kept.name == f"{found.where.replace(', ', '_').replace(' ', '_')}_rank_0.npz"
    assert (len(found.images), found.images.count(str(white))) == (8, 1)
    assert np.isinf(found.batch["inputs"]).any(axis=(1, 2, 3)).tolist() == [name == str(white) for name in found.images]
    lines = succeed("replay", "--workdir", folder).splitlines()
    assert lines[0].startswith(f"{found.where}: 8 images, with the weights that a run starts with")
    assert lines[1:3] == [f"inputs: not finite in 1 of 8 images: {white}", "targets: finite"]
    assert lines[3].startswith("outputs: not finite in 8 of 8 images: ")  # batch norm
    assert lines[4].startswith("reconstruction_loss: not finite in 8 of 8")
    assert re.search(r"first: conv2d_\d+, batchnormalization_\d+, relu_\d+, ", lines[5])
    assert lines[6].startswith("gradients, from the output backwards: not finite in ")
    if task == "classify":
        arrays = {"inputs": np.zeros((1, 16, 16, 1), np.float32), "targets": np.zeros(1, np.int32)}
        facts = {"images": np.array(["a"]), "where": np.str_("epoch 1, step 2"), "loss": np.float64("nan")}
        np.savez(tmp_path / "other.npz", **arrays, **facts)
        np.savez(tmp_path / "partial.npz", inputs=found.batch["inputs"][:1], **facts)
        for name in ("other", "partial"):
            error = refuse("replay", "--workdir", folder, "--batch", tmp_path / f"{name}.npz")
            assert f"{name}.npz: is no batch of this run, whose network takes images of any x any x 3 and" in error
        return
    # With a checkpoint its weights are taken, and the run starts again without the saved batch.
    blacken(images)
    succeed(task, "--config", config, "--overwrite")
    assert not (folder / "nonfinite_batches").exists()
    whiten(white)
    refuse(task, "--config", config, "--resume", "--set", "num_epochs=2")
    lines = succeed("replay", "--workdir", folder).splitlines()
    assert lines[0].startswith("epoch 2, step ")
    assert "with the weights of model_checkpoint_1;" in lines[0]
    assert lines[1] == f"inputs: not finite in 1 of 8 images: {white}"
    shape = (2, 32, 32, 3)  # and a batch that is finite with these weights
    arrays = {"inputs": np.zeros(shape, np.float32), "targets": np.zeros(shape, np.float32)}
    facts = {"images": np.array(["a", "b"]), "where": np.str_("epoch 1, step 2"), "loss": np.float64("nan")}
    np.savez(tmp_path / "x.npz", **arrays, **facts, mask=np.ones((2, 32, 32, 1), np.float32))
    checkpoint = folder / "model_checkpoints" / "model_checkpoint_1"
    found = succeed("replay", "--workdir", folder, "--batch", tmp_path / "x.npz", "--checkpoint", checkpoint)
    first, *_, last = found.splitlines()
    assert first == "epoch 1, step 2: 2 images, with the weights of model_checkpoint_1; the run's loss was nan"
    assert last.startswith("All values are finite with these weights")


def test_other_folders_and_files_are_refused(tmp_path):
    assert f"{tmp_path}: not a run folder" in refuse("replay", "--workdir", tmp_path)
    with pytest.raises(UserError, match="there is no batch"):
        find_nonfinite_batch(tmp_path)
    for name, contents, words in (
        ("text", b"text", "damaged or not an .npz file"),
        ("none", None, "there is no such file"),
    ):
        if contents:
            (tmp_path / name).write_bytes(contents)
        with pytest.raises(UserError, match=f"{name}: {words}"):
            load_nonfinite_batch(tmp_path / name)
    np.savez_compressed(tmp_path / "bomb.npz", inputs=np.zeros(10**6), images=np.array(["a"]))
    with pytest.raises(UserError, match=r"bomb.npz: inputs.npy is compressed"):
        load_nonfinite_batch(tmp_path / "bomb.npz")
    np.savez(tmp_path / "odd.npz", inputs=np.zeros(3), images=np.array(["a"]), where=np.str_("x"), loss=np.float64(1))
    with pytest.raises(UserError, match="not the tensors of a batch"):
        load_nonfinite_batch(tmp_path / "odd.npz")


def test_one_batch_of_a_rank_is_kept(tmp_path, listing_of_one):
    batch = {"inputs": np.zeros((1, 2)), "examples": np.array([0])}
    for rank, step in ((0, 1), (1, 1), (0, 2)):
        NonfiniteKeeper(tmp_path, rank, listing_of_one, read_no_inputs)(batch, 1.0, f"epoch 1, step {step}")
    assert sorted(path.name for path in (tmp_path / "nonfinite_batches").iterdir()) == [
        "epoch_1_step_1_rank_1.npz", "epoch_1_step_2_rank_0.npz",
    ]  # fmt: skip
    assert find_nonfinite_batch(tmp_path).name == "epoch_1_step_2_rank_0.npz"
    (tmp_path / "file").write_text("")
    assert NonfiniteKeeper(tmp_path / "file", 0, listing_of_one, read_no_inputs)(batch, 1.0, "epoch 1, step 1") is None


def test_a_batch_of_features_is_kept_with_the_images_they_were_made_of(tmp_path, listing_of_one, caplog):
    batch = {"features": np.zeros((1, 2)), "targets": np.zeros(1), "examples": np.array([0])}
    read = NonfiniteKeeper(tmp_path, 0, listing_of_one, lambda examples: np.full((len(examples), 4, 4, 3), 0.5))
    kept = load_nonfinite_batch(Path(read(batch, 1.0, "epoch 1, step 1"))).batch
    assert kept.keys() == {"inputs", "targets", "examples"}
    assert np.array_equal(kept["inputs"], np.full((1, 4, 4, 3), 0.5))
    assert NonfiniteKeeper(tmp_path, 0, listing_of_one, read_no_inputs)(batch, 1.0, "epoch 1, step 1") is None
    assert "the batch cannot be kept: examples [0] are gone" in caplog.text


def test_a_kept_batch_that_is_damaged_is_refused_wherever_that_is(tmp_path, listing_of_one):
    batch = {"inputs": np.zeros((1, 4, 4, 3)), "targets": np.ones((1, 4, 4, 3)), "examples": np.array([0])}
    path = Path(NonfiniteKeeper(tmp_path, 0, listing_of_one, read_no_inputs)(batch, 1.0, "epoch 1, step 1"))
    assert np.array_equal(load_nonfinite_batch(path).batch["targets"], batch["targets"])
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            load_nonfinite_batch(path)  # what is hit may be of no account, such as a member's time
        except UserError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017


@pytest.fixture
def listing_of_one(images):
    from tfinpaint.data.listing import listing

    return listing.list_images(images / "training")
