"""The loop on one rank: the update, exact means, parts of a batch, parts of an epoch, and what is traced."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_model import batch, linear, squared

from tfinpaint.distributed import world as dist
from tfinpaint.models import losses
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.trainable import set_trainable
from tfinpaint.train.fit import Callbacks, fit
from tfinpaint.train.loss import LossShares
from tfinpaint.train.step import ControlFlags, StepOptions
from tfinpaint.train.totals import PartialEpoch
from tfinpaint.train.trainer import Trainer


def test_one_step_is_the_hand_computed_one():
    # y = w.x with w = (1, 2); x = (1, 0), (0, 1); targets 0, 0. Loss = mean(1, 4) = 2.5; dL/dw = (2*1/2, 2*2/2) =
    # (1, 2); SGD 0.1 gives w = (0.9, 1.8).
    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=dist.World())
    result = trainer.train_steps(iter([batch([[1, 0], [0, 1]], [[0], [0]])]), 1)
    assert result.values == {"loss": 2.5}
    assert np.allclose(trainer.model.get_weights()[0][:, 0], [0.9, 1.8])


@pytest.mark.parametrize("jit", [False, True])
def test_xla_of_the_inner_step_changes_nothing(jit):
    trainer = Trainer(
        linear(), keras.optimizers.SGD(0.1), squared, world=dist.World(), step_options=StepOptions(jit_compile=jit)
    )
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
            model,
            keras.optimizers.SGD(0.1),
            objective,
            world=dist.World(),
            step_options=StepOptions(accumulate_steps=parts, jit_compile=jit),
        )
        result = trainer.train_steps(iter([example] * 3), 3)
        found.append([result.values["loss"], result.images, *model.get_weights()[0][:, 0], *model.get_weights()[1]])
    assert found[0][1] == 36
    assert np.allclose(found[1], found[0], rtol=1e-6)
    assert np.allclose(found[2], found[0], rtol=1e-6)


def test_gradients_are_clipped_to_their_global_norm():
    # The gradient is (1, 2), of norm sqrt(5); clipped to 1 it is (1, 2) / sqrt(5), and to 3 it is itself.
    for clip_norm, expected in ((1.0, [1 - 0.1 / 5**0.5, 2 - 0.2 / 5**0.5]), (3.0, [0.9, 1.8])):
        trainer = Trainer(
            linear(),
            keras.optimizers.SGD(0.1),
            squared,
            world=dist.World(),
            step_options=StepOptions(clip_norm=clip_norm),
        )
        trainer.train_steps(iter([batch([[1, 0], [0, 1]], [[0], [0]])]), 1)
        assert np.allclose(trainer.model.get_weights()[0][:, 0], expected)


def test_fit_calls_in_order_and_numbers_epochs_from_the_first():
    trainer = Trainer(linear(), keras.optimizers.SGD(0.1), squared, world=dist.World())
    data = tf.data.Dataset.from_tensors(batch([[1.0, 0.0]], [[0.0]])).repeat()
    calls = []
    fit(
        trainer,
        data,
        data.take(2),
        Callbacks(
            recalibrate=lambda: calls.append("recalibrate"),
            on_step=lambda epoch, read_loss: calls.append((epoch, read_loss() > 0)),
            on_epoch_end=[lambda epoch, train, test: calls.append((epoch, train.images, test.images))],
        ),
        first_epoch=3,
        num_epochs=4,
        steps_per_epoch=2,
    )
    assert calls == [(3, True), (3, True), "recalibrate", (3, 2, 2), (4, True), (4, True), "recalibrate", (4, 2, 2)]


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
        for pair in pairs.batch(4):
            trainer.predict(pair["inputs"])
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
