"""The adversarial term of a context encoder: a network that tells real parts from generated ones, and both losses."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers

LEAK = 0.2  # slope of LeakyReLU below 0
EPSILON = 1e-3  # of the norms; with 1e-5 an all-black region, without variance, has gradients 1000 times as large


def build_discriminator(height: int, width: int, channels: int, *, filters: int = 64) -> keras.Model:
    """Four convolutions 4x4 / 2 with LeakyReLU, and one dense layer, with random weights.

    The discriminator of DCGAN (Radford et al., arXiv 1511.06434, sections 3 and 4: all-convolutional, no normalisation
    of the first layer, weights from a normal distribution of deviation 0.02), as Context Encoders use it (Pathak et
    al., arXiv 1604.07379, section 3.2).

    One deviation: where DCGAN has batch norm, this has group norm (Wu and He, arXiv 1803.08494; half of `filters`
    groups, 32 by default). An image's score then does not depend on the other images of its batch, so that several
    ranks, each with its share of a batch, train as one.

    Args:
        height, width: of the images, pixels.
        channels: of the images.
        filters: of the first convolution, even; each further one has twice as many: 64, 128, 256, 512.

    Returns:
        Model from [batch, height, width, channels], 0 to 1 and black outside the region to be judged, to logits
        [batch], above 0 where the region looks real: float32 whatever the precision policy.
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
    """One for each layer: an initializer draws the same numbers whenever it is called."""
    return keras.initializers.RandomNormal(stddev=0.02)


def discriminator_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    """-(log D(real) + log(1 - D(fake))) of each pair, in nats: the negative of Context Encoders' equation (2).

    D is the sigmoid of the logit. Computed from the logits, so that it stays finite, and its gradient right, where the
    sigmoid is rounded to 0 or 1.

    Args:
        real_logits, fake_logits: [batch], of the originals and of what the context encoder made of them.

    Returns:
        float32 [batch], 0 or more; 2 log 2 where the discriminator cannot tell.
    """
    return _minus_log_sigmoid(real_logits) + _minus_log_sigmoid(-fake_logits)


def generator_loss(fake_logits: tf.Tensor) -> tf.Tensor:
    """-log D(fake) of each image, in nats: small where the discriminator takes it for real.

    The non-saturating form of Goodfellow et al., arXiv 1406.2661, section 3: log(1 - D(fake)), which the equation has
    the generator minimise, is nearly flat as long as the discriminator sees through it.

    Args:
        fake_logits: [batch].

    Returns:
        float32 [batch], 0 or more.
    """
    return _minus_log_sigmoid(fake_logits)


def _minus_log_sigmoid(logits: tf.Tensor) -> tf.Tensor:
    """log(1 + exp(-logit)): 1 - sigmoid(logit) is sigmoid(-logit)."""
    return tf.nn.softplus(-tf.cast(logits, tf.float32))
