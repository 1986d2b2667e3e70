"""The terms beside the reconstruction: a discriminator, distances of features, and the agreement of two views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from tfinpaint.batch import Batch
from tfinpaint.models.agreement import AgreementLoss, pool
from tfinpaint.models.discriminator import discriminator_loss, generator_loss
from tfinpaint.models.features import feature_distance


@dataclass(frozen=True)
class AdversarialTerm:
    """The adversarial term of the joint loss (Context Encoders, arXiv 1604.07379, section 3.2).

    The discriminator sees the erased region only, black around it: the original's and the restored one.

    Attributes:
        discriminator: model from `models.discriminator.build_discriminator`, for images of the originals' shape.
        optimizer: the optimizer of the discriminator.
        weight: weight of the adversarial loss; the reconstruction loss has 1 - weight.
        clip_norm: maximum global norm of the discriminator's gradients; None: no clipping.
    """

    discriminator: keras.Model
    optimizer: keras.Optimizer
    weight: float
    clip_norm: float | None = None

    def losses(self, batch: Batch, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return "adversarial_loss" of the network and "discriminator_loss", each float32 [batch], in nats."""
        real = self.discriminator(batch["mask"] * batch["originals"], training=True)
        fake = self.discriminator(batch["mask"] * tf.cast(outputs, tf.float32), training=True)
        return {"adversarial_loss": generator_loss(fake), "discriminator_loss": discriminator_loss(real, fake)}


@dataclass(frozen=True)
class PerceptualTerm:
    """The perceptual term of the joint loss: a frozen encoder compares restored images with the originals.

    Attributes:
        features: model from `models.features.build_features`, for images of the originals' shape.
        weight: weight of the mean squared distance of the features; the reconstruction loss has 1.
    """

    features: keras.Model
    weight: float

    def losses(self, batch: Batch, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return "perceptual_loss", float32 [batch], of the originals with the restored region in the hole."""
        restored = tf.where(batch["mask"] > 0, tf.cast(outputs, tf.float32), batch["originals"])
        return {"perceptual_loss": feature_distance(self.features, restored, batch["originals"])}


@dataclass(frozen=True)
class AgreementTerm:
    """The agreement of two views of each image.

    Attributes:
        projector: model from `models.agreement.build_projector`, trained with the encoder.
        optimizer: the optimizer of the projector.
        compare: loss of the projector's outputs.
        weight: weight of the agreement.
        layer: name of the layer of the encoder whose outputs are pooled.
        gather: returns the rows of all ranks, in the order of ranks, for those of this rank; gradients flow through it,
            summed over the ranks.
        rank: number of this rank.
        clip_norm: maximum global norm of the projector's gradients; None: no clipping.
    """

    projector: keras.Model
    optimizer: keras.Optimizer
    compare: AgreementLoss
    weight: float
    layer: str
    gather: Callable[[tf.Tensor], tf.Tensor]
    rank: int = 0
    clip_norm: float | None = None

    def losses(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return "agreement_loss", float32 [batch], of the features of a batch of two views.

        Args:
            features: [batch, height, width, maps], outputs of `layer`.
        """
        projected = self.projector(pool(features), training=True)
        return {"agreement_loss": self.compare(projected, self.gather(projected), self.rank)}
