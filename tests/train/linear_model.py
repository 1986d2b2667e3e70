"""A linear model, its loss and its batches, whose steps can be computed by hand."""

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.models import losses

squared = losses.of_targets(lambda targets, outputs: tf.reduce_mean(tf.square(outputs - targets), axis=1))


def linear(weight=(1.0, 2.0)):
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array(weight, np.float32)[:, None]])
    return model


def batch(inputs, targets):
    return {"inputs": tf.constant(inputs, tf.float32), "targets": tf.constant(targets, tf.float32)}
