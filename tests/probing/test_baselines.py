"""Baselines: pixels and gradients of the images as they are, and random encoders with both kinds of statistics."""

import numpy as np
import pytest
from conftest import write_images
from skimage.feature import hog

from tfinpaint.checkpoint.transfer import layer_weights
from tfinpaint.config.transforms import Transform
from tfinpaint.data.examples import split_steps
from tfinpaint.data.images.decode import DecodeOptions, read_image
from tfinpaint.data.listing.listing import list_images
from tfinpaint.models.encoder import build_encoder
from tfinpaint.probing import baselines
from tfinpaint.probing.baselines import pixels_and_gradients, random_encoders
from tfinpaint.probing.encoder import Source

SIZE = 64
PREPROCESSING = split_steps(((0, Transform.model_validate({"resize": [SIZE, SIZE]})),), DecodeOptions())


@pytest.fixture
def listing(tmp_path):
    return list_images(write_images(tmp_path / "images", {"a": 4, "b": 3}, size=(70, 90)))


def test_pixels_are_shrunk_and_gradients_are_those_of_scikit_image(listing):
    pixels, gradients = pixels_and_gradients(listing, PREPROCESSING)
    image = read_image(listing.open(5), PREPROCESSING.decoding) / 255
    blocks = image.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(pixels[5], blocks.ravel(), atol=1e-6)
    assert pixels.shape == (7, 32 * 32 * 3)
    expected = hog(image.astype(np.float32), 9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), channel_axis=-1)
    np.testing.assert_allclose(gradients[5], expected, atol=1e-5)
    assert gradients.shape == (7, 7 * 7 * 4 * 9)


@pytest.mark.stress
def test_random_encoders_differ_and_come_with_both_statistics(listing, monkeypatch):
    monkeypatch.setattr(baselines, "INITIALISATIONS", 2)
    model = build_encoder("tiny", "after_relu", SIZE, SIZE)
    source = Source("x", None, "tiny", "standard", (SIZE, SIZE, 3), PREPROCESSING, PREPROCESSING, model, False, ())
    found = random_encoders(source, listing)
    plain = [f"initialisation {number}" for number in (1, 2)]
    assert list(found) == [name for each in plain for name in (each, f"{each}, batch norms recalibrated")]
    weights = {name: layer_weights(encoder) for name, (_, encoder) in found.items()}
    kernels = [weights[name]["conv1_conv"][0] for name in plain]
    assert not np.array_equal(kernels[0], kernels[1])
    for name in plain:
        np.testing.assert_array_equal(weights[name]["conv1_bn"][2:], [np.zeros(4), np.ones(4)])
        recalibrated = weights[f"{name}, batch norms recalibrated"]
        np.testing.assert_array_equal(recalibrated["conv1_conv"][0], weights[name]["conv1_conv"][0])
        conv = build_encoder("tiny", "after_relu", SIZE, SIZE).get_layer("conv1_conv")
        conv.set_weights(recalibrated["conv1_conv"])
        images = np.stack([read_image(listing.open(i), PREPROCESSING.decoding) for i in range(7)]) / 255
        seen = conv(images.astype(np.float32)).numpy()
        np.testing.assert_allclose(recalibrated["conv1_bn"][2], seen.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(recalibrated["conv1_bn"][3], seen.var(axis=(0, 1, 2)), rtol=1e-3)
