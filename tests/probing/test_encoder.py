"""Encoders of all kinds of files: found, built with their last addition, filled whole or refused."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import write_config, write_images, write_training_and_testing

from tfinpaint.checkpoint.find import run_folder_of
from tfinpaint.checkpoint.header import Header, InputSpec, RankState, SavedProgress
from tfinpaint.checkpoint.store import TrainingState, save_checkpoint
from tfinpaint.config.transforms import Transform
from tfinpaint.data.listing.listing import list_images
from tfinpaint.errors import UserError
from tfinpaint.models.decoder import build_inpainter
from tfinpaint.models.encoder import build_encoder
from tfinpaint.pretrain import main as pretrain
from tfinpaint.probing.encoder import IMAGENET, load_encoder, resized
from tfinpaint.probing.features import input_batches


def filled(model: keras.Model, seed: int = 0) -> keras.Model:
    """The model with weights that no initialiser makes, statistics included."""
    generator = np.random.default_rng(seed)
    model.set_weights([generator.uniform(0.01, 0.03, w.shape).astype(np.float32) for w in model.get_weights()])
    return model


def write_checkpoint(folder: Path, encoder: str, output: str, best: int | None = None, **changes) -> keras.Model:
    """A context encoder as checkpoint `model_checkpoint_<epoch>`; returns the encoder."""
    fields = {"kind": "inpainter", "epoch": 1, "encoder": encoder, "encoder_output": output, "height": 32, "width": 32}
    header = Header(
        **{**fields, "step": 10 * changes.get("epoch", 1), "batch_size": 8, "steps_per_epoch": 10, **changes}
    )
    shape = header.height, header.width, header.channels
    inner = filled(build_encoder(encoder, output, *shape, stem=header.stem), header.epoch)
    model = build_inpainter(inner, 3)
    optimizer = keras.optimizers.SGD()
    optimizer.build([])
    ranks = RankState(np.zeros((1, 0)), np.zeros((1, 0, 0)), np.zeros((1, 0), np.int64))
    save_checkpoint(folder, header, SavedProgress(best_epoch=best), ranks, TrainingState(model, optimizer, inner), None)
    return inner


@pytest.fixture(scope="module")
def resnet50() -> keras.Model:
    return filled(keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3)))


def equal_weights(a: keras.Model, b: keras.Model) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


@pytest.mark.stress
@pytest.mark.parametrize("name", ["r.weights.h5", "r.keras", "r.h5"])
def test_every_format_of_a_resnet50_of_keras_loads(tmp_path, resnet50, name):
    path = tmp_path / name
    resnet50.save_weights(path) if "weights" in name else resnet50.save(path)
    source = load_encoder(path, (32, 32))
    assert equal_weights(source.model, resnet50)
    assert (source.encoder, source.shape, source.is_keras, source.run) == ("resnet50", (32, 32, 3), True, None)
    assert "add --imagenet" in source.notes[0]


@pytest.mark.stress
def test_a_checkpoint_that_ends_before_the_addition_gives_the_encoder_beyond_it(tmp_path, resnet50):
    inner = write_checkpoint(tmp_path, "resnet50", "before_add")
    source = load_encoder(tmp_path / "model_checkpoint_1")
    resnet50.set_weights(inner.get_weights())  # the last block's shortcut has no weights
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    np.testing.assert_allclose(source.model(images), resnet50(images), rtol=1e-5)
    assert source.model.output_names == ["conv5_block3_out"]
    assert (source.model(images).numpy() >= 0).all()


def test_weights_that_were_not_trained_are_refused(tmp_path):
    write_checkpoint(tmp_path, "tiny", "before_add")
    with pytest.raises(UserError, match="the layers conv5_block1_0_conv, conv5_block1_0_bn are missing, which lead ar"):
        load_encoder(tmp_path)
    write_checkpoint(tmp_path / "after", "tiny", "after_relu")
    assert load_encoder(tmp_path / "after").model.output_names == ["conv5_block1_out"]
    file = tmp_path / "after" / "model_checkpoint_1" / "encoder.weights.h5"
    assert load_encoder(file, (64, 64)).shape == (64, 64, 3)


def test_a_checkpoint_has_the_encoder_and_stem_of_its_header(tmp_path):
    inner = write_checkpoint(tmp_path, "tiny", "after_relu", stem="small", height=16, width=24)
    source = load_encoder(tmp_path)
    assert (source.encoder, source.stem, source.shape) == ("tiny", "small", (16, 24, 3))
    assert equal_weights(source.model, inner)
    file = (tmp_path / "model_checkpoint_1" / "encoder.weights.h5").rename(tmp_path / "e.weights.h5")
    with pytest.raises(UserError, match=r"images of 4 x 4 pixels: the encoder needs at least 8 x 8"):
        load_encoder(file, (4, 4))


@pytest.mark.stress
def test_another_network_is_refused(tmp_path, resnet50):
    layers = [keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 7, name="conv1_conv"), keras.layers.Dense(2)]
    keras.Sequential(layers).save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(UserError, match=r"other.weights.h5: not the weights of ResNet50: no layer can be transferred"):
        load_encoder(tmp_path / "other.weights.h5", (32, 32))
    shallow = keras.Model(resnet50.input, resnet50.get_layer("conv4_block2_out").output)
    shallow.save_weights(tmp_path / "part.weights.h5")
    with pytest.raises(
        UserError, match=r"part.weights.h5: not the weights of ResNet50: layer conv4_block3_1_conv is m"
    ):
        load_encoder(tmp_path / "part.weights.h5", (32, 32))


def test_a_file_of_keras_needs_a_size(tmp_path):
    build_encoder("tiny", "after_relu", 32, 32).save_weights(tmp_path / "r.weights.h5")
    with pytest.raises(UserError, match="does not hold the size of its images; give --size"):
        load_encoder(tmp_path / "r.weights.h5")


def test_imagenet_inputs_are_those_of_keras(tmp_path):
    preprocessing, pictures = resized((32, 32, 3), IMAGENET)
    listing = list_images(write_images(tmp_path / "images", {"a": 2}, size=(32, 32)))
    pixels = np.concatenate([batch.numpy() for batch in input_batches(listing, pictures)]) * 255
    wanted = keras.applications.resnet.preprocess_input(pixels.copy())
    found = np.concatenate([batch.numpy() for batch in input_batches(listing, preprocessing)])
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.stress
def test_images_are_prepared_as_in_the_run_without_masks_and_chance(tmp_path):
    data = write_training_and_testing(tmp_path)
    steps = [{"resize": [40, 36]}, {"center_crop": [32, 32]}, {"random_horizontal_flip": 1.0}]
    changes = {
        "data__transforms": [*steps, {"random_patches": {"number": 2, "size": 8}}],
        "data__input_transforms": [{"normalize": {"mean": 0.5, "std": 0.25}}],
        "model__encoder_output": "after_relu",
        "num_epochs": 1,
        "data__test_input_path": None,
    }
    assert (
        pretrain(["--config", str(write_config(tmp_path / "c.yaml", "pretrain", data, encoder="tiny", **changes))]) == 0
    )
    source = load_encoder(tmp_path / "run")
    assert source.run == tmp_path / "run"
    assert run_folder_of(tmp_path / "run" / "model_checkpoints" / "model_checkpoint_1") == tmp_path / "run"
    assert [step.kind for step in source.preprocessing.decoding.steps] == ["resize", "center_crop"]
    assert [step.kind for _, step in source.preprocessing.per_batch] == ["normalize"]
    assert (source.pictures.decoding, source.pictures.per_batch) == (source.preprocessing.decoding, ())
    alone = load_encoder(tmp_path / "run" / "model_checkpoints" / "model_checkpoint_1" / "encoder.weights.h5")
    assert alone.preprocessing == source.preprocessing
    assert equal_weights(alone.model, source.model)
    with pytest.raises(UserError, match=r"--size: .* was trained on images of 32 x 32 pixels"):
        load_encoder(tmp_path / "run", (64, 64))
    assert load_encoder(tmp_path / "run", (64, 64), required=False).shape == (32, 32, 3)


def test_a_weight_file_alone_has_its_size_and_its_inputs(tmp_path):
    steps = (Transform.model_validate({"normalize": {"mean": 0.5}}),)
    restoration = InputSpec(fill="mean", input_transforms=steps)
    write_checkpoint(tmp_path, "tiny", "after_relu", height=64, width=32, restoration=restoration)
    file = (tmp_path / "model_checkpoint_1" / "encoder.weights.h5").rename(tmp_path / "e.weights.h5")
    source = load_encoder(file)
    assert source.shape == (64, 32, 3)
    assert [step.kind for step in source.preprocessing.decoding.steps] == ["resize"]
    assert [step for _, step in source.preprocessing.per_batch] == list(steps)
    assert json.dumps(source.notes) == "[]"
