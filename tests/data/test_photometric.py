"""Colour jitter, random grey and blur against plain computations for each image, and at settings that change nothing."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import convolve1d
from test_transforms import keys, one

IMAGES = tf.random.stateless_uniform([60, 32, 24, 3], [4, 2])
LUMA = np.array([0.2989, 0.5870, 0.1140])


def uniform(number, draw, count=60):
    return keys(count).uniform(number, draw).numpy().astype(np.float64)


def jittered(image, brightness, contrast, saturation, hue):
    """Return what the factors of each change make of an image, step by step, as torchvision's functions do."""
    image = np.clip(image * brightness, 0, 1)
    image = np.clip(contrast * image + (1 - contrast) * (image @ LUMA).mean(), 0, 1)
    image = np.clip(saturation * image + (1 - saturation) * (image @ LUMA)[..., None], 0, 1)
    hsv = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3)])
    hsv[:, 0] = (hsv[:, 0] + hue) % 1
    return np.array([colorsys.hsv_to_rgb(*pixel) for pixel in hsv]).reshape(image.shape)


def test_color_jitter_is_that_of_its_draws():
    section = {"brightness": 0.4, "contrast": 1.5, "saturation": 0.2, "hue": 0.1, "probability": 0.8}
    found = one({"color_jitter": section}, IMAGES, keys(60), number=3)
    applied, b, c, s, h = (uniform(3, draw) for draw in range(5))
    assert 36 <= (applied < 0.8).sum() <= 58  # 48 expected, standard deviation 3.1
    for place, image in enumerate(IMAGES.numpy()[:12].astype(np.float64)):
        if applied[place] >= 0.8:
            assert np.array_equal(found[place], IMAGES[place])
            continue
        # contrast 1.5: the factor is uniform in [0, 2.5].
        factors = 0.6 + 0.8 * b[place], 2.5 * c[place], 0.8 + 0.4 * s[place], 0.1 * (2 * h[place] - 1)
        assert np.allclose(found[place], jittered(image, *factors), atol=2e-5), place


@pytest.mark.parametrize(
    ("step", "tolerance"),
    [
        ({"color_jitter": {}}, 0),
        ({"color_jitter": {"brightness": 0.5, "hue": 0.5, "probability": 0.0}}, 0),
        ({"random_grayscale": 0.0}, 0),
        ({"gaussian_blur": {"probability": 0.0}}, 0),
        ({"gaussian_blur": {"sigma": [0.01, 0.01], "probability": 1.0}}, 1e-6),
    ],
)
def test_settings_that_change_nothing(step, tolerance):
    assert np.allclose(one(step, IMAGES, keys(60)), IMAGES, rtol=0, atol=tolerance)


def test_images_of_one_channel_have_no_colours_to_change():
    grey = IMAGES[..., :1]
    section = {"saturation": 0.9, "hue": 0.5}
    assert np.array_equal(one({"color_jitter": section}, grey, keys(60)), grey)
    assert np.array_equal(one({"random_grayscale": 1.0}, grey, keys(60)), grey)
    darker = one({"color_jitter": {"brightness": 0.5, "contrast": 0.5}}, grey, keys(60))
    b, c = uniform(0, 1), uniform(0, 2)
    image = np.clip(grey[7].numpy().astype(np.float64) * (0.5 + b[7]), 0, 1)
    assert np.allclose(darker[7], np.clip((0.5 + c[7]) * image + (0.5 - c[7]) * image.mean(), 0, 1), atol=1e-6)


def test_random_grayscale_keeps_channels_and_comes_with_its_probability():
    found = one({"random_grayscale": 0.25}, IMAGES, keys(60), number=2)
    chosen = uniform(2, 0) < 0.25
    assert 5 <= chosen.sum() <= 26  # 15 expected, standard deviation 3.4
    expected = np.where(chosen[:, None, None, None], (IMAGES.numpy() @ LUMA)[..., None], IMAGES)
    assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("size", "radius"), [((32, 24), 1), ((64, 80), 3), ((96, 224), 4)])
def test_blur_is_a_mirrored_gaussian_as_wide_as_a_tenth_of_the_image(size, radius):
    images = tf.random.stateless_uniform([6, *size, 3], [1, 1])
    found = one({"gaussian_blur": {"sigma": [0.5, 2.0], "probability": 0.5}}, images, keys(6), number=1)
    applied, sigma = uniform(1, 0, 6) < 0.5, 0.5 + 1.5 * uniform(1, 1, 6)
    assert 0 < applied.sum() < 6
    for place, image in enumerate(images.numpy().astype(np.float64)):
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma[place]) ** 2)
        blurred = image
        for axis in (0, 1):
            blurred = convolve1d(blurred, weights / weights.sum(), axis=axis, mode="mirror")
        assert np.allclose(found[place], blurred if applied[place] else image, atol=1e-6), place


def test_draws_do_not_depend_on_the_batch():
    section = {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}}
    whole = one(section, IMAGES, keys(60))
    from tfinpaint.data.transforms import Keys

    for place in (0, 17, 59):
        single = Keys(0, tf.constant(0, tf.int64), tf.constant([place], tf.int64))
        assert np.array_equal(one(section, IMAGES[place : place + 1], single)[0], whole[place])
