"""Batch norms over visible positions: statistics by hand, in a network, in recalibration, and with recomputed blocks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.optimizer import Optimizer
from tfinpaint.distributed.world import World
from tfinpaint.models.decoder import build_inpainter
from tfinpaint.models.encoder import block_ends, build_encoder
from tfinpaint.models.losses import of_targets
from tfinpaint.models.visible_batchnorm import encoder_batchnorms, over_visible
from tfinpaint.train.batchnorm import StatisticsEstimator
from tfinpaint.train.optimizers import build_optimizer
from tfinpaint.train.step import StepOptions
from tfinpaint.train.trainer import Trainer

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.random((4, 64, 64, 3), np.float32)
ERASED = np.repeat(np.repeat(GENERATOR.random((4, 4, 4, 1)) < 0.5, 16, 1), 16, 2).astype(np.float32)


@pytest.fixture
def inpainter() -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_inpainter(build_encoder("tiny", "after_relu", 64, 64), decoder="batchnorm")


def test_statistics_are_those_of_the_positions_that_have_a_visible_pixel():
    maps = GENERATOR.normal(size=(2, 2, 2, 3)).astype(np.float32)
    erased = np.zeros((2, 8, 8, 1), np.float32)
    erased[0, :4, :4] = 1  # a position of which nothing is left
    erased[1, :4, 4:] = 1
    erased[1, 3, 7] = 0  # one of which a pixel is left
    norm = keras.layers.BatchNormalization(momentum=0.0)
    norm.build(maps.shape)
    with over_visible([norm], tf.constant(erased)):
        outputs = norm(maps, training=True).numpy()
    seen = np.concatenate([maps[0].reshape(-1, 3)[1:], maps[1].reshape(-1, 3)])
    np.testing.assert_allclose(norm.moving_mean.numpy(), seen.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), seen.var(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        outputs, (maps - seen.mean(axis=0)) / np.sqrt(seen.var(axis=0) + 1e-3), rtol=1e-4, atol=1e-5
    )
    norm(maps, training=True)  # outside of the statement all positions count again
    np.testing.assert_allclose(norm.moving_mean.numpy(), maps.mean(axis=(0, 1, 2)), rtol=1e-5, atol=1e-6)


def test_the_norms_are_those_of_the_encoder(inpainter):
    names = [norm.name for norm in encoder_batchnorms(inpainter)]
    assert len(names) == 17
    assert all(name.startswith("conv") for name in names)


def means(model: keras.Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the first batch norm's inputs over visible positions, of which erased cells have 8 x 8, and over all."""
    outputs = keras.Model(model.input, model.get_layer("conv1_conv").output)(images).numpy()
    return outputs[ERASED[:, ::2, ::2, 0] == 0].mean(axis=0), outputs.mean(axis=(0, 1, 2))


def train(model: keras.Model, *, recompute: bool = False) -> list[np.ndarray]:
    """Take a step; return all variables."""
    objective = of_targets(lambda targets, outputs: tf.reduce_mean(tf.square(outputs - targets), axis=[1, 2, 3]))
    optimizer = build_optimizer(Optimizer(type="SGD", learning_rate=0.1), 1, 1)
    ends = block_ends("tiny", model) if recompute else ()
    trainer = Trainer(
        model, optimizer, objective, world=World(), step_options=StepOptions(visible_only=True, recompute=ends)
    )
    batch = {"inputs": IMAGES * (1 - ERASED), "targets": IMAGES, "mask": ERASED}
    trainer.train_steps(iter([{name: tf.constant(value) for name, value in batch.items()}]), 1)
    return [variable.numpy() for variable in model.variables]


@pytest.mark.stress
def test_a_training_step_leaves_erased_positions_out(inpainter):
    norm = inpainter.get_layer("conv1_bn")
    visible, everywhere = means(inpainter, IMAGES * (1 - ERASED))
    train(inpainter)
    np.testing.assert_allclose(norm.moving_mean.numpy(), 0.01 * visible, rtol=1e-4, atol=1e-7)
    assert np.abs(visible - everywhere).max() > 1e-3
    assert "_moments" not in vars(norm)


@pytest.mark.stress
def test_recomputed_blocks_have_the_same_statistics_and_gradients(inpainter):
    start = inpainter.get_weights()
    plain = train(inpainter)
    inpainter.set_weights(start)
    for one, other in zip(train(inpainter, recompute=True), plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.stress
def test_recalibration_leaves_them_out_as_well(inpainter):
    norms = encoder_batchnorms(inpainter)
    batches = [{"inputs": tf.constant(IMAGES), "mask": tf.constant(ERASED)}]
    StatisticsEstimator(inpainter, norms, batches, World(), visible_only=True).run()
    visible, everywhere = means(inpainter, IMAGES)
    np.testing.assert_allclose(norms[0].moving_mean.numpy(), visible, rtol=1e-4, atol=1e-6)
    StatisticsEstimator(inpainter, norms, batches, World()).run()
    np.testing.assert_allclose(norms[0].moving_mean.numpy(), everywhere, rtol=1e-4, atol=1e-6)
