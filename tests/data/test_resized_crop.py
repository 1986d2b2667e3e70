"""Random resized crops: torchvision's way of drawing a part, and the enlargement of each part by TensorFlow itself."""

import math

import numpy as np
import pytest
import tensorflow as tf
from test_transforms import keys, one

from tfinpaint.config.transforms import RandomResizedCrop
from tfinpaint.data.resized_crop import ATTEMPTS, Parts, draw_parts, enlarge


def plain_part(section, uniform, height, width):
    """Return (top, left, rows, columns) as torchvision's RandomResizedCrop.get_params finds them from such numbers."""
    for attempt in range(ATTEMPTS):
        area = height * width * (section.scale[0] + (section.scale[1] - section.scale[0]) * uniform[attempt])
        low, high = math.log(section.ratio[0]), math.log(section.ratio[1])
        shape = math.exp(low + (high - low) * uniform[ATTEMPTS + attempt])
        columns, rows = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < columns <= width and 0 < rows <= height:
            top = math.floor(uniform[-2] * (height - rows + 1))
            return top, math.floor(uniform[-1] * (width - columns + 1)), rows, columns
    if width / height < section.ratio[0]:
        columns, rows = width, round(width / section.ratio[0])
    elif width / height > section.ratio[1]:
        columns, rows = round(height * section.ratio[1]), height
    else:
        columns, rows = width, height
    return (height - rows) // 2, (width - columns) // 2, rows, columns


@pytest.mark.parametrize(
    ("scale", "ratio", "size"),
    [
        ([0.08, 1.0], [3 / 4, 4 / 3], (32, 32)),
        ([0.3, 1.0], [0.5, 2.0], (24, 64)),
        ([0.9, 1.0], [3 / 4, 4 / 3], (20, 64)),  # hardly any attempt fits
        ([0.9, 1.0], [3 / 4, 4 / 3], (64, 21)),
        ([1e-4, 1e-4], [1.0, 1.0], (32, 32)),  # less than a pixel
    ],
)
def test_parts_are_those_that_torchvision_would_draw(scale, ratio, size):
    section = RandomResizedCrop(scale=scale, ratio=ratio)
    uniform = keys(300).uniforms(5, 2 * ATTEMPTS + 2)
    found = np.stack(draw_parts(section, uniform, *map(tf.constant, size)), axis=1)
    expected = [plain_part(section, row, *size) for row in uniform.numpy().astype(np.float64)]
    assert found.tolist() == [list(part) for part in expected]


def test_uniforms_are_the_draws_of_a_step():
    found = keys(5).uniforms(3, 4)
    assert found.shape == (5, 4)
    for draw in range(4):
        assert np.array_equal(found[:, draw], keys(5).uniform(3, draw))


@pytest.mark.parametrize("nearest", [False, True])
def test_an_enlarged_part_is_what_tensorflow_resizes(nearest):
    images = tf.random.stateless_uniform([50, 24, 40, 3], [0, 3])
    parts = draw_parts(RandomResizedCrop(), keys(50).uniforms(0, 22), tf.constant(24), tf.constant(40))
    found = enlarge(images, parts, nearest=nearest).numpy()
    for place in range(50):
        top, left, rows, columns = (int(values[place]) for values in parts)
        part = images[place : place + 1, top : top + rows, left : left + columns]
        expected = tf.image.resize(part, [24, 40], "nearest" if nearest else "bilinear", antialias=not nearest)
        assert np.allclose(found[place], expected[0], atol=2e-6), (place, top, left, rows, columns)


def test_the_whole_image_stays_as_it_is():
    images = tf.random.stateless_uniform([4, 33, 47, 3], [0, 3])
    whole = Parts(tf.zeros(4, tf.int32), tf.zeros(4, tf.int32), tf.fill([4], 33), tf.fill([4], 47))
    for nearest in (False, True):
        assert np.allclose(enlarge(images, whole, nearest=nearest), images, rtol=0, atol=1e-6)
    step = {"random_resized_crop": {"scale": [1.0, 1.0], "ratio": [47 / 33, 47 / 33]}}
    assert np.allclose(one(step, images, keys(4)), images, rtol=0, atol=1e-6)


def test_golden_pixels():
    # Columns 1 and 2 of four, doubled: positions -0.25 (clamped to 0), 0.25, 0.75, 1.25 (clamped to 1) of the part.
    image = tf.constant([[0.0, 1.0, 2.0, 3.0]])[None, :, :, None]
    part = Parts(*(tf.constant([value]) for value in (0, 1, 1, 2)))
    assert np.allclose(enlarge(image, part, nearest=False)[0, 0, :, 0], [1, 1.25, 1.75, 2])
    assert np.allclose(enlarge(image, part, nearest=True)[0, 0, :, 0], [1, 1, 2, 2])


def test_parts_do_not_depend_on_the_batch():
    section = RandomResizedCrop()
    uniform = keys(1000).uniforms(0, 22)
    whole = np.stack(draw_parts(section, uniform, tf.constant(224), tf.constant(224)), axis=1)
    for first in (0, 1, 500, 999):
        single = draw_parts(section, uniform[first : first + 1], tf.constant(224), tf.constant(224))
        assert np.stack(single, axis=1).tolist() == whole[first : first + 1].tolist()
