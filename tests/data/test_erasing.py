"""Erasing by compiled functions: the same bits as drawing and filling step by step, for every mask and fill."""

import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.transforms import Transform
from tfinpaint.data import masks
from tfinpaint.data.erasing import _mean_of_bytes, make_eraser
from tfinpaint.data.transforms import Keys

CASES = {
    "few patches": {"random_patches": {"number": 16, "size": 8}},
    "many patches, noise": {"random_patches": {"number": 100, "size": 6, "fill": "noise"}},
    "patches up to an area, mean": {"random_patches": {"area": 0.4, "size": 7, "fill": "mean"}},
    "blocks": {"random_block": {"side": [0.25, 0.5], "number": 2}},
    "blocks up to an area": {"random_block": {"side": [0.1, 0.3]}},
    "center, noise": {"center": {"side": 0.5, "fill": "noise"}},
    "region, mean": {"random_region": {"area": [0.2, 0.3], "fill": "mean"}},
    "grid": {"grid": {"size": 8, "ratio": 0.75}},
}
HEIGHT, WIDTH = 64, 96
PIXELS = np.random.default_rng(0).integers(0, 256, (6, HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("name", CASES)
def test_bits_are_those_of_drawing_and_filling_step_by_step(name):
    step = Transform.model_validate(CASES[name])
    epoch, examples = tf.constant(3, tf.int64), tf.range(5, 11, dtype=tf.int64)
    keys, erase = Keys(2, epoch, examples), make_eraser(step, 2, height=HEIGHT, width=WIDTH, cut=True)
    mask = masks.draw_mask(step, keys, height=HEIGHT, width=WIDTH).numpy()
    assert 0.1 < mask.mean() < 0.95
    images = PIXELS / np.float32(255)
    expected = masks.fill_hole(tf.constant(images), tf.constant(mask), step.section.fill, keys).numpy()
    for given in (PIXELS, images):  # as they are read, and after other steps
        found = erase(tf.constant(given), epoch, examples)
        assert [part.dtype for part in found] == [tf.float32] * 3
        assert np.array_equal(found.mask, mask)
        if given.dtype == np.uint8 and step.section.fill == "mean":  # summed in integers, and so without rounding
            assert np.array_equal(np.where(mask, 0, found.inputs), np.where(mask, 0, expected))
            np.testing.assert_allclose(found.inputs, expected, rtol=1.2e-7)
        else:
            assert np.array_equal(found.inputs, expected)
        assert np.array_equal(found.targets, images * mask)


def test_the_mean_of_bytes_is_exact_and_the_same_in_any_batch():
    step = Transform.model_validate(CASES["patches up to an area, mean"])
    erase = make_eraser(step, 0, height=HEIGHT, width=WIDTH, cut=False)
    epoch, examples = tf.constant(0, tf.int64), tf.range(6, dtype=tf.int64)
    whole = erase(tf.constant(PIXELS), epoch, examples)
    for number, (image, mask) in enumerate(zip(PIXELS, whole.mask.numpy()[..., 0], strict=True)):
        mean = np.float32(image[mask == 0].astype(np.int64).sum(axis=0) / (255 * np.sum(mask == 0)))
        assert np.array_equal(np.unique(whole.inputs.numpy()[number][mask == 1], axis=0), [mean])
    for part in (slice(0, None, 2), slice(5, 6)):
        assert np.array_equal(erase(tf.constant(PIXELS[part]), epoch, examples[part]).inputs, whole.inputs[part])


def test_without_a_visible_pixel_the_mean_of_bytes_is_black():
    everything = tf.fill([6, HEIGHT, WIDTH // 32], tf.constant(2**32 - 1, tf.uint32))
    assert _mean_of_bytes(tf.constant(PIXELS), everything).numpy().tolist() == [[[[0, 0, 0]]]] * 6


def test_images_of_one_channel_are_erased_alike():
    step = Transform.model_validate(CASES["few patches"])
    arguments = tf.constant(0, tf.int64), tf.range(6, dtype=tf.int64)
    erase = make_eraser(step, 0, height=HEIGHT, width=WIDTH, cut=False)
    colours, grey = erase(tf.constant(PIXELS), *arguments), erase(tf.constant(PIXELS[..., 1:2]), *arguments)
    assert np.array_equal(grey.mask, colours.mask)
    assert np.array_equal(colours.targets, PIXELS / np.float32(255))  # whole, where they are not cut
    assert np.array_equal(grey.inputs[..., 0], colours.inputs[..., 1])
