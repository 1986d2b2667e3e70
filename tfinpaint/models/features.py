"""How far apart two images are in the eyes of a trained encoder, instead of pixel by pixel."""

from __future__ import annotations

import difflib

import keras
import tensorflow as tf

from tfinpaint.errors import UserError


def build_features(encoder: keras.Model, layer: str) -> keras.Model:
    """The encoder up to one of its layers, frozen: its batch norms use their stored statistics.

    It shares its variables with `encoder`, so those layers of `encoder` are frozen, too: give it one of its own, not
    the one to be trained.

    Args:
        encoder: with the weights to perceptual_term by, from [batch, height, width, channels]; any model of one input.
        layer: name of the layer whose output is wanted, such as "conv4_block6_out".

    Returns:
        Model from the encoder's input to the output of `layer`, such as [batch, height / 16, width / 16, channels].

    Raises:
        UserError: the encoder has no such layer.
    """
    names = [candidate.name for candidate in encoder.layers]
    if layer not in names:
        nearest = difflib.get_close_matches(layer, names, n=5, cutoff=0)
        raise UserError(f"the encoder has no layer {layer!r}; the nearest names that it has: {', '.join(nearest)}")
    features = keras.Model(encoder.input, encoder.get_layer(layer).output, name="features")
    features.trainable = False
    return features


def feature_distance(features: keras.Model, restored: tf.Tensor, originals: tf.Tensor) -> tf.Tensor:
    """Squared difference of the features, mean over positions and channels.

    The feature reconstruction loss of Johnson et al., arXiv 1603.08155, section 3.1. Its gradient flows to `restored`,
    not to `originals`; the weights between, being frozen, are none of `features.trainable_variables`.

    Args:
        features: of `build_features`.
        restored, originals: [batch, height, width, channels], values in the range that the encoder was trained with.

    Returns:
        float32 [batch], 0 for equal images.
    """
    wanted = tf.stop_gradient(_float(features(originals, training=False)))
    difference = _float(features(restored, training=False)) - wanted
    return tf.reduce_mean(tf.square(difference), axis=list(range(1, len(difference.shape))))


def _float(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values, tf.float32)
