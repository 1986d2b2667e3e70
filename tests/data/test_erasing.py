"""Erasing as one compiled function: the same bits as drawing and filling step by step, for every mask and fill."""

import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.transforms import Transform
from tfinpaint.data import masks
from tfinpaint.data.erasing import make_eraser
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
        assert np.array_equal(found.inputs, expected)
        assert np.array_equal(found.targets, images * mask)


def test_images_of_one_channel_are_erased_alike():
    step = Transform.model_validate(CASES["few patches"])
    arguments = tf.constant(0, tf.int64), tf.range(6, dtype=tf.int64)
    erase = make_eraser(step, 0, height=HEIGHT, width=WIDTH, cut=False)
    colours, grey = erase(tf.constant(PIXELS), *arguments), erase(tf.constant(PIXELS[..., 1:2]), *arguments)
    assert np.array_equal(grey.mask, colours.mask)
    assert np.array_equal(colours.targets, PIXELS / np.float32(255))  # whole, where they are not cut
    assert np.array_equal(grey.inputs[..., 0], colours.inputs[..., 1])
