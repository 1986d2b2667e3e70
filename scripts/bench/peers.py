"""What the sides of the benchmarks that train by plain Keras share."""

from __future__ import annotations

import tensorflow as tf


def without_tuning(data: tf.data.Dataset) -> tf.data.Dataset:
    """Return a dataset whose iterators end at once.

    The thread that tunes a pipeline looks at it after 10, 20, 40, ... ms, and the end of `fit` may wait for its next
    look: up to as long again as a short `fit` has taken. That would be most of what a benchmark of a few steps sees.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.with_options(options)
