"""Patches: golden pixels, statelessness, flat positions, expected area."""

import numpy as np
import tensorflow as tf

from tfinpaint.data import erasing

GOLDEN = [[[13, 9], [20, 22]], [[20, 39], [22, 7]]]


def draw(seed=0, epoch=0, examples=(0, 1, 2), **shape):
    shape = {"number": 4, "size": 5, "height": 32, "width": 48} | shape
    return erasing.draw_patches(seed, tf.constant(epoch, tf.int64), tf.constant(examples, tf.int64), **shape).numpy()


def test_mask_and_erasure_on_golden_pixels():
    patches = tf.constant([[[0, 1], [1, 2]]])  # two 2 x 2 squares that overlap in one pixel
    mask = erasing.patches_to_mask(patches, size=2, height=3, width=4)
    assert mask[0, :, :, 0].numpy().tolist() == [[0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    images = tf.reshape(tf.range(1, 37, dtype=tf.float32) / 36, [1, 3, 4, 3])
    inputs, targets = erasing.erase(images, mask)
    assert np.array_equal(inputs + targets, images)
    assert inputs[0, 0, 1].numpy().tolist() == [0, 0, 0]
    assert targets[0, 0, 0].numpy().tolist() == [0, 0, 0]
    assert np.array_equal(targets[0, 2, 2], images[0, 2, 2])


def test_patches_depend_on_seed_epoch_and_example_alone():
    whole = draw(examples=(5, 6, 7, 8))
    assert np.array_equal(whole[[2, 0]], draw(examples=(7, 5)))  # whatever the batch, the order, the rank
    assert not np.array_equal(whole, draw(examples=(5, 6, 7, 8), epoch=1))
    assert not np.array_equal(whole, draw(examples=(5, 6, 7, 8), seed=1))
    assert len(np.unique(whole.reshape(4, -1), axis=0)) == 4


def test_golden_patches():
    # Made by this function on first writing; a change of these numbers changes every experiment's patches.
    assert draw(examples=(0, 1), number=2).tolist() == GOLDEN


def test_patches_lie_inside_and_their_positions_are_flat():
    patches = draw(examples=range(10_000), number=2, size=8, height=16, width=12)
    tops, lefts = patches[..., 0].ravel(), patches[..., 1].ravel()
    for places, possible in ((tops, 9), (lefts, 5)):
        counts = np.bincount(places, minlength=possible)
        assert len(counts) == possible
        expected = 20_000 / possible
        assert ((counts - expected) ** 2 / expected).sum() < 30  # chi-squared, p = 0.001 is 26.1 for 8 degrees


def test_a_patch_as_large_as_the_image_erases_all_of_it():
    patches = draw(number=1, size=32, height=32, width=32)
    assert (patches == 0).all()
    assert erasing.patches_to_mask(tf.constant(patches), size=32, height=32, width=32).numpy().min() == 1


def test_covered_area_is_the_expected_one():
    # A pixel at least `size` from the border is missed by one square with probability 1 - (8 / 25)^2, by 4
    # independent squares with its 4th power.
    mask = erasing.patches_to_mask(
        tf.constant(draw(examples=range(4000), number=4, size=8, height=32, width=32)), size=8, height=32, width=32
    ).numpy()
    assert abs(mask[:, 8:24, 8:24].mean() - (1 - (1 - (8 / 25) ** 2) ** 4)) < 0.005
