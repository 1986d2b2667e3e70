"""Random numbers as pure functions of integer keys: without state, the same on every rank and in every thread."""

from __future__ import annotations

import tensorflow as tf

# The purpose of a random number, used as a key: numbers of different purposes are independent.
ORDER, PATCHES, TRANSFORM, BLOCKS, REGION, REGION_AREA, CELLS, NOISE, GRID_RATIO, MIX_SHARE, MIX_ORDER = range(1, 12)

_VIEW = 2**40  # more than the examples of any data set


def view_keys(examples: tf.Tensor, views: int) -> tf.Tensor:
    """Return int64 [views * batch]: keys of the random numbers of each view, those of the first view in front.

    The first view of an example has the example itself as its key; the others have numbers that no example has.

    Args:
        examples: int64 [batch], places in the listing.
    """
    return tf.concat([examples + view * _VIEW for view in range(views)], axis=0)


def examples_of(keys: tf.Tensor) -> tf.Tensor:
    """Return int64 [views * batch]: the examples that these keys of `view_keys` belong to."""
    return keys % _VIEW


def random_bits(*keys: tf.Tensor | int) -> tf.Tensor:
    """Return 64 random bits for each combination of keys.

    The keys are mixed one after the other by the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast Splittable
    Pseudorandom Number Generators", OOPSLA 2014, section 4).

    Args:
        *keys: non-negative integers or integer tensors that broadcast together.

    Returns:
        uint64 tensor of the broadcast shape.
    """
    state = tf.constant(0, tf.uint64)
    for key in keys:
        state = _mix(tf.bitwise.bitwise_xor(*_broadcast(state, tf.cast(key, tf.uint64))))
    return state


def random_integers(bits: tf.Tensor, bound: tf.Tensor | int) -> tf.Tensor:
    """Map uint64 bits to int32 integers uniform in [0, bound), bound < 2**31 (bias below bound / 2**32).

    Args:
        bound: a number, or an integer tensor that broadcasts with `bits`.
    """
    high = tf.bitwise.right_shift(bits, tf.constant(32, tf.uint64))
    return tf.cast(tf.bitwise.right_shift(high * tf.cast(bound, tf.uint64), tf.constant(32, tf.uint64)), tf.int32)


def random_uniform(bits: tf.Tensor) -> tf.Tensor:
    """Map uint64 bits to float32 numbers uniform in [0, 1)."""
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64)), tf.float32) / 2.0**24


def _broadcast(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.broadcast_dynamic_shape(tf.shape(a), tf.shape(b))
    return tf.broadcast_to(a, shape), tf.broadcast_to(b, shape)


def _mix(z: tf.Tensor) -> tf.Tensor:
    def xor_shift(z: tf.Tensor, bits: int) -> tf.Tensor:
        return tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(bits, tf.uint64)))

    z = z + tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    z = xor_shift(z, 30) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    z = xor_shift(z, 27) * tf.constant(0x94D049BB133111EB, tf.uint64)
    return xor_shift(z, 31)
