"""Random numbers from keys: published values, independence, flatness."""

import numpy as np
import tensorflow as tf

from tfinpaint.data import rng


def test_splitmix64_reference_values():
    # The published SplitMix64 (Vigna's splitmix64.c) seeded with 1234567 gives these first outputs; its k-th output is
    # the finaliser of seed + k * golden gamma, and random_bits(x) is the finaliser of x + golden gamma.
    gamma = 0x9E3779B97F4A7C15
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    keys = np.array([(1234567 + k * gamma) % 2**64 for k in range(3)], np.uint64)
    assert rng.random_bits(tf.constant(keys)).numpy().tolist() == expected


def test_each_key_counts_and_order_of_keys_too():
    base = rng.random_bits(1, 2, 3).numpy()
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3), (1, 2)):
        assert rng.random_bits(*other).numpy() != base
    assert rng.random_bits(1, 2, 3).numpy() == base


def test_keys_broadcast():
    rows, columns = tf.range(3, dtype=tf.int64)[:, None], tf.range(4, dtype=tf.int64)[None, :]
    bits = rng.random_bits(7, rows, columns)
    assert bits.shape == (3, 4)
    assert bits[2, 3].numpy() == rng.random_bits(7, 2, 3).numpy()


def test_integers_and_uniforms_are_flat():
    bits = rng.random_bits(0, tf.range(70_000, dtype=tf.int64))
    integers = rng.random_integers(bits, 7).numpy()
    counts = np.bincount(integers, minlength=7)
    assert len(counts) == 7
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 22.46  # chi-squared, 6 degrees of freedom, p = 0.001
    uniform = rng.random_uniform(bits).numpy()
    assert 0 <= uniform.min() < 1e-4
    assert 1 - 1e-4 < uniform.max() < 1


def test_each_integer_has_its_own_bound():
    bits = rng.random_bits(0, tf.range(30_000, dtype=tf.int64))
    bounds = tf.tile(tf.constant([1, 2, 7]), [10_000])
    integers = rng.random_integers(bits, bounds).numpy()
    for place, bound in enumerate((1, 2, 7)):
        ours = integers[place::3]
        assert np.array_equal(ours, rng.random_integers(bits, bound).numpy()[place::3])
        assert set(ours.tolist()) == set(range(bound))


def test_purposes_are_distinct():
    purposes = {name: value for name, value in vars(rng).items() if name.isupper()}
    assert {"ORDER", "PATCHES", "TRANSFORM"} < set(purposes)
    assert len(set(purposes.values())) == len(purposes)
    # These numbers are in every draw: a change of one changes every experiment.
    assert [purposes[name] for name in ("ORDER", "PATCHES", "TRANSFORM")] == [1, 2, 3]
