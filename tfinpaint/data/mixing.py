"""The random numbers of mixup: which images of a batch are mixed, and in which shares."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy.special import betaincinv

from tfinpaint.data import rng

STEPS = 4096  # number of shares of equal probability that are drawn from


def draw_mixing(seed: int, epoch: tf.Tensor, examples: tf.Tensor, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the share of each image itself, and random numbers by whose order images become partners.

    Args:
        seed: of the run.
        epoch: int64 []: the pass over the data, from 0.
        examples: int64 [batch].
        alpha: shares are drawn from Beta(alpha, alpha), see `shares_of_beta`.

    Returns:
        float32 [batch], 0 to 1, and int64 [batch]; both are functions of seed, epoch and example alone.
    """
    places = rng.random_integers(rng.random_bits(seed, rng.MIX_SHARE, epoch, examples), STEPS)
    order = tf.bitwise.right_shift(rng.random_bits(seed, rng.MIX_ORDER, epoch, examples), tf.constant(1, tf.uint64))
    return tf.gather(tf.constant(shares_of_beta(alpha)), places), tf.cast(order, tf.int64)


def shares_of_beta(alpha: float) -> np.ndarray:
    """Return float32 [STEPS]: the quantiles of Beta(alpha, alpha) in the middle of STEPS intervals of probability."""
    return betaincinv(alpha, alpha, (np.arange(STEPS) + 0.5) / STEPS).astype(np.float32)
