"""What fills a hole: numbers worked out by hand, visible pixels untouched, noise flat and the same on any rank."""

import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.data.masks import fill_hole
from tfinpaint.data.transforms import Keys

FILLS = ("black", "mean", "noise")


def make_keys(examples, seed=0, epoch=0):
    return Keys(seed, tf.constant(epoch, tf.int64), tf.constant(examples, tf.int64))


def filled(images, mask, fill, examples=None, **keys):
    keys = make_keys(range(len(images)) if examples is None else examples, **keys)
    return fill_hole(tf.constant(images, tf.float32), tf.constant(mask, tf.float32), fill, keys).numpy()


def noise(examples, height=16, width=24, channels=3, **keys):
    images = np.zeros([len(examples), height, width, channels])
    return filled(images, np.ones([len(examples), height, width, 1]), "noise", examples, **keys)


def test_black_and_mean_by_hand():
    images = np.array([[[0.125, 0.5], [0.25, 1.0]], [[0.75, 0.0], [0.5, 0.25]]])
    images = np.stack([images, images])  # two images of 2 x 2 pixels, two channels
    mask = np.array([[[0, 1], [0, 0]], [[1, 0], [1, 0]]])[..., None]
    black = filled(images, mask, "black")
    assert black[0].tolist() == [[[0.125, 0.5], [0, 0]], [[0.75, 0], [0.5, 0.25]]]
    assert black[1].tolist() == [[[0, 0], [0.25, 1]], [[0, 0], [0.5, 0.25]]]
    mean = filled(images, mask, "mean")
    # First image: (0.125 + 0.75 + 0.5) / 3 and (0.5 + 0 + 0.25) / 3. Second: (0.25 + 0.5) / 2 and (1 + 0.25) / 2.
    assert mean[0, 0, 1].tolist() == [np.float32(1.375 / 3), 0.25]
    assert mean[1, :, 0].tolist() == [[0.375, 0.625], [0.375, 0.625]]


@pytest.mark.parametrize("fill", FILLS)
def test_visible_pixels_are_the_same_bit_for_bit(fill):
    generator = np.random.default_rng(0)
    images = generator.random([4, 16, 24, 3], np.float32)
    mask = (generator.random([4, 16, 24, 1]) < 0.5).astype(np.float32)
    visible, hole = np.broadcast_to(mask == 0, images.shape), np.broadcast_to(mask == 1, images.shape)
    result = filled(images, mask, fill)
    assert result.dtype == np.float32
    assert np.array_equal(result[visible].view(np.int32), images[visible].view(np.int32))
    assert (result[hole] != images[hole]).mean() > 0.99
    # What is in the hole tells nothing of what was there.
    assert np.array_equal(filled(np.where(hole, 0.5, images), mask, fill), result)


def test_without_a_visible_pixel_the_mean_is_black():
    assert filled(np.ones([1, 2, 2, 3]), np.ones([1, 2, 2, 1]), "mean").max() == 0


@pytest.mark.parametrize("fill", FILLS)
def test_a_filling_is_the_same_in_any_batch(fill):
    generator = np.random.default_rng(1)
    images = generator.random([32, 33, 31, 3], np.float32)
    mask = (generator.random([32, 33, 31, 1]) < 0.25).astype(np.float32)
    examples = np.arange(100, 132)
    whole = filled(images, mask, fill, examples, seed=2, epoch=3)
    for part in (slice(0, None, 2), slice(1, None, 2), slice(None, None, -1), slice(5, 6)):  # two ranks; others
        assert np.array_equal(whole[part], filled(images[part], mask[part], fill, examples[part], seed=2, epoch=3))

    def fill_batch(images: tf.Tensor, mask: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
        return fill_hole(images, mask, fill, Keys(2, tf.constant(3, tf.int64), examples))

    dataset = tf.data.Dataset.from_tensor_slices((images, mask, examples)).batch(20).map(fill_batch)
    assert dataset.element_spec.shape.as_list() == [None, 33, 31, 3]
    assert np.array_equal(whole, np.concatenate(list(dataset.as_numpy_iterator())))


def test_noise_is_uniform():
    values = noise(range(100))
    assert 0 <= values.min() < 1e-3
    assert 1 - 1e-3 < values.max() < 1
    counts = np.histogram(values, 10, (0, 1))[0]
    expected = values.size / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_noise_differs_by_pixel_channel_and_key(channels):
    values = noise([0, 1], channels=channels)
    flat = values.reshape(2, -1, channels)
    # Of n values of 65,536 possible ones about n^2 / 2 / 65,536 meet another: 81 of 2304 x 2.
    assert len(np.unique(flat)) > 0.96 * flat.size
    correlations = np.corrcoef(np.concatenate([flat[0], flat[1]], axis=1).T) - np.eye(2 * channels)
    assert np.abs(correlations).max() < 0.2  # standard error 0.05, at most 66 pairs
    for other in (noise([0, 1], channels=channels, seed=1), noise([0, 1], channels=channels, epoch=1)):
        assert (values == other).mean() < 0.01


def test_golden_noise():
    # Made by this function on first writing; a change of these numbers changes every experiment that fills with noise.
    values = noise([0, 1], height=1, width=2, channels=5) * 2**16
    assert values.astype(int).tolist() == GOLDEN


GOLDEN = [
    [[[43274, 16670, 8836, 56927, 62119], [1754, 51642, 41709, 16804, 4009]]],
    [[[31695, 33925, 62770, 41547, 50639], [37528, 55247, 20094, 44462, 56888]]],
]
