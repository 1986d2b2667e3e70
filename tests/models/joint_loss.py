"""Small networks, terms of the joint loss, batches with holes, and a trainer of them."""

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.config.loss import Loss
from tfinpaint.distributed import world as dist
from tfinpaint.models.discriminator import build_discriminator
from tfinpaint.models.features import build_features
from tfinpaint.models.loss_terms import AdversarialTerm, PerceptualTerm
from tfinpaint.models.losses import build_objective
from tfinpaint.train.trainer import Trainer

SIDE = 16
ADVERSARIAL, PERCEPTUAL = 0.25, 2.0  # the weights of these parts
# Pixels are weighted by the mask and holes differ in size, so examples have different weights in the reconstruction only.
OBJECTIVE = build_objective(Loss(function="MSE", target="masked"), "sigmoid", by_pixel=True)


def restorer():
    """Return a network of two convolutions from images to images."""
    image = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(image)
    return keras.Model(image, keras.layers.Conv2D(3, 3, padding="same", activation="sigmoid", name="second")(x))


def make_adversarial_term(optimizer=None, weight=ADVERSARIAL, frozen=()):
    """Return a term whose discriminator has larger weights than at its start, and therefore larger gradients."""
    discriminator = build_discriminator(SIDE, SIDE, 3, filters=4)
    for variable in discriminator.trainable_variables:
        if "kernel" in variable.path:
            variable.assign(5 * variable)
    for name in frozen:
        discriminator.get_layer(name).trainable = False
    return AdversarialTerm(discriminator, optimizer or keras.optimizers.SGD(0.0), weight)


def make_perceptual_term():
    image = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)
    norm = keras.layers.BatchNormalization(name="norm")
    encoder = keras.Model(image, keras.layers.Activation("relu", name="seen")(norm(x)))
    norm.moving_mean.assign([0.1, -0.1, 0.2, 0.0])  # statistics that no batch here has
    norm.moving_variance.assign([0.5, 0.25, 1.0, 2.0])
    return PerceptualTerm(build_features(encoder, "seen"), PERCEPTUAL)


def make_trainer(optimizer=None, *, model=None, adversarial_term=None, perceptual_term=None, **options):
    """Return a trainer whose networks do not change unless an optimizer is given."""
    optimizer, world = optimizer or keras.optimizers.SGD(0.0), options.pop("world", dist.World())
    return Trainer(
        model or restorer(),
        optimizer,
        OBJECTIVE,
        adversarial_term=adversarial_term,
        perceptual_term=perceptual_term,
        world=world,
        **options,
    )


def make_batch(count=4, seed=0, low=4):
    """Return random images with holes of several heights, from row 4 down, and widths.

    Args:
        low: height of the first image's hole.
    """
    originals = np.random.default_rng(seed).random((count, SIDE, SIDE, 3), np.float32)
    mask = np.zeros((count, SIDE, SIDE, 1), np.float32)
    for i in range(count):
        mask[i, 4 : 4 + low + 2 * i, 2 : 8 + i] = 1
    parts = {
        "inputs": originals * (1 - mask),
        "targets": originals,
        "originals": originals,
        "mask": mask,
        "weights": mask,
    }
    return {name: tf.constant(values) for name, values in parts.items()}


def snapshot(model):
    return [variable.numpy() for variable in model.variables]


def same(model, before):
    return [np.array_equal(variable.numpy(), was) for variable, was in zip(model.variables, before, strict=True)]
