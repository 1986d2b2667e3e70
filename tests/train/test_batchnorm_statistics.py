"""Statistics of batch norms: estimated from all batches, synchronised over ranks, and saved as those of plain ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.distributed import world as dist
from tfinpaint.distributed.batchnorm import synchronise_batchnorm
from tfinpaint.train.batchnorm import StatisticsEstimator, batchnorm_layers


def norm_model():
    return keras.Sequential(
        [
            keras.layers.Input((3,)),
            keras.layers.BatchNormalization(name="first"),
            keras.layers.Dense(2, name="dense"),
            keras.layers.BatchNormalization(name="second"),
        ]
    )


@pytest.mark.parametrize("frozen", [False, True])
def test_estimated_statistics_are_those_of_all_batches_pooled(frozen):
    data = np.random.default_rng(0).normal([1, 2, 3], [1, 2, 3], (40, 3)).astype(np.float32)
    batches = [{"inputs": data[at : at + 10]} for at in range(0, 40, 10)]
    model = norm_model()
    other = model.get_layer("second").moving_mean
    other.assign([5.0, 6.0])
    model.get_layer("first").moving_variance.assign([np.inf, np.nan, 1.0])  # a non-finite average must not stay
    first = model.get_layer("first")
    first.trainable = not frozen
    weights = [weight.numpy() for weight in model.get_layer("dense").weights]
    layers = batchnorm_layers(model, trainable=not frozen)
    assert [layer.name for layer in layers] == (["first"] if frozen else ["first", "second"])
    StatisticsEstimator(model, layers, batches, dist.World()).run()
    assert np.allclose(first.moving_mean.numpy(), data.mean(axis=0), rtol=1e-5)
    assert np.allclose(first.moving_variance.numpy(), data.var(axis=0), rtol=1e-4)
    assert (first.momentum, first.trainable) == (0.99, not frozen)
    assert (other.numpy().tolist() == [5.0, 6.0]) == frozen  # layers that were not asked for keep theirs
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(weights, model.get_layer("dense").weights, strict=True))


class PairOfRanks(dist.World):
    """A rank beside another one that has seen the values that are given in turn."""

    def __init__(self, others):
        super().__init__()
        self.others = iter(others)

    def all_reduce_mean(self, value, name):
        return (value + next(self.others)) / 2


def test_synchronised_batch_norm_normalises_by_all_ranks():
    # Ranks of means 1000 and 1004, far from 0: squares around 0 would lose the variance in float32.
    generator = np.random.default_rng(0)
    mine, its = (generator.normal(mean, 0.5, (50, 1)).astype(np.float32) for mean in (1000, 1004))
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.BatchNormalization(name="norm")])
    norm = model.layers[0]
    norm.moving_mean.assign([1001.0])
    norm.gamma.assign([3.0])
    offset = its.mean() - 1001
    synchronise_batchnorm(model, PairOfRanks([tf.constant([[offset], [its.var() + offset**2]])]))
    both = np.concatenate([mine, its])
    outputs = model(mine, training=True).numpy()
    assert np.allclose(outputs, 3 * (mine - both.mean()) / np.sqrt(both.var() + 1e-3), rtol=1e-4, atol=1e-4)
    assert np.isclose(norm.moving_variance.numpy()[0], 0.99 + 0.01 * both.var(), rtol=1e-4)
    norm.trainable = False
    expected = model(mine, training=False).numpy()
    assert np.array_equal(model(mine, training=True), expected)  # frozen, it asks no other rank


def test_statistics_that_are_estimated_together_are_those_of_one_rank():
    # What the second layer sees depends on what the first one normalises by: 4 images, or 2 of them on each rank.
    generator = np.random.default_rng(0)
    mine, its = (generator.normal(mean, [1, 2, 3], (2, 3)).astype(np.float32) for mean in (0, 4))
    both, alone, ranks = np.concatenate([mine, its]), norm_model(), norm_model()
    ranks.set_weights(alone.get_weights())
    norms = batchnorm_layers(alone, trainable=True)
    StatisticsEstimator(alone, norms, [{"inputs": both}], dist.World()).run()
    kernel, bias = (weight.numpy() for weight in alone.get_layer("dense").weights)
    seen = (its - both.mean(axis=0)) / np.sqrt(both.var(axis=0) + 1e-3) @ kernel + bias  # by the other's second layer
    others = [tf.constant([its.mean(axis=0), (its**2).mean(axis=0)])]
    others += [tf.constant([seen.mean(axis=0), (seen**2).mean(axis=0)], tf.float32)]
    world = PairOfRanks(others)
    world.size, world.sum_array = 2, lambda values: 2 * values  # both ranks have read the same
    norms = batchnorm_layers(ranks, trainable=True)
    StatisticsEstimator(ranks, norms, [{"inputs": mine}], world, synchronised=True).run()
    assert all(
        np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(ranks.get_weights(), alone.get_weights(), strict=True)
    )
    ranks(mine, training=True)  # asks no other rank any more, which would have nothing to give
    assert all("_moments" not in vars(norm) for norm in norms)  # or fused batch norms would be left to Keras


def test_weights_of_synchronised_batch_norms_are_those_of_plain_ones(tmp_path):
    # Keras names the groups of a weight file after the layers' classes.
    plain, synchronised = norm_model(), norm_model()
    synchronise_batchnorm(synchronised, dist.World())
    synchronised.save_weights(tmp_path / "s.weights.h5")
    plain.load_weights(tmp_path / "s.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(plain.get_weights(), synchronised.get_weights(), strict=True))
