"""What the joint loss adds to a reconstruction: a discriminator that learns along, and distances of features."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from tfinpaint.batch import Batch
from tfinpaint.models.discriminator import discriminator_loss, generator_loss
from tfinpaint.models.features import feature_distance


@dataclass(frozen=True)
class AdversarialTerm:
    """The discriminator of the joint loss (Context Encoders, arXiv 1604.07379, section 3.2), and what trains it.

    It sees the erased part alone, black around it: the true one of an image and the restored one.

    Attributes:
        discriminator: of `models.discriminator.build_discriminator`, for images of the originals' shape.
        optimizer: its own.
        weight: of the adversarial loss; 1 - weight is that of the reconstruction.
        clip_norm: largest global norm of the discriminator's gradients; None: any.
    """

    discriminator: keras.Model
    optimizer: keras.Optimizer
    weight: float
    clip_norm: float | None = None

    @property
    def variables(self) -> list[keras.Variable]:
        """All its state."""
        return [*self.discriminator.variables, *self.optimizer.variables]

    def losses(self, batch: Batch, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Of the network, "adversarial_loss", and of the discriminator, "discriminator_loss": float32 [batch], nats."""
        real = self.discriminator(batch["mask"] * batch["originals"], training=True)
        fake = self.discriminator(batch["mask"] * tf.cast(outputs, tf.float32), training=True)
        return {"adversarial_loss": generator_loss(fake), "discriminator_loss": discriminator_loss(real, fake)}


@dataclass(frozen=True)
class PerceptualTerm:
    """A frozen encoder that compares restored images with the originals.

    Attributes:
        features: of `models.perceptual.build_features`, for images of the originals' shape.
        weight: of the mean squared distance of the features, beside the reconstruction.
    """

    features: keras.Model
    weight: float

    def losses(self, batch: Batch, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """ "perceptual_loss", float32 [batch], of the originals with their hole as the network restores it."""
        restored = tf.where(batch["mask"] > 0, tf.cast(outputs, tf.float32), batch["originals"])
        return {"perceptual_loss": feature_distance(self.features, restored, batch["originals"])}
