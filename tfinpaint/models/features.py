"""The distance of two images in the features of a trained encoder (perceptual loss)."""

from __future__ import annotations

import difflib

import keras
import tensorflow as tf

from tfinpaint.errors import UserError


def build_features(encoder: keras.Model, layer: str) -> keras.Model:
    """Return the part of an encoder up to one of its layers, frozen; its batch norms use their stored statistics.

    The part shares its variables with `encoder`, whose layers are frozen too: pass a separate encoder, not the one that
    is trained.

    Args:
        encoder: model of one input, with trained weights.
        layer: name of the last layer of the part, such as "conv4_block6_out".

    Returns:
        Model from the encoder's input to the output of `layer`, such as [batch, height / 16, width / 16, channels].

    Raises:
        UserError: the encoder has no such layer.
    """
    names = [candidate.name for candidate in encoder.layers]
    if layer not in names:
        nearest = difflib.get_close_matches(layer, names, n=5, cutoff=0)
        raise UserError(f"the encoder has no layer {layer!r}; the most similar names are {', '.join(nearest)}")
    features = keras.Model(encoder.input, encoder.get_layer(layer).output, name="features")
    features.trainable = False
    return features


def feature_distance(features: keras.Model, restored: tf.Tensor, originals: tf.Tensor) -> tf.Tensor:
    """Return the squared difference of the features, averaged over positions and channels.

    This is the feature reconstruction loss of Johnson et al., arXiv 1603.08155, section 3.1. Its gradient flows to
    `restored` and not to `originals`.

    Args:
        features: model from `build_features`.
        restored, originals: [batch, height, width, channels], values in the range that the encoder was trained with.

    Returns:
        float32 [batch], 0 for equal images.
    """
    wanted = tf.stop_gradient(tf.cast(features(originals, training=False), tf.float32))
    difference = tf.cast(features(restored, training=False), tf.float32) - wanted
    return tf.reduce_mean(tf.square(difference), axis=list(range(1, len(difference.shape))))
