"""Draw masks and fill the holes that they leave. A mask depends only on (seed, epoch, example).

Masks are computed in integers: rounding errors of floating-point numbers depend on the size of a batch, and could make
the masks of two ranks differ from those of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import tensorflow as tf

from tfinpaint.config.transforms import Fill, Transform
from tfinpaint.data import pixel_sets, rng
from tfinpaint.data.pixel_sets import cover, cover_up_to
from tfinpaint.data.transforms import Keys, to_float

RECTANGLES = ("random_patches", "random_block")  # the masks that `draw_rectangles` draws
Sides = tuple[int, int]  # the least and the greatest side of a rectangle along one axis, in pixels, both inclusive


def draw_mask(step: Transform, keys: Keys, *, height: int, width: int) -> tf.Tensor:
    """Draw one mask per example.

    The central region, random blocks and random regions are those of Pathak et al., "Context Encoders", arXiv
    1604.07379, section 3.3; the grid is that of He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv
    2111.06377, section 3.

    Args:
        step: the step of a configuration that is a mask.
        keys: the keys that the masks depend on.
        height, width: of the images in pixels, large enough for the mask.

    Returns:
        float32 [batch, height, width, 1]: 1 where to erase, 0 elsewhere.
    """
    match step.kind, step.section:
        case "center", section:
            sides = {"rows": round(section.side * height), "columns": round(section.side * width)}
            return center(keys, **sides, height=height, width=width)
        case "random_region", section:
            least, most = (round(share * height * width) for share in section.area)
            return draw_region(keys, least, most, height=height, width=width)
        case "grid", section:
            cells = (height // section.size) * (width // section.size)
            numbers = [round(ratio * cells) for ratio in section.ratios]
            draw = partial(draw_cells, numbers=numbers, size=section.size, height=height, width=width)
            return _complemented(draw, keys) if section.complementary else draw(keys)
        case _:
            return pixel_sets.to_mask(draw_rectangles(step, keys, height=height, width=width), width=width)


def draw_rectangles(step: Transform, keys: Keys, *, height: int, width: int) -> tf.Tensor:
    """Draw the masks of `draw_mask` that are unions of random rectangles.

    Returns:
        uint32 [batch, height, words], sets of pixels as in `pixel_sets`.
    """
    size = {"height": height, "width": width}
    match step.kind, step.section:
        case "random_patches", section if section.number:
            return cover(draw_patches(keys, number=section.number, size=section.size, **size), **size)
        case "random_patches", section:
            limit, side = _pixels_within(section.area, **size), (section.size, section.size)
            number = _sufficient_number(side, side, limit, **size)
            return cover_up_to(draw_patches(keys, number=number, size=section.size, **size), limit, **size)
        case "random_block", section:
            heights, widths = _sides(section.side, height), _sides(section.side, width)
            if section.number:
                return cover(draw_blocks(keys, heights, widths, number=section.number, **size), **size)
            limit = _pixels_within(section.limit, **size)
            number = _sufficient_number(heights, widths, limit, **size)
            return cover_up_to(draw_blocks(keys, heights, widths, number=number, **size), limit, **size)
        case kind, _:
            raise ValueError(f"{kind} draws no random rectangles")


def draw_patches(keys: Keys, *, number: int, size: int, height: int, width: int) -> tf.Tensor:
    """Draw squares of one size, each inside the image at a uniformly random place; they may overlap.

    Returns:
        int32 [batch, number, 4]: top, left, height and width of each square. A greater `number` adds squares and keeps
        the first ones.
    """
    tops, lefts = (_bits(keys, rng.PATCHES, number, draw) for draw in range(2))
    tops = rng.random_integers(tops, height - size + 1)
    lefts = rng.random_integers(lefts, width - size + 1)
    return tf.stack([tops, lefts, tf.fill(tf.shape(tops), size), tf.fill(tf.shape(tops), size)], axis=-1)


def draw_blocks(keys: Keys, heights: Sides, widths: Sides, *, number: int, height: int, width: int) -> tf.Tensor:
    """Draw rectangles of uniformly random size, each inside the image at a uniformly random place; they may overlap.

    Returns:
        int32 [batch, number, 4]: top, left, height and width of each block. A greater `number` adds blocks and keeps
        the first ones.
    """
    bits = [_bits(keys, rng.BLOCKS, number, draw) for draw in range(4)]
    rows = heights[0] + rng.random_integers(bits[0], heights[1] - heights[0] + 1)
    columns = widths[0] + rng.random_integers(bits[1], widths[1] - widths[0] + 1)
    tops = rng.random_integers(bits[2], height - rows + 1)
    lefts = rng.random_integers(bits[3], width - columns + 1)
    return tf.stack([tops, lefts, rows, columns], axis=-1)


def center(keys: Keys, *, rows: int, columns: int, height: int, width: int) -> tf.Tensor:
    """Return a rectangle in the middle, for every example alike; an odd pixel is kept at the bottom and the right."""
    top, left = (height - rows) // 2, (width - columns) // 2
    mask = np.zeros([1, height, width, 1], np.float32)
    mask[:, top : top + rows, left : left + columns] = 1
    return tf.tile(tf.constant(mask), [tf.size(keys.examples), 1, 1, 1])


def draw_region(keys: Keys, least: int, most: int, *, height: int, width: int) -> tf.Tensor:
    """Draw free-form regions: the highest places of a smooth, stationary random field.

    Args:
        least, most: bounds of the number of erased pixels, which is uniformly random for each image.

    Returns:
        float32 [batch, height, width, 1]: 1 where to erase, 0 elsewhere. All pixels have the same probability.
    """
    pixels = height * width
    bits = rng.random_bits(keys.seed, rng.REGION_AREA, keys.epoch, keys.examples)
    erased = least + rng.random_integers(bits, most - least + 1)
    field = tf.cast(tf.reshape(_smooth_field(keys, height, width), [-1, pixels]), tf.int64)
    ranks = field * pixels + tf.range(
        pixels, dtype=tf.int64
    )  # all different, so that the number of erased pixels is exact
    lowest = tf.gather(tf.sort(ranks, axis=1), pixels - erased, batch_dims=1)
    return tf.reshape(tf.cast(ranks >= lowest[:, None], tf.float32), [-1, height, width, 1])


def draw_cells(keys: Keys, *, numbers: Sequence[int], size: int, height: int, width: int) -> tf.Tensor:
    """Draw a uniformly random subset of the cells of a grid.

    Args:
        numbers: of erased cells; each image has one of them, each with the same probability.
        size: side of a cell in pixels, which divides height and width.

    Returns:
        float32 [batch, height, width, 1]: 1 in the erased cells, 0 elsewhere.
    """
    rows, columns = height // size, width // size
    # The cell is the last key, and `random_bits` is one-to-one in its last key: all cells of an image are different.
    order = tf.bitcast(_bits(keys, rng.CELLS, rows * columns), tf.int64)
    highest = tf.math.top_k(order, max(numbers)).values
    if len(numbers) == 1:
        erased = order >= highest[:, -1:]
    else:
        bits = rng.random_bits(keys.seed, rng.GRID_RATIO, keys.epoch, keys.examples)
        number = tf.gather(tf.constant(numbers), rng.random_integers(bits, len(numbers)))
        lowest = tf.gather(highest, tf.maximum(number - 1, 0), batch_dims=1)
        erased = (order >= lowest[:, None]) & (number > 0)[:, None]
    mask = tf.reshape(tf.cast(erased, tf.float32), [-1, rows, 1, columns, 1])
    return tf.reshape(tf.tile(mask, [1, 1, size, 1, size]), [-1, height, width, 1])


def _complemented(draw: Callable[[Keys], tf.Tensor], keys: Keys) -> tf.Tensor:
    """Return masks of which those of second views have the holes where those of the first views have none."""
    first = replace(keys, examples=rng.examples_of(keys.examples))
    mask = draw(first)
    return tf.where((keys.examples != first.examples)[:, None, None, None], 1 - mask, mask)


def _bits(keys: Keys, purpose: int, number: int, *draw: int) -> tf.Tensor:
    """Return uint64 [batch, number]: random bits for each of `number` items."""
    items = tf.range(number, dtype=tf.int64)
    bits = rng.random_bits(keys.seed, purpose, keys.epoch, keys.examples[:, None], items, *draw)
    return tf.ensure_shape(bits, [None, number])  # the static shape is lost if the batch size is unknown


def _pixels_within(area: float, *, height: int, width: int) -> int:
    return math.floor(area * height * width + 1e-6)  # 0.29 of 100 pixels are 29, although 0.29 * 100 < 29


def _sides(shares: list[float], extent: int) -> Sides:
    least, most = (max(round(share * extent), 1) for share in shares)
    return least, most


def _sufficient_number(heights: Sides, widths: Sides, limit: int, *, height: int, width: int) -> int:
    """Return a number of random rectangles that cover more than `limit` pixels except with probability 1e-6.

    As long as they do not, at least height * width - limit pixels are free. Of these the next rectangle covers on
    average at least `gain`, which is what it covers of the pixels with the lowest probability. By Chernoff's bound, a
    sum of numbers in [0, 1] (here areas divided by the greatest area) with a mean of at least m is below
    m - sqrt(2 m log(1 / p)) with a probability of at most p. Here m is chosen such that this bound is the limit.
    """
    probabilities = np.outer(_coverage(heights, height), _coverage(widths, width))
    gain = np.sort(probabilities, axis=None)[: height * width - limit].sum()
    greatest, twice_log = heights[1] * widths[1], 2 * math.log(1e6)
    mean = (math.sqrt(twice_log) + math.sqrt(twice_log + 4 * limit / greatest)) ** 2 / 4
    return math.ceil(mean * greatest / gain)


def _coverage(sides: Sides, extent: int) -> np.ndarray:
    """Return float64 [extent]: the probability of each pixel to be covered by a random side at a random place."""
    pixels = np.arange(extent)

    def probability(side: int) -> np.ndarray:
        last, first = np.minimum(pixels, extent - side), np.maximum(pixels - side + 1, 0)  # places that cover the pixel
        return (last - first + 1) / (extent - side + 1)

    return np.mean([probability(side) for side in range(sides[0], sides[1] + 1)], axis=0)


# The spectrum of the random field, chosen by eye: one or a few large regions with soft, irregular outlines.
_HIGHEST_FREQUENCY = 5.0  # cycles per image
_DECAY = 2.0  # amplitude ~ frequency^-_DECAY
_BASIS_LEVELS = 2**12


def _smooth_field(keys: Keys, height: int, width: int) -> tf.Tensor:
    """Draw a periodic Gaussian random field: waves of low frequency with random amplitudes and phases.

    The phases are uniform, so the field is stationary. It is the real part of sum_jk c_jk exp(2 pi i (j y / height +
    k x / width)), computed as two small matrix products of integers that float64 represents exactly.

    Returns:
        float64 [batch, height, width], integers; multiplied by height * width they fit into int64.
    """
    scale = _amplitudes(height, width)
    cosines, sines = _waves(height, np.arange(scale.shape[0]) - scale.shape[0] // 2)
    first = np.stack([np.concatenate([cosines, -sines], 1), np.concatenate([sines, cosines], 1)])
    second = np.concatenate(_waves(width, np.arange(scale.shape[1])), 1) * np.repeat([1, -1], scale.shape[1])

    radius_bits, phase_bits = (_bits(keys, rng.REGION, scale.size, draw) for draw in range(2))
    # Box-Muller transform: a complex normal number from two uniform numbers
    radius = tf.sqrt(-2 * tf.math.log(1 - tf.cast(rng.random_uniform(radius_bits), tf.float64)))
    phase = 2 * math.pi * tf.cast(rng.random_uniform(phase_bits), tf.float64)
    parts = tf.stack([radius * tf.cos(phase), radius * tf.sin(phase)], axis=1)  # real, imaginary
    parts = tf.round(tf.reshape(parts, [-1, 2, *scale.shape]) * scale)
    waves = tf.reshape(parts, [-1, 1, 2 * scale.shape[0], scale.shape[1]])
    along_y = tf.matmul(tf.constant(first), waves)  # [batch, (real, imaginary), height, frequencies along x]
    along_y = tf.concat([along_y[:, 0], along_y[:, 1]], axis=-1)
    return tf.matmul(along_y, tf.constant(second), transpose_b=True)


def _amplitudes(height: int, width: int) -> np.ndarray:
    """Return float64 [frequencies -j..j along y, frequencies 0..k along x]: the standard deviation of each wave."""
    side = math.sqrt(height * width)  # frequencies are counted per this length, along both axes
    most_y, most_x = (int(_HIGHEST_FREQUENCY * extent / side) for extent in (height, width))
    y, x = np.arange(-most_y, most_y + 1)[:, None], np.arange(most_x + 1)
    frequency = np.hypot(y * side / height, x * side / width)
    # Frequencies (j, k) and (-j, -k) are the same wave, and (0, 0) is a constant.
    used = (frequency <= _HIGHEST_FREQUENCY) & ((x > 0) | (y > 0))
    amplitudes = np.where(used, np.maximum(frequency, 1e-9) ** -_DECAY, 0)
    # The greatest sum of all waves, each at 6 standard deviations (24 random bits give no more), times _BASIS_LEVELS
    # twice, is at most 2^51, which float64 represents exactly, and at most 2^61 / (height * width).
    highest = 2.0 ** min(27, 37 - (height * width).bit_length())
    return amplitudes * highest / (6 * amplitudes.sum())


def _waves(extent: int, frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and sines, float64 [extent, frequencies], rounded to integers up to _BASIS_LEVELS."""
    angles = 2 * np.pi / extent * np.outer(np.arange(extent), frequencies)
    return np.round(_BASIS_LEVELS * np.cos(angles)), np.round(_BASIS_LEVELS * np.sin(angles))


def fill_hole(images: tf.Tensor, mask: tf.Tensor, fill: Fill, keys: Keys) -> tf.Tensor:
    """Fill the erased pixels of images; the visible pixels stay as they are.

    Args:
        images: float32 [batch, height, width, channels], 0 to 1.
        mask: float32 [batch, height, width, 1], 1 where to erase, 0 elsewhere.
        fill, keys: as in `draw_filling`.

    Returns:
        float32, shaped as `images`.
    """
    filling = draw_filling(images, mask, fill, keys)
    return tf.where(mask > 0, tf.zeros_like(images) if filling is None else filling, images)


def draw_filling(images: tf.Tensor, mask: tf.Tensor, fill: Fill, keys: Keys) -> tf.Tensor | None:
    """Return what the erased pixels of images are filled with.

    Args:
        images, mask: as in `fill_hole`; images may also be uint8.
        fill: black (0), mean (per image and channel, the mean over the visible pixels; 0 where there are none), or
            noise (per pixel and channel, uniform in [0, 1)).
        keys: the keys that the noise depends on.

    Returns:
        float32, shaped as `images`, or [batch, 1, 1, channels] for mean; None for black.
    """
    match fill:
        case "black":
            return None
        case "mean":
            return _visible_mean(to_float(images), mask)
        case "noise":
            return draw_noise(images, keys)


def _visible_mean(images: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return float32 [batch, 1, 1, channels]: the mean over the visible pixels."""
    # In float64, because the order of a sum may depend on the batch size; rounding to float32 hides the difference.
    visible = tf.where(mask > 0, tf.zeros_like(images), images)
    total = tf.reduce_sum(tf.cast(visible, tf.float64), axis=[1, 2], keepdims=True)
    pixels = tf.reduce_sum(tf.cast(1 - mask, tf.float64), axis=[1, 2], keepdims=True)
    return tf.cast(tf.math.divide_no_nan(total, pixels), tf.float32)


def draw_noise(images: tf.Tensor, keys: Keys) -> tf.Tensor:
    """Return float32, shaped as `images`, [0, 1): 16 random bits for each value, four values from each 64 bits."""
    shape, channels = tf.shape(images), images.shape[-1]
    pixels = tf.range(shape[1] * shape[2])
    fours = tf.range((channels + 3) // 4)[:, None]
    bits = rng.random_bits(keys.seed, rng.NOISE, keys.epoch, keys.examples[:, None, None], fours, pixels)
    values = [
        tf.bitwise.right_shift(bits[:, channel // 4], tf.constant(16 * (channel % 4), tf.uint64))
        for channel in range(channels)
    ]
    low = tf.bitwise.bitwise_and(tf.stack(values, axis=-1), tf.constant(0xFFFF, tf.uint64))
    return tf.reshape(tf.cast(low, tf.float32) / 2**16, shape)
