"""The discriminator of the joint loss, which distinguishes real from restored regions, and both adversarial losses."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers

LEAK = 0.2  # slope of LeakyReLU for negative values
EPSILON = 1e-3  # of the group norms; with 1e-5, a black region (variance 0) has gradients 1000 times larger


def build_discriminator(height: int, width: int, channels: int, *, filters: int = 64) -> keras.Model:
    """Return a discriminator with random weights: four 4x4 convolutions with stride 2 and LeakyReLU, and a dense layer.

    It is the discriminator of DCGAN (Radford et al., arXiv 1511.06434, sections 3 and 4: all-convolutional, no
    normalisation in the first layer, weights from a normal distribution with standard deviation 0.02), as used in
    Context Encoders (Pathak et al., arXiv 1604.07379, section 3.2), with one difference: group norm (Wu and He, arXiv
    1803.08494; `filters` / 2 groups) replaces batch norm. The score of an image is then independent of the other
    images of its batch, so that several ranks, each with its share of a batch, train as one.

    Args:
        height, width: of the images, in pixels.
        channels: of the images.
        filters: of the first convolution, even; each following convolution has twice as many: 64, 128, 256, 512.

    Returns:
        Model from [batch, height, width, channels], values in [0, 1] and black outside the region to score, to logits
        [batch], positive if the region looks real: float32 under any precision policy.
    """
    image = x = layers.Input((height, width, channels), name="discriminator_input")
    for number in range(1, 5):
        x = layers.Conv2D(
            filters * 2 ** (number - 1),
            4,
            strides=2,
            padding="same",
            kernel_initializer=_initializer(),
            name=f"discriminator_layer_{number}",
        )(x)
        if number > 1:
            x = layers.GroupNormalization(filters // 2, epsilon=EPSILON, name=f"discriminator_norm_{number}")(x)
        x = layers.LeakyReLU(LEAK, name=f"discriminator_relu_{number}")(x)
    x = layers.Flatten(name="discriminator_flatten")(x)
    x = layers.Dense(1, kernel_initializer=_initializer(), dtype="float32", name="discriminator_dense")(x)
    x = layers.Reshape((), dtype="float32", name="discriminator_output")(x)
    return keras.Model(image, x, name="discriminator")


def _initializer() -> keras.Initializer:
    """Return a new initializer for each layer, because an initializer draws the same numbers at every call."""
    return keras.initializers.RandomNormal(stddev=0.02)


def discriminator_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    """Return -(log D(real) + log(1 - D(fake))) of each pair, in nats: the negative of Context Encoders' equation (2).

    D is the sigmoid of the logit. The loss is computed from the logits, so that loss and gradient stay correct when the
    sigmoid rounds to 0 or 1.

    Args:
        real_logits, fake_logits: [batch], of the original and of the restored regions.

    Returns:
        float32 [batch], non-negative; 2 log 2 if the discriminator cannot distinguish them.
    """
    return _minus_log_sigmoid(real_logits) + _minus_log_sigmoid(-fake_logits)


def generator_loss(fake_logits: tf.Tensor) -> tf.Tensor:
    """Return -log D(fake) of each image, in nats: small if the discriminator classifies it as real.

    This is the non-saturating form of Goodfellow et al., arXiv 1406.2661, section 3: log(1 - D(fake)), which the
    generator minimises in equation (2), has almost no gradient while the discriminator is right.

    Args:
        fake_logits: [batch].

    Returns:
        float32 [batch], non-negative.
    """
    return _minus_log_sigmoid(fake_logits)


def _minus_log_sigmoid(logits: tf.Tensor) -> tf.Tensor:
    """Return log(1 + exp(-logit)); note that 1 - sigmoid(logit) is sigmoid(-logit)."""
    return tf.nn.softplus(-tf.cast(logits, tf.float32))
