"""Losses and metrics, one value per example, so that sums over batches and ranks stay exact means."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

PerExample = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # (targets, outputs) -> float32 [batch]


def bce(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Binary cross entropy in nats, mean over every pixel and channel of the canvas; values 0 to 1."""
    per_pixel = keras.losses.binary_crossentropy(targets, outputs)  # mean over channels
    return tf.reduce_mean(per_pixel, axis=[1, 2])


def mse(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Squared error, mean over every pixel and channel of the canvas; values 0 to 1."""
    return tf.reduce_mean(tf.square(outputs - targets), axis=[1, 2, 3])


def nll(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Negative log likelihood in nats of int32 classes [batch] under probabilities [batch, classes]."""
    return keras.losses.sparse_categorical_crossentropy(targets, outputs)


def accuracy(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """1 where the most probable class is the target, else 0."""
    predicted = tf.argmax(outputs, axis=-1, output_type=targets.dtype)
    return tf.cast(predicted == targets, tf.float32)


BY_NAME: dict[str, PerExample] = {"BCE": bce, "MSE": mse, "NLL": nll}
