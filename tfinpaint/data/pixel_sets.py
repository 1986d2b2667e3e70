"""Sets of pixels as bits, which make the union of many rectangles cheap and exact.

A row of pixels is a row of words; a word holds `word_width(width)` neighbouring pixels, the leftmost in its lowest bit.
Everything is computed in integers, so that compiling by XLA changes nothing.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_MOST_BITS = 32


def word_width(width: int) -> int:
    """Return the number of pixels in a word: the largest divisor of an image's width that is at most 32."""
    return next(bits for bits in range(min(_MOST_BITS, width), 0, -1) if width % bits == 0)


def cover(rectangles: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """Return the union of all rectangles.

    Args:
        rectangles: int32 [batch, number, 4]: top, left, height and width of each.

    Returns:
        uint32 [batch, height, words].
    """
    return cover_up_to(rectangles, None, height=height, width=width)


def cover_up_to(rectangles: tf.Tensor, limit: int | None, *, height: int, width: int) -> tf.Tensor:
    """Return the union of as many of the first rectangles as together cover at most `limit` pixels.

    Args:
        rectangles: int32 [batch, number, 4] as for `cover`.
        limit: None: no limit.

    Returns:
        uint32 [batch, height, words].
    """
    bits = word_width(width)
    tops, lefts, rows, columns = (tf.transpose(rectangles[..., part]) for part in range(4))  # [number, batch]
    bottoms, number = tops + rows, rectangles.shape[1]
    words = _columns(lefts, lefts + columns, width // bits, bits)
    y, batch = tf.range(height), tf.shape(rectangles)[0]

    def add(place: tf.Tensor, covered: tf.Tensor, unfinished: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        inside = (y >= tops[place][:, None]) & (y < bottoms[place][:, None]) & unfinished[:, None]
        more = covered | tf.where(inside[..., None], words[place][:, None], tf.constant(0, tf.uint32))
        if limit is None:
            return place + 1, more, unfinished
        count = tf.reduce_sum(tf.cast(tf.raw_ops.PopulationCount(x=more), tf.int32), axis=[1, 2])
        unfinished &= count <= limit
        return place + 1, tf.where(unfinished[:, None, None], more, covered), unfinished

    start = (0, tf.zeros([batch, height, width // bits], tf.uint32), tf.fill([batch], True))
    going_on = lambda place, _, unfinished: (place < number) & tf.reduce_any(unfinished)  # noqa: E731
    return tf.while_loop(going_on, add, start)[1]


def _columns(begins: tf.Tensor, ends: tf.Tensor, words: int, bits: int) -> tf.Tensor:
    """Return uint32 [..., words]: a row whose pixels from `begins` up to `ends`, int32 [...], are in the set."""
    first = bits * tf.range(words)

    def below(place: tf.Tensor) -> tf.Tensor:
        within = tf.cast(tf.clip_by_value(place[..., None] - first, 0, bits), tf.uint64)
        return tf.bitwise.left_shift(tf.constant(1, tf.uint64), within) - tf.constant(1, tf.uint64)

    return tf.cast(below(ends) ^ below(begins), tf.uint32)


def pack(mask: tf.Tensor) -> tf.Tensor:
    """Return uint32 [batch, height, words] of a mask, float32 [batch, height, width, 1]."""
    _, height, width, _ = mask.shape
    bits = word_width(width)
    pixels = tf.cast(tf.reshape(mask, [-1, height, width // bits, bits]), tf.uint32)
    return tf.reduce_sum(tf.bitwise.left_shift(pixels, np.arange(bits, dtype=np.uint32)), axis=-1)


def unpack(words: tf.Tensor, *, width: int, repeats: int = 1) -> tf.Tensor:
    """Return uint32 [batch, height, words, bits * repeats]: 1 for a pixel of the set, else 0, each `repeats` times."""
    places = np.repeat(np.arange(word_width(width), dtype=np.uint32), repeats)
    return tf.bitwise.right_shift(words[..., None], places) & tf.constant(1, tf.uint32)


def to_mask(words: tf.Tensor, *, width: int) -> tf.Tensor:
    """Return float32 [batch, height, width, 1]: 1 for a pixel of the set, 0 elsewhere."""
    return tf.reshape(tf.cast(unpack(words, width=width), tf.float32), [-1, words.shape[1], width, 1])
