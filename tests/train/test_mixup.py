"""Mixed batches: the same for any number of ranks, with the loss and the accuracy of both classes."""

import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.loss import Loss
from tfinpaint.distributed.world import World
from tfinpaint.models.losses import accuracy, build_objective, of_mixed
from tfinpaint.train.mixup import Mixup, pair_up

BATCH = 6


def make_batch(generator):
    return {
        "inputs": tf.constant(generator.random((BATCH, 4, 4, 3)), tf.float32),
        "targets": tf.constant([0, 1, 2, 0, 1, 2], tf.int32),
        "shares": tf.constant([1.0, 0.25, 0.5, 0.0, 0.9, 0.3], tf.float32),
        "order": tf.constant([50, 10, 30, 60, 20, 40], tf.int64),
        "examples": tf.range(BATCH, dtype=tf.int64),
    }


class Rank(World):
    """One of several ranks, which gets the rows of all of them in the order of ranks."""

    def __init__(self, rank, batches):
        super().__init__()
        self.rank, self.batches = rank, batches

    def gather_rows(self, values, name):
        return tf.concat([batch[name.removeprefix("mixup_")] for batch in self.batches], axis=0)


def test_each_image_is_mixed_with_the_next_one_in_a_random_order():
    assert pair_up(make_batch(np.random.default_rng(0))["order"]).numpy().tolist() == [3, 4, 5, 1, 2, 0]
    assert pair_up(tf.constant([7], tf.int64)).numpy().tolist() == [0]
    order = tf.constant(np.random.default_rng(1).permutation(1000))
    partners = pair_up(order).numpy()
    assert sorted(partners) == list(range(1000))
    assert (partners != np.arange(1000)).all()


def test_inputs_and_classes_are_those_of_both_images():
    batch = make_batch(np.random.default_rng(0))
    mixed = Mixup(World())(batch)
    inputs, shares, partners = batch["inputs"].numpy(), batch["shares"].numpy(), [3, 4, 5, 1, 2, 0]
    for row, partner in enumerate(partners):
        expected = shares[row] * inputs[row] + (1 - shares[row]) * inputs[partner]
        np.testing.assert_allclose(mixed["inputs"][row], expected, rtol=1e-6)
    assert mixed["targets"].numpy().tolist() == [0, 1, 2, 0, 1, 2]
    assert mixed["partners"].numpy().tolist() == [0, 1, 2, 1, 2, 0]
    assert set(mixed) == {"inputs", "targets", "shares", "partners", "examples"}


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_ranks_mix_the_batch_of_one(ranks):
    batch = make_batch(np.random.default_rng(0))
    whole = Mixup(World())(batch)
    shared = [{name: tensor[rank::ranks] for name, tensor in batch.items()} for rank in range(ranks)]
    for rank in range(ranks):
        mixed = Mixup(Rank(rank, shared))(shared[rank])
        assert mixed.keys() == whole.keys()
        for name, tensor in mixed.items():
            np.testing.assert_array_equal(tensor.numpy(), whole[name].numpy()[rank::ranks], err_msg=name)


@pytest.mark.parametrize("weights", [None, [1.0, 5.0, 0.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_soft_targets(weights, smoothing):
    generator = np.random.default_rng(2)
    mixed = Mixup(World())(make_batch(generator))
    outputs = tf.nn.softmax(tf.constant(generator.normal(size=(BATCH, 3)), tf.float32))
    section = Loss.model_validate({"function": "NLL", "weight": weights, "label_smoothing": smoothing})
    objective = build_objective(section, "softmax")
    share, own, other = mixed["shares"].numpy(), mixed["targets"].numpy(), mixed["partners"].numpy()
    soft = share[:, None] * np.eye(3)[own] + (1 - share)[:, None] * np.eye(3)[other]
    factors = np.ones(3) if weights is None else np.array(weights)
    log_p = np.log(outputs.numpy().astype(np.float64))
    nll = -(1 - smoothing) * log_p - smoothing * log_p.mean(axis=1, keepdims=True)  # of each class as the target
    total = (soft * factors * nll).sum() / (soft * factors).sum()
    losses = objective.per_example(mixed, outputs).numpy()
    scale = np.ones(BATCH) if objective.weight is None else objective.weight(mixed).numpy()
    np.testing.assert_allclose((losses * scale).sum() / scale.sum(), total, rtol=1e-5)
    if weights is None and not smoothing:
        np.testing.assert_allclose(losses, -(soft * log_p).sum(axis=1), rtol=1e-5)


def test_the_accuracy_counts_each_class_by_its_share():
    mixed = Mixup(World())(make_batch(np.random.default_rng(0)))
    outputs = tf.one_hot([0, 2, 0, 1, 2, 0], 3)  # its own class, the partner's, neither, the partner's, ...
    found = of_mixed(accuracy, mixed, outputs).numpy()
    np.testing.assert_allclose(found, [1.0, 0.0, 0.0, 1.0, 0.1, 0.7], atol=1e-6)
