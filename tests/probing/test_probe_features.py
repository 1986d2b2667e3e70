"""Features: what the encoder computes in inference, averaged over positions, in the order of the images."""

import keras
import numpy as np
import pytest
from conftest import write_images

from tfinpaint.config.encoders import ARCHITECTURES
from tfinpaint.config.transforms import Transform
from tfinpaint.data.examples import split_steps
from tfinpaint.data.images.decode import DecodeOptions, read_image
from tfinpaint.data.listing.listing import list_images
from tfinpaint.errors import UserError
from tfinpaint.models.encoder import build_encoder
from tfinpaint.probing import features as features_module
from tfinpaint.probing.features import concatenated, extract_features

RESIZE = Transform.model_validate({"resize": [64, 32]})
PREPROCESSING = split_steps(((0, RESIZE),), DecodeOptions())


@pytest.fixture
def listing(tmp_path):
    return list_images(write_images(tmp_path / "images", {"a": 5, "b": 4}))


def test_features_are_the_outputs_of_keras_averaged_by_hand(listing, monkeypatch):
    monkeypatch.setattr(features_module, "BATCH", 4)  # the last batch is smaller
    keras.utils.set_random_seed(0)
    model = build_encoder("tiny", "after_relu", 32, 64)
    model.set_weights([w + 0.1 for w in model.get_weights()])  # statistics too, which training would not use
    found = extract_features(listing, PREPROCESSING, {"x": ("tiny", model)})["x"]
    pixels = np.stack([read_image(listing.open(i), PREPROCESSING.decoding) for i in range(9)]).astype(np.float32) / 255
    assert list(found) == [2, 3, 4, 5]
    for stage, values in found.items():
        part = keras.Model(model.input, model.get_layer(f"conv{stage}_block1_out").output)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, part.predict(pixels, verbose=0).mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)
    whole = concatenated(found)
    assert whole.shape == (9, 16 + 32 + 64 + 128)
    np.testing.assert_array_equal(whole[:, -128:], found[5])


@pytest.mark.parametrize("stages", [[3, 5], pytest.param([5], marks=pytest.mark.stress)])
def test_only_the_stages_that_are_asked_for_are_computed(listing, stages, monkeypatch):
    monkeypatch.setattr(features_module, "BATCH", 4)  # the last batch is smaller
    model = build_encoder("tiny", "after_relu", 32, 64)
    every = extract_features(listing, PREPROCESSING, {"x": ("tiny", model)})["x"]
    some = extract_features(listing, PREPROCESSING, {"x": ("tiny", model)}, stages[::-1])["x"]
    assert list(some) == stages
    for stage, values in some.items():
        np.testing.assert_allclose(values, every[stage], rtol=1e-6)


@pytest.mark.stress
def test_stages_end_where_the_next_one_begins():
    model = build_encoder("resnet50", "after_relu", 64, 64)
    shapes = [model.get_layer(name).output.shape[1:] for name in ARCHITECTURES["resnet50"].stages.values()]
    assert shapes == [(16, 16, 256), (8, 8, 512), (4, 4, 1024), (2, 2, 2048)]
    assert model.output_names == [ARCHITECTURES["resnet50"].stages[5]]


@pytest.mark.stress
def test_several_encoders_share_one_pass(listing):
    models = {}
    for name in ("a", "b"):
        keras.utils.set_random_seed(len(models))
        models[name] = "tiny", build_encoder("tiny", "after_relu", 32, 64)
    both = extract_features(listing, PREPROCESSING, models)
    alone = extract_features(listing, PREPROCESSING, {"b": models["b"]})
    np.testing.assert_array_equal(both["b"][5], alone["b"][5])
    assert not np.array_equal(both["a"][5], both["b"][5])


def test_features_that_are_not_finite_are_refused(listing):
    model = build_encoder("tiny", "after_relu", 32, 64)
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    with pytest.raises(UserError, match="x: its features are not finite"):
        extract_features(listing, PREPROCESSING, {"x": ("tiny", model)})


def test_an_image_that_disappears_is_named(listing):
    (listing.root / "a" / "002.png").unlink()
    model = build_encoder("tiny", "after_relu", 32, 64)
    with pytest.raises(UserError, match=r"002.png: became unreadable after the initial check: missing"):
        extract_features(listing, PREPROCESSING, {"x": ("tiny", model)})
