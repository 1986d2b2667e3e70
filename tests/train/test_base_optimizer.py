"""What all optimizers share: averages of the weights, and learning rates that fall from layer to layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_optimizers import ONE_OF_EACH, SECTIONS, name_of

from tfinpaint.config.optimizer import Optimizer
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.encoder import build_encoder, distances_from_head
from tfinpaint.train.optimizers import build_optimizer

DECAY = 0.75
GENERATOR = np.random.default_rng(0)
START = GENERATOR.normal(size=(3, 2)).astype(np.float32)
GRADIENTS = GENERATOR.normal(size=(5, 3, 2)).astype(np.float32)


def start(section: Optimizer) -> tuple[keras.Optimizer, keras.Variable]:
    optimizer, weight = build_optimizer(section, 1, 5), keras.Variable(START, name="kernel")
    optimizer.build([weight])
    return optimizer, weight


def train(section: Optimizer) -> tuple[keras.Optimizer, keras.Variable, list[np.ndarray]]:
    """Take five updates inside a tf.function; return the optimizer, the weight and its values after each update."""
    optimizer, weight = start(section)
    step = tf.function(lambda gradient: optimizer.apply([gradient], [weight]), autograph=False)
    values = []
    for gradient in GRADIENTS:
        step(tf.constant(gradient))
        values.append(weight.numpy())
    return optimizer, weight, values


@pytest.mark.parametrize("section", ONE_OF_EACH, ids=name_of)
def test_averages_are_those_of_a_recursion_and_change_nothing_in_training(section):
    optimizer, weight, values = train(section.model_copy(update={"ema_decay": DECAY}))
    plain_optimizer, _, plain = train(section)
    assert [value.tobytes() for value in values] == [value.tobytes() for value in plain]
    assert len(optimizer.variables) == len(plain_optimizer.variables) + 1
    biased = np.zeros_like(START, np.float64)
    for value in values:
        biased = DECAY * biased + (1 - DECAY) * value
    expected = biased / (1 - DECAY**5)
    optimizer.use_averages(True)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6, atol=1e-7)
    assert np.abs(expected - values[-1]).max() > 1e-3
    optimizer.use_averages(True)  # is in use already
    optimizer.use_averages(False)
    assert weight.numpy().tobytes() == values[-1].tobytes()
    np.testing.assert_allclose(optimizer.states_of(weight)["average"].numpy(), expected, rtol=1e-6, atol=1e-7)


def test_the_first_average_is_the_first_value_and_before_it_that_of_the_start():
    optimizer, weight = start(Optimizer(type="SGD", learning_rate=0.1, ema_decay=0.999))
    optimizer.use_averages(True)
    assert np.array_equal(weight.numpy(), START)
    optimizer.use_averages(False)
    optimizer.apply([tf.constant(GRADIENTS[0])], [weight])
    value = weight.numpy()
    optimizer.use_averages(True)
    np.testing.assert_allclose(weight.numpy(), value, rtol=1e-6)


def test_an_average_has_a_correction_of_its_own_and_survives_frozen_weights_beside_it():
    """Of two weights, the second is trained from the third update on: its average is that of its own values."""
    optimizer = build_optimizer(Optimizer(type="SGD", learning_rate=0.1, ema_decay=DECAY), 1, 5)
    weights = [keras.Variable(START), keras.Variable(START)]
    optimizer.build(weights)
    optimizer.iterations.assign(2)
    optimizer.set_ages([2, 0])
    values = []
    for gradient in GRADIENTS[:2]:
        optimizer.apply([tf.constant(gradient)] * 2, weights)
        values.append(weights[1].numpy())
    optimizer.use_averages(True)
    expected = (DECAY * values[0] + values[1]) / (1 + DECAY)
    np.testing.assert_allclose(weights[1].numpy(), expected, rtol=1e-6)
    older = START + (1 - DECAY) / (1 - DECAY**3) * (values[0] - START)
    older = older + (1 - DECAY) / (1 - DECAY**4) * (values[1] - older)
    np.testing.assert_allclose(weights[0].numpy(), older, rtol=1e-6)


@pytest.mark.parametrize(
    "section",
    [
        Optimizer(type="AdamW", learning_rate=0.1, eps=0.5, weight_decay=0.5),
        *(
            pytest.param(each, marks=pytest.mark.stress)
            for each in SECTIONS
            if each.type in ("SGD", "LAMB") or (each.type == "AdamW" and each.amsgrad)
        ),
    ],
    ids=name_of,
)
def test_layer_decay_multiplies_the_learning_rate_of_a_group(section):
    def change(decay: float) -> dict[str, np.ndarray]:
        keras.utils.set_random_seed(0)
        model = build_classifier(build_encoder("tiny", "before_add", 32, 32), 2)
        weights = model.trainable_variables
        distances = distances_from_head("tiny", "before_add", model)
        optimizer = build_optimizer(section.model_copy(update={"layer_decay": decay}), 1, 1, distances=distances)
        optimizer.build(weights)
        before = [weight.numpy() for weight in weights]
        generator = np.random.default_rng(0)
        gradients = [tf.constant(generator.normal(size=weight.shape), tf.float32) for weight in weights]
        tf.function(lambda: optimizer.apply(gradients, weights), autograph=False)()
        return {w.path: w.numpy() - b for w, b in zip(weights, before, strict=True)}

    plain, decayed = change(1.0), change(0.5)
    for path, step in plain.items():
        group = path.removeprefix("conv")[0]
        factor = 0.5 ** (6 - int(group) if group.isdigit() else 0)  # conv1_ to conv5_, and the head
        np.testing.assert_allclose(decayed[path], factor * step, rtol=1e-3, atol=3e-7, err_msg=path)
    assert np.abs(plain["conv1_conv/kernel"]).max() > 10 * np.abs(decayed["conv1_conv/kernel"]).max() > 0
    assert decayed["dense_1/kernel"].tobytes() == plain["dense_1/kernel"].tobytes()


@pytest.mark.parametrize("section", ONE_OF_EACH, ids=name_of)
def test_groups_of_layers_are_unfrozen_from_the_head_to_the_stem(section):
    """With 2 epochs of 1 step between groups, stage 5 is trained from the third update on, and the stem in none."""
    section = section.model_copy(update={"unfreeze_every": 2, "ema_decay": DECAY})
    image = x = keras.Input((3,))
    for name in ("conv1_conv", "conv4_block1_1_conv", "conv5_block1_1_conv", "dense_1"):
        x = keras.layers.Dense(3, name=name, bias_initializer="glorot_normal")(x)
    weights = keras.Model(image, x).trainable_variables
    by_layer = {"conv1_conv": 5, "conv4_block1_1_conv": 2, "conv5_block1_1_conv": 1}
    distances = [by_layer.get(weight.path.split("/")[0], 0) for weight in weights]
    optimizer = build_optimizer(section, 1, 10, distances=by_layer)
    optimizer.build(weights)
    start = [weight.numpy() for weight in weights]
    gradients = [tf.constant(GENERATOR.normal(size=weight.shape), tf.float32) for weight in weights]
    apply = tf.function(lambda: optimizer.apply(gradients, weights), autograph=False)
    for update in range(5):
        before = [weight.numpy() for weight in weights]
        apply()
        changed = {d for d, w, b in zip(distances, weights, before, strict=True) if w.numpy().tobytes() != b.tobytes()}
        assert changed == set(range(update // 2 + 1)), update
    optimizer.use_averages(True)
    for distance, weight, first in zip(distances, weights, start, strict=True):
        assert (weight.numpy().tobytes() == first.tobytes()) == (distance == 5), weight.path
