"""The head of a classifier that begins as logistic regression on the features of its encoder.

Linear probing, then fine-tuning (LP-FT): a head that fits the features from the first step on leaves them in place,
where a random one would first distort them (Kumar et al., arXiv 2202.10054).
"""

from __future__ import annotations

import logging
from dataclasses import replace

import keras
import tensorflow as tf

from tfinpaint.data.examples import Images
from tfinpaint.data.failures import Failures
from tfinpaint.data.listing.listing import fraction_indices
from tfinpaint.data.tasks import classification_task
from tfinpaint.errors import UserError
from tfinpaint.models.classifier import HEAD
from tfinpaint.probing.classifiers import FEW_STRENGTHS, LinearProbe, fit_linear_probe
from tfinpaint.runs.data import DataSet
from tfinpaint.runs.online_probe import gather_features
from tfinpaint.runs.run import Run
from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)

MOST_IMAGES = 10_000  # to fit to; 5,000 of them with 2,048 features took 16 seconds of processor time


def fit_head(run: Run, trainer: Trainer, data: DataSet) -> None:
    """Fit the head to the features of the training images, where the configuration asks for it and the run begins.

    Images are prepared as for evaluation. C is chosen by cross-validation on them alone. Every rank calls this, and all
    end with the same head.

    Args:
        data: the training images, without those for validation.

    Raises:
        UserError: the features are not finite, or an image cannot be read.
    """
    if run.config.model.head_init == "random" or run.resumed:
        return
    world, model = trainer.world, trainer.model
    world.report_task("fitting the head")
    head = model.get_layer(HEAD)
    pooled = keras.Model(model.input, head.input, name="pooled")
    compute = tf.function(lambda inputs: pooled(inputs, training=False), autograph=False, reduce_retracing=True)
    plain = _without_augmentation(run, data)
    labels = plain.images.listing.labels
    features = gather_features(world, plain, compute, pooled.output_shape[-1])

    def fit() -> str:
        if not tf.reduce_all(tf.math.is_finite(features)):
            raise UserError("model.head_init: the encoder's features are not finite; load other weights")
        probe = fit_linear_probe(features, labels, FEW_STRENGTHS)
        set_head(head, probe)
        validated = "" if probe.validated is None else f", accuracy in cross-validation {probe.validated:.4f}"
        return f"{len(labels)} training images: C {probe.strength:.4g}{validated}"

    found = world.run_on_rank0(fit)
    world.broadcast_variables(head.variables)
    log.info(f"The head begins as logistic regression on the features of {found}")


def set_head(head: keras.layers.Dense, probe: LinearProbe) -> None:
    """Set a dense layer before a softmax to a logistic regression, so that both give the same probabilities."""
    head.set_weights(probe.softmax_layer())


def _without_augmentation(run: Run, data: DataSet) -> DataSet:
    """Return at most MOST_IMAGES of the training images, with nothing random in their preparation."""
    task, listing = classification_task(run.config, labels=True, augment=False), data.images.listing
    if len(listing) > MOST_IMAGES:
        listing = listing.select(fraction_indices(listing, MOST_IMAGES / len(listing), run.config.seed))
    images = Images.open(listing, data.images.share, task.images, preload=False)
    return replace(data, images=images, task=task, features=None, failures=Failures())
