"""The loop on one rank: the update, exact means, resume, failure; and the batch-norm statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.distributed import world as dist
from tfinpaint.distributed.batchnorm import synchronise_batchnorm
from tfinpaint.errors import UserError
from tfinpaint.models import losses
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.trainable import set_trainable
from tfinpaint.train.batchnorm import StatisticsEstimator, batchnorm_layers
from tfinpaint.train.fit import fit
from tfinpaint.train.loss import LossShares
from tfinpaint.train.step import ControlFlags
from tfinpaint.train.totals import PartialEpoch
from tfinpaint.train.trainer import Trainer

squared = losses.of_targets(lambda targets, outputs: tf.reduce_mean(tf.square(outputs - targets), axis=1))


def linear(weight=(1.0, 2.0)):
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array(weight, np.float32)[:, None]])
    return model


def batch(inputs, targets):
    return {"inputs": tf.constant(inputs, tf.float32), "targets": tf.constant(targets, tf.float32)}


def test_one_step_is_the_hand_computed_one():
    # y = w.x with w = (1, 2); x = (1, 0), (0, 1); targets 0, 0. Loss = mean(1, 4) = 2.5; dL/dw = (2*1/2, 2*2/2) =
    # (1, 2); SGD 0.1 gives w = (0.9, 1.8).
    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=dist.World())
    result = trainer.train_steps(iter([batch([[1, 0], [0, 1]], [[0], [0]])]), 1)
    assert result.values == {"loss": 2.5}
    assert np.allclose(trainer.model.get_weights()[0][:, 0], [0.9, 1.8])


@pytest.mark.parametrize("jit", [False, True])
def test_xla_of_the_inner_step_changes_nothing(jit):
    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=dist.World(), jit_compile=jit)
    trainer.train_steps(iter([batch([[1, 0], [0, 1]], [[0], [0]])] * 3), 3)
    assert np.allclose(trainer.model.get_weights()[0][:, 0], [0.9**3, 2 * 0.9**3])


def test_evaluation_is_the_mean_over_examples_not_over_batches():
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(2, activation="softmax")])
    objective = losses.of_targets(losses.nll_of_probabilities)
    trainer = Trainer(model, keras.optimizers.SGD(), objective, {"accuracy": losses.accuracy}, world=dist.World())
    images = np.random.default_rng(0).random((7, 8), np.float32)
    classes = np.array([0, 1, 1, 0, 1, 0, 0], np.int32)
    batches = [{"inputs": images[at : at + 3], "targets": tf.constant(classes[at : at + 3])} for at in (0, 3, 6)]
    seen = []
    result = trainer.evaluate(batches, on_batch=lambda batch, outputs: seen.append(len(outputs)))
    outputs = model(images, training=False).numpy()
    assert seen == [3, 3, 1]
    assert result.images == 7
    assert np.isclose(result.values["accuracy"], (outputs.argmax(1) == classes).mean())
    assert np.isclose(result.values["loss"], -np.log(outputs[range(7), classes]).mean(), rtol=1e-5)


def test_ranks_drop_other_features_but_start_alike():
    states = []
    for rank in (0, 1):
        world = dist.World()
        world.rank = rank
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dropout(0.5, seed=7), keras.layers.Dense(1)])
        Trainer(model, None, None, world=world).synchronise()
        states += [v.numpy().tolist() for v in model.variables if "seed_generator" in v.path]
    assert states == [[7, 0], [8, 0]]


def test_weighted_examples_share_one_mean():
    # Weights 3, 1, 0 of the targets 3, 1, 0: losses (y - t)^2 = (1 - 3)^2, (2 - 1)^2, (3 - 0)^2 = 4, 1, 9 and the mean
    # (3*4 + 1*1) / 4 = 3.25. dL/dw = (3 * 2 * (1 - 3) * x1 + 1 * 2 * (2 - 1) * x2) / 4 with x1 = (1, 0), x2 = (0, 1):
    # (-12, 2) / 4 = (-3, 0.5), hence SGD 0.1 gives w = (1.3, 1.95).
    weighted = losses.Objective(squared.per_example, lambda batch: batch["targets"][:, 0])
    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), weighted, world=dist.World())
    example = batch([[1, 0], [0, 1], [1, 1]], [[3], [1], [0]])
    assert trainer.evaluate([example]).values == {"loss": 3.25}
    assert trainer.train_steps(iter([example]), 1).values == {"loss": 3.25}
    assert np.allclose(trainer.model.get_weights()[0][:, 0], [1.3, 1.95])
    nothing = batch([[1, 0]], [[0]])  # a batch of no weight: no gradient, no division by zero
    assert trainer.train_steps(iter([nothing]), 1).values == {"loss": 0.0}
    assert np.allclose(trainer.model.get_weights()[0][:, 0], [1.3, 1.95])


@pytest.mark.parametrize("weight", [None, lambda batch: tf.fill(tf.shape(batch["targets"])[:1], 5.0)])
def test_regularizers_add_their_gradient_whatever_the_weights(weight):
    # An L2 factor of 0.5 on w = (1, 2) adds 2 * 0.5 * w to a gradient of 0 (outputs and targets are 0): SGD 0.1 gives
    # w - 0.1 w = (0.9, 1.8). The loss that is reported is that of the data alone.
    model = keras.Sequential(
        [keras.layers.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.5))]
    )
    model.set_weights([np.array([[1.0], [2.0]], np.float32)])
    trainer = Trainer(
        model, keras.optimizers.SGD(0.1), losses.Objective(squared.per_example, weight), world=dist.World()
    )
    assert trainer.train_steps(iter([batch([[0, 0]], [[0]])]), 1).values == {"loss": 0.0}
    assert np.allclose(model.get_weights()[0][:, 0], [0.9, 1.8])


def test_a_loss_that_is_not_finite_stops_the_run():
    trainer = Trainer(linear((float("nan"), 1.0)), keras.optimizers.SGD(), squared, world=dist.World())
    with pytest.raises(UserError, match="training, step 1: the gradients of rank 0 are not finite"):
        trainer.train_steps(iter([batch([[1, 1]], [[0]])]), 1)


def test_a_gradient_that_is_not_finite_changes_no_weight():
    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=dist.World())
    batches = [batch([[1, 0]], [[0]]), batch([[float("inf"), 0]], [[0]]), batch([[1, 0]], [[0]])]
    with pytest.raises(UserError, match="epoch 4, step 2: the gradients of rank 0 are not finite"):
        trainer.train_steps(iter(batches), 3, where="epoch 4")
    # w1 = 1 - 0.1 * 2 = 0.8 by the first step. The third was on its way when the second was looked at: it changes nothing.
    assert np.allclose(trainer.model.get_weights()[0][:, 0], [0.8, 2.0])


def noisy():
    """A model whose forward pass changes its state: batch-norm statistics and the state of a dropout's generator."""
    layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5, seed=3), keras.layers.Dense(1)]
    return keras.Sequential([keras.layers.Input((2,)), *layers])


@pytest.mark.parametrize("jit", [False, True])
def test_model_and_optimizer_are_those_of_the_last_good_step(jit):
    good = [batch(np.random.default_rng(n).normal(size=(4, 2)), np.ones((4, 1))) for n in range(3)]
    bad, found = batch([[float("nan"), 0]] * 4, [[0]] * 4), []
    for batches in (good, [*good, bad, *good]):
        keras.utils.set_random_seed(0)
        trainer = Trainer(noisy(), keras.optimizers.Adam(0.1), squared, world=dist.World(), jit_compile=jit)
        if len(batches) == 3:
            trainer.train_steps(iter(batches), 3)
        else:
            with pytest.raises(UserError, match=r"step 4: the gradients of rank 0 .* are those of the step before"):
                trainer.train_steps(iter(batches), 7)
        found.append([v.numpy() for v in (*trainer.model.variables, *trainer.optimizer.variables)])
    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))
    assert len(found[0]) > 10


def test_a_loss_that_is_not_finite_stops_before_the_update_though_its_gradient_is_finite():
    # d|y - t| / dy is 1 or -1, also where t is infinite.
    absolute = losses.of_targets(lambda targets, outputs: tf.reduce_mean(tf.abs(outputs - targets), axis=1))
    for scale_loss in (False, True):  # of no help
        trainer = Trainer(linear(), keras.optimizers.SGD(0.1), absolute, world=dist.World(), scale_loss=scale_loss)
        with pytest.raises(UserError, match="step 1: the loss on the images of rank 0 is not finite"):
            trainer.train_steps(iter([batch([[1, 0]], [[float("inf")]]), batch([[1, 0]], [[0]])]), 2)
        assert trainer.model.get_weights()[0][:, 0].tolist() == [1.0, 2.0]


def test_the_batch_of_the_nonfinite_step_is_kept_and_named():
    bad, kept = batch([[float("inf"), 0]], [[0]]), []

    def keep(batch, loss, where):
        kept.append((batch, loss, where))
        return "/run/nonfinite_batches/x.npz"

    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=dist.World())
    trainer.on_nonfinite = keep
    with pytest.raises(UserError, match=r"Examine /run/nonfinite_batches/x\.npz with tfinpaint replay"):
        trainer.train_steps(iter([batch([[1, 0]], [[0]]), bad, batch([[1, 0]], [[0]])]), 3, where="epoch 4")
    assert [(b is bad, loss, where) for b, loss, where in kept] == [(True, float("inf"), "epoch 4, step 2")]


def test_an_evaluation_that_is_not_finite_stops_the_run():
    trainer = Trainer(linear(), None, squared, world=dist.World())
    with pytest.raises(UserError, match="epoch 2, evaluation: the loss on the images of rank 0 is not finite"):
        trainer.evaluate([batch([[float("nan"), 0]], [[0]])], where="epoch 2, evaluation")


@pytest.mark.parametrize("weight", [None, lambda batch: batch["targets"][:, 0]])
@pytest.mark.parametrize("jit", [False, True])
def test_parts_of_a_batch_add_up_to_the_whole(weight, jit):
    # With weights, the parts' shares of the weight differ: a mean of the parts' means would be another number.
    generator = np.random.default_rng(0)
    example = batch(generator.normal(size=(12, 2)), generator.random((12, 1)))
    found = []
    for parts in (1, 2, 4):
        model = keras.Sequential(
            [keras.layers.Input((2,)), keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.1))]
        )
        model.set_weights([np.array([[1.0], [2.0]], np.float32), np.zeros(1, np.float32)])
        objective = losses.Objective(squared.per_example, weight)
        trainer = Trainer(
            model, keras.optimizers.SGD(0.1), objective, world=dist.World(), accumulate_steps=parts, jit_compile=jit
        )
        result = trainer.train_steps(iter([example] * 3), 3)
        found.append([result.values["loss"], result.images, *model.get_weights()[0][:, 0], *model.get_weights()[1]])
    assert found[0][1] == 36
    assert np.allclose(found[1], found[0], rtol=1e-6)
    assert np.allclose(found[2], found[0], rtol=1e-6)


def test_gradients_are_clipped_to_their_global_norm():
    # The gradient is (1, 2), of norm sqrt(5); clipped to 1 it is (1, 2) / sqrt(5), and to 3 it is itself.
    for clip_norm, expected in ((1.0, [1 - 0.1 / 5**0.5, 2 - 0.2 / 5**0.5]), (3.0, [0.9, 1.8])):
        trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=dist.World(), clip_norm=clip_norm)
        trainer.train_steps(iter([batch([[1, 0], [0, 1]], [[0], [0]])]), 1)
        assert np.allclose(trainer.model.get_weights()[0][:, 0], expected)


def test_the_loss_scale_changes_no_gradient_and_halves_where_they_overflow():
    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=dist.World(), scale_loss=True)
    scale, finite_steps = trainer.optimizer.variables[-2:]
    good, bad = batch([[1, 0], [0, 1]], [[0], [0]]), batch([[1e38, 0]], [[0]])
    trainer.train_steps(iter([good]), 1)
    assert (float(scale), int(finite_steps)) == (2.0**15, 1)
    assert np.allclose(trainer.model.get_weights()[0][:, 0], [0.9, 1.8])
    finite_steps.assign(1999)
    trainer.train_steps(iter([good]), 1)
    assert (float(scale), int(finite_steps)) == (2.0**16, 0)
    kept = trainer.model.get_weights()[0]
    scale.assign(8.0)
    # The loss is (0.81 * 3e18)^2 = 6e36; its gradient, 2 * 0.81 * 9e36 = 1.5e37, times 64 is beyond float32's 3.4e38.
    overflowing = batch([[3e18, 0]], [[0]])
    scale.assign(64.0)
    trainer.train_steps(iter([overflowing, good]), 2)
    assert (float(scale), int(finite_steps)) == (32.0, 1)
    assert np.allclose(trainer.model.get_weights()[0], kept * 0.9)  # by the good batch alone
    kept = trainer.model.get_weights()[0]
    with pytest.raises(UserError, match="step 1: the gradients of rank 0 are not finite"):
        trainer.train_steps(iter([bad, good]), 2)  # the loss is infinite, which no scale helps
    assert (float(scale), int(finite_steps)) == (32.0, 1)
    assert np.array_equal(trainer.model.get_weights()[0], kept)


def test_fit_calls_in_order_and_numbers_epochs_from_the_first():
    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=dist.World())
    data = tf.data.Dataset.from_tensors(batch([[1.0, 0.0]], [[0.0]])).repeat()
    calls = []
    fit(
        trainer,
        data,
        data.take(2),
        first_epoch=3,
        num_epochs=4,
        steps_per_epoch=2,
        recalibrate=lambda: calls.append("recalibrate"),
        on_step=lambda epoch, read_loss: calls.append((epoch, read_loss() > 0)),
        on_epoch_end=[lambda epoch, train, test: calls.append((epoch, train.images, test.images))],
    )
    assert calls == [(3, True), (3, True), "recalibrate", (3, 2, 2), (4, True), (4, True), "recalibrate", (4, 2, 2)]


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


def test_weights_that_differ_or_are_not_finite_are_told_by_rank():
    class Beside(dist.World):
        """Rank 0 of three; the others' weights are told."""

        def all_gather(self, value):
            return [value, *others(value)]

    trainer = Trainer(linear(), None, None, world=Beside())
    others = lambda mine: [mine, mine]  # noqa: E731
    trainer.check_replicas_equal()
    others = lambda mine: [mine, {**mine, "digest": "0" * 64}]  # noqa: E731
    with pytest.raises(UserError, match="the ranks hold different weights: those of rank 2 differ from the others"):
        trainer.check_replicas_equal()
    others = lambda mine: [{**mine, "finite": False}, mine]  # noqa: E731
    with pytest.raises(UserError, match=r"the weights of rank 1 are not finite \(inf or nan\)"):
        trainer.check_replicas_equal()
    trainer.model.set_weights([np.array([[np.inf], [1.0]], np.float32)])
    others = lambda mine: []  # noqa: E731
    with pytest.raises(UserError, match="the weights of rank 0 are not finite"):
        trainer.check_replicas_equal()


def test_gradients_that_overflow_on_their_way_change_no_weight():
    class Compressing(dist.World):
        def __init__(self):
            super().__init__()
            self.compression = "fp16"

        def average_gradients(self, gradients):
            return [tf.cast(tf.cast(gradient, tf.float16), tf.float32) for gradient in gradients]

    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=Compressing(), scale_loss=True)
    scale = trainer.optimizer.variables[-2]
    trainer.train_steps(iter([batch([[1e3, 0]], [[0]])]), 1)  # a gradient of 2e6, times 2^15
    assert trainer.model.get_weights()[0][:, 0].tolist() == [1.0, 2.0]
    assert float(scale) == 2.0**14
    scale.assign(2.0)
    with pytest.raises(UserError, match="the gradients of all ranks together, as float16, are not finite"):
        trainer.train_steps(iter([batch([[1e3, 0]], [[0]])]), 1)
    assert trainer.model.get_weights()[0][:, 0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("wished_in", "granted_after"), [(1, [2]), (2, [3]), (4, [4]), (5, [4])])
def test_what_is_asked_before_a_step_is_granted_once_after_the_next(wished_in, granted_after):
    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=dist.World())
    asks, granted = 0, []

    def ask():
        nonlocal asks
        asks += 1
        return ControlFlags(rejoin=asks >= wished_in and not granted)

    def pause(step, asked, so_far):
        assert not asked.save
        if asked.rejoin:
            granted.append(step)

    example = batch([[1, 0]], [[0]])
    trainer.train_steps(iter([example] * 4), 4, ask=ask, pause=pause)
    # What is asked too late for the last step is granted after it, before the evaluation.
    assert granted == granted_after


def test_an_epoch_that_goes_on_adds_up_to_the_same_numbers():
    examples = [batch([[1, i], [2, 1]], [[0], [i]]) for i in range(5)]
    whole = Trainer(linear(), keras.optimizers.SGD(0.01), squared, world=dist.World())
    expected = whole.train_steps(iter(examples), 5)
    parted = Trainer(linear(), keras.optimizers.SGD(0.01), squared, world=dist.World())
    kept = {}
    with pytest.raises(StopIteration):
        parted.train_steps(iter(examples[:2]), 5, pause=lambda step, _, so_far: kept.update({step: so_far()}))
    so_far = kept[2]
    assert (so_far.sums.shape, so_far.steps, so_far.images) == ((8, len(so_far.names)), 2, 4)
    result = parted.train_steps(iter(examples[2:]), 5, so_far=so_far)
    assert (result.values, result.images) == (expected.values, 10)
    assert result.seconds > so_far.seconds
    assert all(
        a.tobytes() == b.tobytes() for a, b in zip(whole.model.get_weights(), parted.model.get_weights(), strict=True)
    )


def test_what_was_summed_up_of_another_loss_stays_where_it_is():
    trainer = Trainer(
        linear(),
        keras.optimizers.SGD(0.01),
        squared,
        {"error": lambda targets, outputs: tf.abs(outputs - targets)[:, 0]},
        world=dist.World(),
    )
    before = PartialEpoch(("weight", "reconstruction_loss"), np.array([[2.0, 6.0]]), 1, 2, 1.0)
    kept = []
    trainer.train_steps(
        iter([batch([[1, 0]], [[0]])]), 2, so_far=before, pause=lambda _, __, so_far: kept.append(so_far())
    )
    assert kept[0].names == ("weight", "reconstruction_loss", "error")
    assert kept[0].sums.sum(axis=0).tolist() == [3.0, 7.0, 1.0]


def test_every_step_is_traced_once_and_a_smaller_last_batch_once_more():
    model = keras.Sequential(
        [keras.layers.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    )
    objective = losses.of_targets(losses.nll_of_probabilities)
    trainer = Trainer(model, keras.optimizers.SGD(), objective, world=dist.World())
    images, classes = tf.random.uniform((10, 8, 8, 3)), tf.constant([0, 1] * 5)
    pairs = tf.data.Dataset.from_tensor_slices({"inputs": images, "targets": classes})
    for epoch in range(3):
        trainer.train_steps(iter(pairs.batch(4, drop_remainder=True).repeat()), 5, where=f"epoch {epoch}")
        trainer.evaluate(pairs.batch(4))
        for batch in pairs.batch(4):
            trainer.predict(batch["inputs"])
    functions = (trainer._step._traced, trainer._step._forward_backward, trainer._test_step, trainer._predict_step)
    assert [function.experimental_get_tracing_count() for function in functions] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("trainable", "trained"),
    [
        (["conv5_*", "dense_1"], 3),
        *(pytest.param(*case, marks=pytest.mark.stress) for case in [("head_only", 0), ("all", 16)]),
    ],
)
def test_frozen_layers_have_no_gradients(trainable, trained):
    model = build_classifier(build_encoder("tiny", "before_add", 32, 32), 2)
    set_trainable(model, trainable)
    objective = losses.of_targets(losses.nll_of_probabilities)
    trainer = Trainer(model, keras.optimizers.SGD(), objective, world=dist.World())
    batch = {"inputs": tf.zeros((4, 32, 32, 3)), "targets": tf.constant([0, 1, 0, 1])}
    step = trainer._step._forward_backward.get_concrete_function(batch, LossShares(*[tf.constant(1.0)] * 3))
    kinds = [operation.type for operation in step.graph.get_operations()]
    assert kinds.count("Conv2DBackpropFilter") == trained  # gradients of kernels
    assert sum(kind.startswith("FusedBatchNormGrad") for kind in kinds) == trained
