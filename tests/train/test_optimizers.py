"""Every formula of the optimizers against numbers worked by hand and a plain-numpy reference."""

import functools
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.optimizer import LrScheduler, Optimizer
from tfinpaint.models.decoder import ChannelwiseDense
from tfinpaint.train.optimizers import build_optimizer

START = np.array([1.0, -2.0])
GRADIENTS = [np.array([0.5, 1.0]), np.array([-0.25, 0.5]), np.array([1.0, -0.5])]

# The weights after the first of GRADIENTS, from START; the elements are w = 1, g = 0.5 and w = -2, g = 1.
FIRST_STEPS = [
    # w - 0.1 g
    (Optimizer(type="SGD", learning_rate=0.1), [0.95, -2.1]),
    # g + 0.2 w = 0.7, 0.6
    (Optimizer(type="SGD", learning_rate=0.1, weight_decay=0.2), [0.93, -2.06]),
    # the buffer starts as g: dampening is not applied to it
    (Optimizer(type="SGD", learning_rate=0.1, momentum=0.9, dampening=0.5), [0.95, -2.1]),
    # g + 0.2 w = 0.7, 0.6 = the buffer d; d + 0.9 d = 1.33, 1.14
    (Optimizer(type="SGD", learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.2), [0.867, -2.114]),
    # |w| = 5 ** 0.5 = 2.2360680, |g| = 1.25 ** 0.5 = 1.1180340, their ratio 2: trust 0.2; w - 0.1 * 0.2 g
    (Optimizer(type="LARS", learning_rate=0.1, eta=0.1), [0.99, -2.02]),
    # trust = 0.1 / (|g| / |w| + 0.5) = 0.1 / (0.5 + 0.5) = 0.1; g + 0.5 w = 1, 0; v = 0.01 (1, 0); w - v
    (Optimizer(type="LARS", learning_rate=0.1, eta=0.1, momentum=0.9, weight_decay=0.5), [0.99, -2.0]),
    # v = 0.02 g (see above); 0.02 g + 0.9 v = 0.038 g
    (Optimizer(type="LARS", learning_rate=0.1, eta=0.1, momentum=0.9, nesterov=True), [0.981, -2.038]),
    (Optimizer(type="LARS", learning_rate=0.1, eta=0.1, momentum=0.9, dampening=0.5), [0.99, -2.02]),
    # g / sqrt(g^2) is the sign; the decay of the rate starts with the second step
    (Optimizer(type="Adagrad", learning_rate=0.1, lr_decay=0.5), [0.9, -2.1]),
    # g + w = 1.5, -1
    (Optimizer(type="Adagrad", learning_rate=0.1, weight_decay=1.0), [0.9, -1.9]),
    # m_hat = g, v_hat = g^2: the sign, but for eps: 0.1 * 0.5 / (0.5 + 0.5), 0.1 * 1 / (1 + 0.5)
    (Optimizer(type="Adam", learning_rate=0.1, eps=0.5), [0.95, -2.0666667]),
    # g + w = 1.5, -1: 0.1 * 1.5 / (1.5 + 0.5), 0.1 * -1 / (1 + 0.5)
    (Optimizer(type="Adam", learning_rate=0.1, eps=0.5, weight_decay=1.0), [0.925, -1.9333333]),
    (Optimizer(type="Adam", learning_rate=0.1, beta1=0.5, beta2=0.25, eps=0.5, amsgrad=True), [0.95, -2.0666667]),
    (Optimizer(type="Adam", learning_rate=0.1, beta1=0.5, beta2=0.25), [0.9, -2.1]),
    # w (1 - 0.1 * 0.5) = 0.95, -1.9, then the step of Adam, 0.05, 0.0666667
    (Optimizer(type="AdamW", learning_rate=0.1, eps=0.5, weight_decay=0.5), [0.9, -1.9666667]),
    (Optimizer(type="AdamW", learning_rate=0.1, eps=0.5, weight_decay=0.5, beta2=0.25, amsgrad=True), [0.9, -1.9666667]),
    # r = sign = (1, 1), |w| / |r| = (5 / 2) ** 0.5 = 1.5811388
    (Optimizer(type="LAMB", learning_rate=0.1), [0.8418861, -2.1581139]),
    # r = (0.5, 0.6666667) + 0.5 w = (1, -0.3333333); |r| = (10 / 9) ** 0.5 = 1.0540926; the ratio 4.5 ** 0.5 = 2.1213203
    (Optimizer(type="LAMB", learning_rate=0.1, eps=0.5, weight_decay=0.5), [0.7878680, -1.9292893]),
    # |r| = (1 / 4 + 4 / 9) ** 0.5 = 5 / 6: the ratio 2.6832816; times 0.1 * (0.5, 0.6666667)
    (Optimizer(type="LAMB", learning_rate=0.1, eps=0.5, beta2=0.25, amsgrad=True), [0.8658359, -2.1788854]),
    # sqrt(v) = sqrt(0.25 g^2) = 0.5 |g|: 0.1 * 0.5 / (0.25 + 0.25), 0.1 * 1 / (0.5 + 0.25)
    (Optimizer(type="RMSprop", learning_rate=0.1, alpha=0.75, eps=0.25), [0.9, -2.1333333]),
    # 0.25 g^2 - (0.25 g)^2 = 0.1875 g^2; the root 0.4330127 |g|: 0.05 / (0.2165064 + 0.25), 0.1 / (0.4330127 + 0.25)
    (Optimizer(type="RMSprop", learning_rate=0.1, alpha=0.75, eps=0.25, centered=True), [0.8928203, -2.1464102]),
    # the buffer starts as g / avg; g + w = 1.5, -1: 0.1 * 1.5 / (0.75 + 0.25), -0.1 / (0.5 + 0.25)
    (
        Optimizer(type="RMSprop", learning_rate=0.1, alpha=0.75, eps=0.25, momentum=0.9, weight_decay=1.0),
        [0.85, -1.8666667],
    ),
]  # fmt: skip
SECTIONS = [section for section, _ in FIRST_STEPS]
# For what does not depend on an optimizer's options: the last of each type, and all others in the stress tier.
ONE_OF_EACH = [*{section.type: section for section in SECTIONS}.values()]
ONE_OF_EACH += [pytest.param(each, marks=pytest.mark.stress) for each in SECTIONS if each not in ONE_OF_EACH]


def name_of(section: Optimizer) -> str:
    given = section.model_dump(exclude_defaults=True, exclude={"type", "learning_rate"})
    return section.type + "".join(f"-{key}" for key in given)


def reference(section: Optimizer, gradients: list[np.ndarray], weights: np.ndarray = START) -> list[np.ndarray]:
    """The weights after each step, in float64, from the formulas of torch.optim's documentation and of the papers."""
    s, w, norm, lr, results = section, weights.astype(np.float64), np.linalg.norm, section.learning_rate, []
    buffer = mean = square = largest = np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        if s.type not in ("AdamW", "LAMB"):
            plain, g = g, g + s.weight_decay * w
        if s.type in ("SGD", "LARS"):
            if s.type == "LARS":
                positive = norm(w) > 0 and norm(plain) > 0
                g = g * lr * (s.eta * norm(w) / (norm(plain) + s.weight_decay * norm(w)) if positive else 1)
            buffer = g if t == 1 else s.momentum * buffer + (1 - s.dampening) * g
            step = g + s.momentum * buffer if s.nesterov else buffer if s.momentum else g
            w = w - (step if s.type == "LARS" else lr * step)
        elif s.type == "Adagrad":
            square = square + g * g
            w = w - lr / (1 + (t - 1) * s.lr_decay) * g / (np.sqrt(square) + 1e-10)
        elif s.type == "RMSprop":
            square = s.alpha * square + (1 - s.alpha) * g * g
            mean = s.alpha * mean + (1 - s.alpha) * g
            buffer = s.momentum * buffer + g / (np.sqrt(square - (mean * mean if s.centered else 0)) + s.eps)
            w = w - lr * buffer
        else:
            mean = s.beta1 * mean + (1 - s.beta1) * g
            square = s.beta2 * square + (1 - s.beta2) * g * g
            largest = np.maximum(largest, square)
            second = np.sqrt(largest if s.amsgrad else square) / np.sqrt(1 - s.beta2**t)
            step = mean / (1 - s.beta1**t) / (second + s.eps)
            if s.type == "AdamW":
                w = w - lr * s.weight_decay * w
            if s.type == "LAMB":
                step = step + s.weight_decay * w
                step = step * (norm(w) / norm(step) if norm(w) > 0 and norm(step) > 0 else 1)
            w = w - lr * step
        results.append(w)
    return results


def start(section: Optimizer, weights: np.ndarray = START) -> tuple[keras.Optimizer, keras.Variable]:
    variable = keras.Variable(weights.astype(np.float32))
    optimizer = build_optimizer(section, 1, 3)
    optimizer.build([variable])
    return optimizer, variable


@functools.cache
def traced(section: Optimizer) -> tuple[list[keras.Variable], list[np.ndarray], Callable[[tf.Tensor], None]]:
    """The weight and all variables of an optimizer, their values at the beginning, and its step as a tf.function."""
    optimizer, variable = start(section)
    step = tf.function(lambda gradient: optimizer.apply([gradient], [variable]), autograph=False)
    variables = [variable, *optimizer.variables]
    return variables, [each.numpy() for each in variables], step


def run(section: Optimizer, gradients: list[np.ndarray], weights: np.ndarray = START) -> list[np.ndarray]:
    """The weights after each step of the optimizer, inside a tf.function."""
    (variable, *states), (_, *values), step = traced(section)
    variable.assign(weights)
    for state, value in zip(states, values, strict=True):
        state.assign(value)
    results = []
    for gradient in gradients:
        step(tf.constant(gradient, tf.float32))
        results.append(variable.numpy())
    return results


@pytest.mark.parametrize(("section", "expected"), FIRST_STEPS, ids=[name_of(section) for section in SECTIONS])
def test_three_steps(section, expected):
    results = run(section, GRADIENTS)
    assert np.allclose(results[0], expected, rtol=0, atol=4e-7)
    assert np.allclose(results, reference(section, GRADIENTS), rtol=0, atol=1e-6)


def test_the_second_steps_worked_by_hand():
    """Where a formula differs from its neighbours only from the second step on; w = 1, g = 0.5 then -0.25."""
    for section, expected in [
        # buf = 0.9 * 0.5 + 0.5 * -0.25 = 0.325: 0.95 - 0.0325
        (Optimizer(type="SGD", learning_rate=0.1, momentum=0.9, dampening=0.5), 0.9175),
        # 0.1 / (1 + 1 * 0.5) * -0.25 / sqrt(0.25 + 0.0625) = -0.0298142: 0.9 + 0.0298142
        (Optimizer(type="Adagrad", learning_rate=0.1, lr_decay=0.5), 0.9298142),
        # m = 0.5 * 0.25 - 0.125 = 0; a step of nothing
        (Optimizer(type="Adam", learning_rate=0.1, beta1=0.5, beta2=0.25), 0.9),
        # v = 0.75 * 0.25 = 0.1875, then 0.25 * 0.1875 + 0.75 * 0.0625 = 0.09375, less than the first; beta1 = 0, so
        # m_hat = g: -0.25 / (sqrt(0.1875) / sqrt(1 - 0.0625)) = -0.5590170: 0.9 + 0.0559017
        (Optimizer(type="Adam", learning_rate=0.1, beta1=0.0, beta2=0.25, amsgrad=True), 0.9559017),
        # v = 0.09375: -0.25 / (sqrt(0.09375) / sqrt(0.9375)) = -0.7905694
        (Optimizer(type="Adam", learning_rate=0.1, beta1=0.0, beta2=0.25), 0.9790569),
    ]:
        assert np.isclose(run(section, GRADIENTS)[1][0], expected, rtol=0, atol=4e-7), section


@pytest.mark.parametrize("section", SECTIONS, ids=name_of)
def test_weights_or_gradients_of_zero(section):
    zero = np.zeros(2)
    for weights, gradients in ((zero, GRADIENTS), (START, [zero] * 3), (zero, [zero] * 3)):
        assert np.allclose(run(section, gradients, weights), reference(section, gradients, weights), atol=1e-6)


def test_a_steady_gradient_keeps_centered_rmsprop_finite():
    # Its variance tends to 0 and rounds to either side of it.
    section = Optimizer(type="RMSprop", learning_rate=1e-9, alpha=0.5, centered=True)
    assert np.isfinite(run(section, [np.array([0.3, 0.7])] * 60)).all()


def test_adam_is_exact_in_the_first_steps_of_a_slow_second_moment():
    # 1 - 0.999 has four correct digits in float32; the first step is the rate all the same.
    section = Optimizer(learning_rate=1.0, beta2=0.9999)
    assert np.allclose(run(section, GRADIENTS), reference(section, GRADIENTS), rtol=0, atol=2e-6)


@pytest.mark.parametrize("section", SECTIONS, ids=name_of)
def test_the_state_goes_on_where_it_was_saved(section):
    gradients = [tf.constant(gradient, tf.float32) for gradient in GRADIENTS]
    straight, expected = start(section)
    for gradient in gradients:
        straight.apply([gradient], [expected])
    first, weights = start(section)
    first.apply([gradients[0]], [weights])
    stored: dict[str, np.ndarray] = {}
    first.save_own_variables(stored)
    second, resumed = start(section, weights.numpy())
    second.load_own_variables(stored)
    for gradient in gradients[1:]:
        second.apply([gradient], [resumed])
    assert resumed.numpy().tobytes() == expected.numpy().tobytes()
    for one, other in zip(straight.variables, second.variables, strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()


@pytest.mark.parametrize("section", ONE_OF_EACH, ids=name_of)
def test_the_rate_of_each_step_is_the_schedules(section):
    # One step an epoch and gamma 0.5: rates 0.1, 0.05, 0.025, here also set by hand.
    scheduled = section.model_copy(update={"lr_scheduler": LrScheduler(type="Exponential", gamma=0.5)})
    optimizer, variable = start(scheduled)
    plain, other = start(section)
    for step, gradient in enumerate(GRADIENTS):
        plain.learning_rate = section.learning_rate * 0.5**step
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
        plain.apply([tf.constant(gradient, tf.float32)], [other])
        assert np.allclose(variable.numpy(), other.numpy(), rtol=0, atol=1e-7)
    assert len(optimizer.variables) == len(plain.variables) - 1  # a schedule has no variable


def test_momentum_forgets_the_rate_but_for_lars():
    # Rates 0.1, 0.01 and gradients g, 0. SGD: w -= 0.1 g, then 0.01 * 0.9 g. RMSprop, with g / |g| = 1 of both elements:
    # 0.1, then 0.01 * 0.9. LARS (trust 0.2, see the table; 1 where g is 0): v = 0.02 g, then 0.9 v.
    gradients = [GRADIENTS[0], np.zeros(2)]
    schedule = LrScheduler(type="Exponential", gamma=0.1)
    for section, moved in [
        (Optimizer(type="SGD", learning_rate=0.1, momentum=0.9, lr_scheduler=schedule), 0.109 * GRADIENTS[0]),
        (Optimizer(type="RMSprop", learning_rate=0.1, momentum=0.9, alpha=0.0, lr_scheduler=schedule), 0.109),
        (Optimizer(type="LARS", learning_rate=0.1, eta=0.1, momentum=0.9, lr_scheduler=schedule), 0.038 * GRADIENTS[0]),
    ]:
        assert np.allclose(run(section, gradients)[1], START - moved, rtol=0, atol=1e-6)


@pytest.mark.parametrize("section", [each for each in SECTIONS if each.weight_decay], ids=name_of)
def test_the_weight_decay_can_leave_out_biases_and_batch_norms(section):
    def updated(**changes: object) -> dict[str, bytes]:
        keras.utils.set_random_seed(0)
        inner = [ChannelwiseDense(), keras.layers.DepthwiseConv2D(3), keras.layers.BatchNormalization()]
        model = keras.Sequential([keras.layers.Input((4, 4, 2)), *inner, keras.layers.Dense(2)])
        weights = model.trainable_variables
        optimizer = build_optimizer(section.model_copy(update=changes), 1, 1)
        optimizer.build(weights)
        generator = np.random.default_rng(1)
        for weight in weights:
            weight.assign(generator.normal(size=weight.shape))
        for _ in range(2):
            gradients = [tf.constant(generator.normal(size=weight.shape), tf.float32) for weight in weights]
            optimizer.apply(gradients, weights)
        return {f"{number} {weight.name}": weight.numpy().tobytes() for number, weight in enumerate(weights)}

    everywhere, nowhere, kernels = updated(), updated(weight_decay=0.0), updated(decay_kernels_only=True)
    assert [name.split()[1] for name in kernels] == [
        "kernel",
        "bias",
        "kernel",
        "bias",
        "gamma",
        "beta",
        "kernel",
        "bias",
    ]
    for name, value in kernels.items():
        assert value == (everywhere if name.endswith("kernel") else nowhere)[name], name
        assert everywhere[name] != nowhere[name]


def test_adagrads_epsilon_stands_outside_the_root():
    # g / (sqrt(g^2) + 1e-10) for g = 1e-10: half of the rate
    section = Optimizer(type="Adagrad", learning_rate=0.1)
    assert np.allclose(run(section, [np.array([1e-10, 1.0])])[0], [0.95, -2.1])


@pytest.mark.parametrize("section", ONE_OF_EACH, ids=name_of)
def test_several_weights_under_mixed_precision(section):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
        optimizer = build_optimizer(section, 1, 1)
        optimizer.build(model.trainable_variables)
        before = model.get_weights()
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(tf.ones((1, 3)), training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {str(variable.dtype) for variable in optimizer.variables} <= {"float32", "int64"}
    for weight, gradient, variable in zip(before, gradients, model.trainable_variables, strict=True):
        expected = reference(section, [gradient.numpy().astype(np.float64)], weight)[0]
        assert np.allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_constant_rate_is_a_number_in_the_config_and_can_be_set():
    optimizer, _ = start(Optimizer(type="AdamW", learning_rate=0.25, weight_decay=0.5))
    config = optimizer.get_config()
    assert config["learning_rate"] == 0.25
    assert config["weight_decay"] is None  # Keras applies none of its own on top
    optimizer.learning_rate = 0.5
    assert float(optimizer.learning_rate) == 0.5
