"""The loss of a batch: the reconstruction and the terms beside it, and the sums that are reported of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from tfinpaint.batch import Batch, input_of
from tfinpaint.models.loss_terms import AdversarialTerm, AgreementTerm, PerceptualTerm
from tfinpaint.models.losses import Objective, PerExample, of_mixed, of_targets
from tfinpaint.models.training_pass import Computed

Measure = Callable[[Batch, tf.Tensor], Mapping[str, tf.Tensor]]  # (batch, outputs) -> float32 [batch] by name

RECONSTRUCTION, AGREEMENT = "reconstruction_loss", "agreement_loss"
ZERO = of_targets(lambda targets, outputs: tf.zeros(tf.shape(outputs)[:1]))


class LossShares(NamedTuple):
    """The divisors and the factor of one rank's loss, float32 scalars.

    Attributes:
        weight: mean over the ranks of the summed weights of their examples, the divisor of the reconstruction.
        images: number of images of this rank, the divisor of every other term.
        scale: factor of the loss, and so of its gradients.
    """

    weight: tf.Tensor
    images: tf.Tensor
    scale: tf.Tensor


class CombinedLoss:
    """The reconstruction loss and the terms beside it, each with its share in the whole, and the metrics.

    Attributes:
        shares: name of each part of the loss -> its factor in the whole.
        restores: whether the reconstruction is a part; otherwise views are compared and the model has no outputs.
    """

    def __init__(
        self,
        objective: Objective | None,
        metrics: Mapping[str, PerExample] | None,
        adversarial_term: AdversarialTerm | None,
        perceptual_term: PerceptualTerm | None,
        agreement_term: AgreementTerm | None = None,
        *,
        reconstruction_weight: float = 1.0,
    ) -> None:
        self._objective, self._metrics = objective or ZERO, dict(metrics or {})
        self._terms = [term for term in (adversarial_term, perceptual_term) if term is not None]
        self._agreement_term, self.restores = agreement_term, reconstruction_weight > 0
        self.shares: dict[str, float] = {}
        if self.restores:
            self.shares[RECONSTRUCTION] = 1.0 - adversarial_term.weight if adversarial_term else 1.0
        if adversarial_term:
            self.shares["adversarial_loss"] = adversarial_term.weight
        if perceptual_term:
            self.shares["perceptual_loss"] = perceptual_term.weight
        self.shares = {name: reconstruction_weight * share for name, share in self.shares.items()}
        if agreement_term:
            self.shares[AGREEMENT] = agreement_term.weight

    @property
    def is_weighted(self) -> bool:
        """True where examples count differently in the reconstruction."""
        return self.restores and self._objective.weight is not None

    def weights(self, batch: Batch) -> tf.Tensor:
        """Return float32 [batch], the weight of each example in the reconstruction."""
        if self._objective.weight is None or not self.restores:
            return tf.ones(tf.shape(input_of(batch))[:1])
        return self._objective.weight(batch)

    def by_example(self, batch: Batch, computed: Computed) -> dict[str, tf.Tensor]:
        """Return each part of the loss by name, float32 [batch]; without features, all but the agreement of views."""
        losses: dict[str, tf.Tensor] = {}
        if computed.outputs is not None:
            losses[RECONSTRUCTION] = self._objective.per_example(batch, computed.outputs)
            for term in self._terms:
                losses |= term.losses(batch, computed.outputs)
        if self._agreement_term and computed.features is not None:
            losses |= self._agreement_term.losses(computed.features)
        return losses

    def total(
        self, penalty: tf.Tensor, losses: Mapping[str, tf.Tensor], weights: tf.Tensor, shares: LossShares
    ) -> tf.Tensor:
        """Return the scalar that this rank minimises: averaged over the ranks, it is the loss of the global batch."""
        return sum((self.part(name, losses, weights, shares) for name in self.shares), penalty)

    def part(self, name: str, losses: Mapping[str, tf.Tensor], weights: tf.Tensor, shares: LossShares) -> tf.Tensor:
        """Return what a part of the loss adds to `total`."""
        if name == RECONSTRUCTION:
            mean = tf.math.divide_no_nan(tf.reduce_sum(losses[name] * weights), shares.weight)
        else:
            mean = tf.reduce_sum(losses[name]) / shares.images
        return self.shares[name] * mean

    def sums(
        self, batch: Batch, outputs: tf.Tensor | None, losses: Mapping[str, tf.Tensor], weights: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Return sums over the examples: of the weights, of each part of the loss and of each metric."""
        others = {name: values for name, values in losses.items() if name != RECONSTRUCTION}
        if outputs is not None:
            others |= {name: of_mixed(score, batch, outputs) for name, score in self._metrics.items()}
        sums = {"weight": tf.reduce_sum(weights)}
        if RECONSTRUCTION in losses:
            sums[RECONSTRUCTION] = tf.reduce_sum(losses[RECONSTRUCTION] * weights)
        return sums | {name: tf.reduce_sum(values) for name, values in others.items()}
