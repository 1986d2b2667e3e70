"""Every loss against numbers worked by hand and an independent numpy formula."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.loss import Loss
from tfinpaint.errors import UserError
from tfinpaint.models import losses
from tfinpaint.models.losses import build_objective

# Two examples of 1 x 2 pixels: the mask hits one of two pixels; it is empty.
MASK = np.array([[[1, 0]], [[0, 0]]], np.int32)
YES_NO = np.array([[[[0.8], [0.4]]], [[[0.0], [0.5]]]], np.float32)  # one channel
CLASSES = np.array([[[[0.2, 0.8], [0.6, 0.4]]], [[[1.0, 0.0], [0.5, 0.5]]]], np.float32)  # the same as two classes


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("loss", "targets", "outputs", "expected"),
    [
        # (-log 0.8 - log 0.6) / 2, (0 - log 0.5) / 2
        (losses.bce, MASK, YES_NO, [0.3669846, 0.3465736]),
        # intersection 0.8, sums 1.2 and 1: 1 - 2.6 / 3.2; intersection 0, sums 0.5 and 0: 1 - 1 / 1.5
        (losses.dice, MASK, YES_NO, [0.1875, 0.3333333]),
        # union 1.2 + 1 - 0.8 = 1.4: 1 - 1.8 / 2.4; 1 - 1 / 1.5
        (losses.jaccard, MASK, YES_NO, [0.25, 0.3333333]),
        # p_t = 0.8, 0.6: (0.04 * 0.2231436 + 0.16 * 0.5108256) / 2; p_t = 1, 0.5: 0.25 * 0.6931472 / 2
        (losses.focal, MASK, YES_NO, [0.0453289, 0.0866434]),
        # class 0: intersection 0.6, sums 0.8 and 1: 1 - 2.2 / 2.8 = 0.2142857; class 1 as above; their mean.
        # Second example, class 0: intersection 1.5, sums 1.5 and 2: 1 - 4 / 4.5 = 0.1111111; class 1 as above.
        (losses.dice, MASK, CLASSES, [0.2008929, 0.2222222]),
        # class 0: union 1.2: 1 - 1.6 / 2.2 = 0.2727273; then 1 - 2.5 / 3 = 0.1666667
        (losses.jaccard, MASK, CLASSES, [0.2613636, 0.25]),
        (losses.focal_of_probabilities, MASK, CLASSES, [0.0453289, 0.0866434]),
        (losses.nll_of_probabilities, MASK, CLASSES, [0.3669846, 0.3465736]),
        # -log 0.7, -log 0.3
        (losses.nll_of_probabilities, np.array([0, 1]), np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]), [0.3566749, 1.2039728]),
        # as torch.nn.NLLLoss: nothing but the negative of the target's value
        (losses.nll, np.array([0, 1]), np.array([[-0.5, -3.0], [-4.0, -0.25]]), [0.5, 0.25]),
        (losses.nll, MASK, np.array([[[[-1.0, -2.0], [-3.0, -4.0]]]] * 2), [2.5, 2.0]),
        # (0.2^2 + 0.4^2) / 2, (0 + 0.5^2) / 2 and (0.2 + 0.4) / 2, 0.5 / 2
        (losses.mse, MASK[..., None].astype(np.float32), YES_NO, [0.1, 0.125]),
        (losses.l1, MASK[..., None].astype(np.float32), YES_NO, [0.3, 0.25]),
        # pixels: both right; 0.0 is right, 0.5 is not above 0.5. argmax takes class 0 of 0.5, 0.5.
        (losses.accuracy, MASK, YES_NO, [1.0, 1.0]),
        (losses.accuracy, 1 - MASK, YES_NO, [0.0, 0.0]),
        (losses.accuracy, np.array([[[1, 1]], [[1, 0]]]), CLASSES, [0.5, 0.5]),
        (losses.accuracy, np.array([0, 1]), np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]), [1.0, 0.0]),
        (losses.accuracy, np.array([0, 1]), np.log([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]), [1.0, 0.0]),
        # 2 |P and T| / (|P| + |T|): of one channel, of every class; a class that is in neither counts as 1
        (losses.dice_coefficient, np.array([[[1, 0]], [[1, 1]]]), np.array([[[[0.9], [0.8]]], [[[0.2], [0.3]]]]), [2 / 3, 0.0]),
        (losses.dice_coefficient, np.array([[[0, 0]], [[255, 0]]]), np.array([[[[0.5], [0.1]]], [[[0.7], [0.1]]]]), [1.0, 1.0]),
        (losses.dice_coefficient, np.array([[[0, 0, 1, 1]]]),
         np.array([[[[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]]]), [(2 / 3 + 4 / 5 + 1) / 3]),
        (losses.dice_coefficient, np.array([[[0, 2]]]), np.log([[[[0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]]]), [(1 + 0 + 0) / 3]),
    ],
)  # fmt: skip
def test_worked_by_hand(loss, targets, outputs, expected):
    values = loss(tf.constant(targets), tf.constant(outputs, tf.float32))
    assert values.dtype == tf.float32
    assert np.allclose(values, expected, rtol=0, atol=5e-7)


def test_images_against_their_formulas(generator):
    targets = generator.random((3, 4, 5, 3)).astype(np.float32)
    outputs = generator.uniform(0.01, 0.99, (3, 4, 5, 3)).astype(np.float32)
    entropy = -(targets * np.log(outputs) + (1 - targets) * np.log(1 - outputs))
    assert np.allclose(losses.bce(targets, outputs), entropy.mean(axis=(1, 2, 3)), rtol=1e-5)
    assert np.allclose(losses.mse(targets, outputs), ((targets - outputs) ** 2).mean(axis=(1, 2, 3)), rtol=1e-5)
    assert np.allclose(losses.l1(targets, outputs), np.abs(targets - outputs).mean(axis=(1, 2, 3)), rtol=1e-5)
    both = np.einsum("bhwc,bhwc->bc", targets, outputs)
    sums = np.einsum("bhwc->bc", targets) + np.einsum("bhwc->bc", outputs)
    assert np.allclose(losses.dice(targets, outputs), (1 - (2 * both + 1) / (sums + 1)).mean(1), rtol=1e-5)
    assert np.allclose(losses.jaccard(targets, outputs), (1 - (both + 1) / (sums - both + 1)).mean(1), rtol=1e-5)
    missing = targets * (1 - outputs) + (1 - targets) * outputs
    expected = (missing**2 * entropy).mean(axis=(1, 2, 3))
    for loss in (losses.focal, losses.focal_of_probabilities):
        assert np.allclose(loss(targets, outputs), expected, rtol=1e-5)
    assert np.allclose(losses.focal_of_log_probabilities(targets, np.log(outputs)), expected, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_masks_against_their_formulas(generator, channels):
    mask = generator.integers(0, 3, (3, 4, 5)).astype(np.int32)  # of one channel: any value above 0 is a yes
    outputs = generator.uniform(0.01, 0.99, (3, 4, 5, channels)).astype(np.float32)
    hot = (mask[..., None] > 0 if channels == 1 else mask[..., None] == np.arange(channels)).astype(np.float32)
    for loss in (losses.bce, losses.dice, losses.jaccard, losses.focal):
        assert np.allclose(loss(tf.constant(mask), outputs), loss(hot, outputs), rtol=1e-6)
    if channels > 1:
        outputs /= outputs.sum(axis=-1, keepdims=True)  # of a softmax
        likely = np.take_along_axis(outputs, mask[..., None], -1)[..., 0]
        expected = ((1 - likely) ** 2 * -np.log(likely)).mean(axis=(1, 2))
        assert np.allclose(losses.focal_of_probabilities(tf.constant(mask), outputs), expected, rtol=1e-5)
        assert np.allclose(losses.focal_of_log_probabilities(tf.constant(mask), np.log(outputs)), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(6,), (3, 4, 5)])
@pytest.mark.parametrize("activation", ["softmax", "log_softmax"])
def test_nll_is_the_cross_entropy_of_the_logits(generator, shape, activation):
    # Logits that differ by up to 60: a probability of exp(-60) is nothing beside 1 in float32.
    targets = tf.constant(generator.integers(0, 4, shape), tf.int32)
    logits = tf.constant(generator.uniform(-30, 30, (*shape, 4)), tf.float32)
    activate = {"softmax": tf.nn.softmax, "log_softmax": tf.nn.log_softmax}[activation]
    objective = build_objective(Loss(function="NLL"), activation)

    @tf.function
    def value_and_gradient(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values = objective.per_example({"targets": targets}, activate(logits))
        return values, tape.gradient(values, logits)

    values, gradient = value_and_gradient(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        expected = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        expected = tf.reduce_mean(expected, axis=list(range(1, len(shape))))
    assert objective.weight is None
    assert np.allclose(values, expected, rtol=1e-6, atol=1e-6)
    assert np.allclose(gradient, tape.gradient(expected, logits), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(6,), (3, 4, 5)])
@pytest.mark.parametrize("activation", ["softmax", "log_softmax"])
def test_class_weights_give_pytorchs_weighted_mean(generator, shape, activation):
    weights = np.array([0.5, 0.0, 3.0])
    targets = generator.integers(0, 3, shape).astype(np.int32)
    targets[0] = 1  # nothing of this example counts
    probabilities = tf.nn.softmax(generator.normal(size=(*shape, 3)).astype(np.float32))
    outputs = probabilities if activation == "softmax" else tf.math.log(probabilities)
    objective = build_objective(Loss(function="NLL", weight=weights.tolist()), activation)
    batch = {"targets": targets}
    each, counts = objective.per_example(batch, outputs), objective.weight(batch)
    assert each.shape == counts.shape == (shape[0],)
    assert float(each[0]) == float(counts[0]) == 0.0
    surprise = -np.log(np.take_along_axis(probabilities.numpy(), targets[..., None], -1)[..., 0])
    expected = (weights[targets] * surprise).sum() / weights[targets].sum()
    assert np.isclose(np.sum(each * counts) / np.sum(counts), expected, rtol=1e-5)


def test_class_weights_worked_by_hand():
    # weights 1 and 3 on pixels of class 1, 0: (3 * 2 + 1 * 3) / 4 and, of class 0, 0: (1 + 3) / 2
    objective = build_objective(Loss(function="NLL", weight=[1.0, 3.0]), "log_softmax")
    outputs = tf.constant([[[[-1.0, -2.0], [-3.0, -4.0]]]] * 2)
    assert objective.per_example({"targets": MASK}, outputs).numpy().tolist() == [2.25, 2.0]
    assert objective.weight({"targets": MASK}).numpy().tolist() == [4.0, 2.0]
    assert losses.total_class_weight(MASK, [1.0, 3.0]).numpy().tolist() == [4.0, 2.0]


@pytest.mark.parametrize("weights", [None, [0.5, 0.0, 3.0]])
@pytest.mark.parametrize("shape", [(6,), (3, 4, 5)])
@pytest.mark.parametrize("activation", ["softmax", "log_softmax"])
def test_label_smoothing_spreads_a_part_of_each_target_over_all_classes(generator, shape, activation, weights):
    targets = generator.integers(0, 3, shape).astype(np.int32)
    targets[0] = 1
    probabilities = tf.nn.softmax(generator.normal(size=(*shape, 3)).astype(np.float32))
    outputs = probabilities if activation == "softmax" else tf.math.log(probabilities)
    smoothed = np.full((*shape, 3), 0.1 / 3)
    np.put_along_axis(smoothed, targets[..., None], 0.9 + 0.1 / 3, -1)
    expected = -(smoothed * np.log(probabilities)).sum(axis=-1)
    counted = np.ones(shape) if weights is None else np.array(weights)[targets]
    objective = build_objective(Loss(function="NLL", weight=weights, label_smoothing=0.1), activation)
    each = objective.per_example({"targets": targets}, outputs)
    counts = counted.reshape(shape[0], -1).sum(axis=1)
    sums = (counted * expected).reshape(shape[0], -1).sum(axis=1)
    np.testing.assert_allclose(each, np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0), rtol=1e-5)


def test_label_smoothing_worked_by_hand():
    # p = 0.8, 0.2 and the target 0: 0.9 * -log 0.8 + 0.1 * (-log 0.8 - log 0.2) / 2 = 0.2924585
    objective = build_objective(Loss(function="NLL", label_smoothing=0.1), "softmax")
    loss = objective.per_example({"targets": tf.constant([0])}, tf.constant([[0.8, 0.2]]))
    assert loss.numpy().tolist() == pytest.approx([0.2924585], rel=1e-6)


def test_gradients_of_examples_that_do_not_count_are_zero():
    objective = build_objective(Loss(function="NLL", weight=[0.0, 1.0]), "log_softmax")
    logits = tf.Variable([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        loss = objective.per_example({"targets": tf.constant([0])}, tf.nn.log_softmax(logits))
    assert tape.gradient(loss, logits).numpy().tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("loss", [losses.bce, losses.focal, losses.dice, losses.jaccard])
@pytest.mark.parametrize("graph", [False, True])
def test_certain_outputs_have_finite_losses_and_gradients(loss, graph):
    # Right and wrong with certainty: probabilities of exactly 0 and 1, in a graph from the logits of a sigmoid.
    mask = tf.constant([[[0, 0, 1, 1]]])
    start = tf.constant([[[[-200.0], [200.0], [-200.0], [200.0]]]]) if graph else tf.constant([[[[0.0], [1.0], [0.0], [1.0]]]])  # fmt: skip

    def value_and_gradient(start):
        with tf.GradientTape() as tape:
            tape.watch(start)
            value = loss(mask, tf.sigmoid(start) if graph else start)
        return value, tape.gradient(value, start)

    value, gradient = (tf.function(value_and_gradient) if graph else value_and_gradient)(start)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    assert float(value[0]) > 0.3


@pytest.mark.parametrize("loss", [losses.focal_of_probabilities, losses.nll_of_probabilities])
def test_certain_classes_have_finite_losses_and_gradients(loss):
    outputs = tf.constant([[[[1.0, 0.0], [0.0, 1.0]]]])
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        value = loss(tf.constant([[[0, 0]]]), outputs)
    assert np.isfinite(value).all()
    assert np.isfinite(tape.gradient(value, outputs)).all()


@pytest.mark.parametrize("name", ["Dice", "Jaccard", "Focal", "BCE"])
def test_an_empty_mask_that_is_found_empty_costs_nothing(name):
    batch = {"targets": tf.zeros((2, 4, 4), tf.int32)}
    loss = build_objective(Loss(function=name), "sigmoid").per_example
    assert np.allclose(loss(batch, tf.zeros((2, 4, 4, 1))), 0.0, atol=1e-6)
    # one found wrongly costs all of what there is to lose, but for the smoothing: 1 / 17 of 16 pixels
    assert (loss(batch, tf.ones((2, 4, 4, 1))).numpy() > 0.94).all()


def test_the_activation_decides_how_classes_are_read(generator):
    log = np.log(np.clip(CLASSES, 1e-7, 1))
    batch = {"targets": tf.constant(MASK)}
    for name in ("Dice", "Jaccard", "Focal", "NLL"):
        section = Loss(function=name)
        of_logs = build_objective(section, "log_softmax").per_example(batch, log)
        of_probabilities = build_objective(section, "softmax").per_example(batch, CLASSES)
        assert np.allclose(of_logs, of_probabilities, atol=1e-6)
    # Three classes, of which these losses give five unlike values: each tells which loss was chosen.
    outputs = tf.nn.softmax(generator.normal(size=(2, 4, 5, 3)).astype(np.float32))
    mask = tf.constant(generator.integers(0, 3, (2, 4, 5)), tf.int32)
    chosen = [("Focal", "sigmoid", losses.focal), ("Focal", "softmax", losses.focal_of_probabilities)]
    chosen += [(name, "sigmoid", loss) for name, loss in (("BCE", losses.bce), ("MSE", losses.mse), ("L1", losses.l1))]
    values = []
    for name, activation, loss in chosen:
        targets = mask if name == "Focal" else tf.one_hot(mask, 3)
        values.append(build_objective(Loss(function=name), activation).per_example({"targets": targets}, outputs))
        assert np.array_equal(values[-1], loss(targets, outputs))
    assert np.diff(np.sort(values, axis=0), axis=0).min() > 0.01


def test_what_does_not_fit_the_network_is_refused():
    with pytest.raises(UserError, match=r"NLL needs .* log_softmax \(or softmax\).*ends in sigmoid"):
        build_objective(Loss(function="NLL"), "sigmoid")
    with pytest.raises(UserError, match=r"BCE needs .* sigmoid, hard_sigmoid or softmax; this one ends in log_softmax"):
        build_objective(Loss(function="BCE"), "log_softmax")
    for name in ("BCE", "Dice", "Jaccard", "Focal"):  # values beyond 0 and 1 would learn nothing
        with pytest.raises(UserError, match=f"{name} needs .* this one ends in relu"):
            build_objective(Loss(function=name), "relu")
    losses.check_source(Loss(source="Softmax"), "softmax")
    losses.check_source(Loss(), "softmax")
    with pytest.raises(UserError, match=r"loss.source is softmax, but the network ends in log_softmax; write"):
        losses.check_source(Loss(source="softmax"), "log_softmax")


@pytest.mark.parametrize("name", ["BCE", "MSE", "L1", "NLL", "Dice", "Jaccard", "Focal"])
@pytest.mark.parametrize("jit_compile", [pytest.param(False, marks=pytest.mark.stress), True])
def test_compiled_with_sizes_unknown_and_outputs_in_bfloat16(name, jit_compile):
    objective = build_objective(Loss(function=name), "softmax" if name == "NLL" else "sigmoid")

    def loss(targets, outputs):
        return objective.per_example({"targets": targets}, outputs)

    images = name in ("MSE", "L1")
    targets = tf.constant(MASK[..., None].astype(np.float32) if images else MASK)
    outputs = tf.constant(YES_NO if images else CLASSES)
    expected = loss(targets, outputs)

    @tf.function(jit_compile=jit_compile, reduce_retracing=True)
    def compiled(targets, outputs):
        return loss(targets, outputs)

    assert np.allclose(compiled(targets, outputs), expected, atol=1e-6)
    values = compiled(targets, tf.cast(outputs, tf.bfloat16))
    assert values.dtype == tf.float32
    assert np.allclose(values, expected, atol=0.01)
    shapes = [tf.TensorSpec([None] * len(t.shape[:-1]) + [t.shape[-1] if t is outputs else None], t.dtype) for t in (targets, outputs)]  # fmt: skip
    unknown = tf.function(loss, input_signature=shapes, jit_compile=jit_compile)
    assert np.allclose(unknown(targets, outputs), expected, atol=1e-6)
