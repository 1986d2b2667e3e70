"""Losses and metrics with one value per example, so that sums over batches and ranks give exact means.

Targets are images, float [batch, height, width, channels] with values in [0, 1]; label maps, int32
[batch, height, width]; or classes, int32 [batch]. Outputs are [batch, height, width, channels] or [batch, classes] with
values in [0, 1], unless a function expects log-probabilities. A label map is compared with outputs of one channel as
"value above 0", and with outputs of several channels as one-hot classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from tfinpaint.batch import Batch
from tfinpaint.config.loss import Loss
from tfinpaint.errors import UserError

PerExample = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # (targets, outputs) -> float32 [batch]
SMOOTHING = 1.0  # pixels added to numerator and denominator of a ratio, so that empty label maps agree


@dataclass(frozen=True)
class Objective:
    """What training minimises: sum(weight * per_example) / sum(weight) over all examples of a batch.

    Attributes:
        per_example: returns the loss of each example, float32 [batch], from the batch and the network's outputs.
        weight: returns the weight of each example, float32 [batch], from the batch; None: all weights are 1.
    """

    per_example: Callable[[Batch, tf.Tensor], tf.Tensor]
    weight: Callable[[Batch], tf.Tensor] | None = None


def of_targets(loss: PerExample) -> Objective:
    """Return the objective that is the mean of a loss over the examples."""
    return Objective(lambda batch, outputs: of_mixed(loss, batch, outputs))


def of_mixed(score: PerExample, batch: Batch, outputs: tf.Tensor) -> tf.Tensor:
    """Return a score of the targets, float32 [batch]; of mixed images, the scores of both classes by their shares."""
    own = score(batch["targets"], outputs)
    if "partners" not in batch:
        return own
    return batch["shares"] * own + (1.0 - batch["shares"]) * score(batch["partners"], outputs)


def build_objective(section: Loss, output_activation: str, *, by_pixel: bool = False) -> Objective:
    """Return the loss of a configuration in the form that fits the network's output.

    Args:
        section: the section `loss` of a checked configuration.
        output_activation: name of the Keras activation of the network's output, such as "sigmoid" or "log_softmax".
        by_pixel: batches have "weights" of the pixels, float32 [batch, height, width, 1]. The loss is then
            sum(weight * loss of the pixel) / sum(weight) over all pixels of all images of all ranks.

    Raises:
        UserError: the loss cannot be computed from outputs of that activation.
    """
    name, logarithmic = section.function, output_activation == "log_softmax"
    assert name
    if name == "NLL":
        assert not isinstance(section.weight, str), "the weights of balanced classes are numbers by now"
        return _negative_log_likelihood(section.weight, section.label_smoothing, output_activation)
    if name in ("BCE", "Dice", "Jaccard", "Focal"):
        _require_probabilities(name, output_activation)
    if by_pixel:
        return Objective(
            functools.partial(_weighted_by_pixel, LOSS_OF_PIXELS[name]), lambda batch: _sum(batch["weights"])
        )
    if name == "Focal":
        classes: dict[str, PerExample] = {"log_softmax": focal_of_log_probabilities, "softmax": focal_of_probabilities}
        return of_targets(classes.get(output_activation, focal))
    plain = {"BCE": bce, "MSE": mse, "L1": l1, "Dice": dice, "Jaccard": jaccard}[name]
    if logarithmic and name in ("Dice", "Jaccard"):
        return of_targets(lambda targets, outputs: plain(targets, tf.exp(_float(outputs))))
    return of_targets(plain)


def check_source(section: Loss, output_activation: str) -> None:
    """Raise UserError if `loss.source` differs from the activation of the network's output."""
    if section.source not in (None, output_activation):
        raise UserError(
            f"loss.source is {section.source}, but the network ends in {output_activation}; write that, or remove "
            "loss.source"
        )


def _require_probabilities(name: str, output_activation: str) -> None:
    """Raise UserError for other outputs: they would be clipped to [0, 1] and have no gradient outside."""
    fitting = ("sigmoid", "hard_sigmoid", "softmax", *(() if name == "BCE" else ("log_softmax",)))
    if output_activation not in fitting:
        raise UserError(
            f"loss.function: {name} needs a network that ends in {', '.join(fitting[:-1])} or {fitting[-1]}; this one "
            f"ends in {output_activation}"
        )


def _negative_log_likelihood(
    class_weights: Sequence[float] | None, smoothing: float, output_activation: str
) -> Objective:
    losses = {"log_softmax": nll, "softmax": nll_of_probabilities}
    if output_activation not in losses:
        raise UserError(
            "loss.function: NLL needs a network that ends in log_softmax (or softmax) over the classes; this one ends "
            f"in {output_activation}"
        )
    loss = functools.partial(losses[output_activation], class_weights=class_weights, smoothing=smoothing)
    if class_weights is None:
        return of_targets(loss)

    def weight(batch: Batch) -> tf.Tensor:
        return of_mixed(lambda targets, _: total_class_weight(targets, class_weights), batch, tf.zeros([]))

    def per_example(batch: Batch, outputs: tf.Tensor) -> tf.Tensor:
        if "partners" not in batch:
            return loss(batch["targets"], outputs)
        weighted = of_mixed(lambda t, o: total_class_weight(t, class_weights) * loss(t, o), batch, outputs)
        return tf.math.divide_no_nan(weighted, weight(batch))

    return Objective(per_example, weight)


def bce(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return the binary cross entropy of images or label maps in nats, averaged over pixels and channels."""
    return _mean(_bce_by_pixel(*_as_images(targets, outputs)))


def mse(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return the squared error of images or label maps, averaged over pixels and channels."""
    return _mean(_mse_by_pixel(*_as_images(targets, outputs)))


def l1(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return the absolute error of images or label maps, averaged over pixels and channels."""
    return _mean(_l1_by_pixel(*_as_images(targets, outputs)))


def nll(
    targets: tf.Tensor,
    outputs: tf.Tensor,
    class_weights: Sequence[float] | None = None,
    smoothing: float = 0.0,
) -> tf.Tensor:
    """Return the negative log likelihood of classes or label maps under log-probabilities, as torch.nn.NLLLoss does.

    Args:
        targets: classes or label maps.
        outputs: log-probabilities.
        class_weights: one weight w per class; the mean over an example's pixels is then sum(w_target * nll) /
            sum(w_target), and 0 if all weights are 0.
        smoothing: share of the target that is spread evenly over all classes (label smoothing, Szegedy et al., arXiv
            1512.00567, section 7): (1 - smoothing) nll + smoothing times the mean of -log p over the classes.
    """
    return _class_mean(_nll_by_pixel(targets, outputs, smoothing), targets, outputs, class_weights)


def nll_of_probabilities(
    targets: tf.Tensor,
    outputs: tf.Tensor,
    class_weights: Sequence[float] | None = None,
    smoothing: float = 0.0,
) -> tf.Tensor:
    """Return what `nll` returns, in nats, from the probabilities of a softmax."""
    return _class_mean(_cross_entropy_by_pixel(targets, outputs, smoothing), targets, outputs, class_weights)


def total_class_weight(targets: tf.Tensor, class_weights: Sequence[float]) -> tf.Tensor:
    """Return the weight of each example in a weighted NLL: the sum of the class weights of its pixels."""
    return _sum(_pixel_weights(targets, class_weights))


def dice(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), with sums over the pixels and the mean over the channels.

    The denominator of Milletari, Navab, Ahmadi, arXiv 1606.04797, section 3, has squares of p and t; here they are
    plain sums, which are equal for label maps. Each channel has its own ratio, so that small classes count as much as
    large ones.
    """
    both, probable, true = _overlap(*_as_images(targets, outputs))
    return tf.reduce_mean(1.0 - (2.0 * both + SMOOTHING) / (probable + true + SMOOTHING), axis=-1)


def jaccard(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return 1 - (intersection + 1) / (union + 1) from the sums of `dice`; union = sum(p) + sum(t) - sum(p t)."""
    both, probable, true = _overlap(*_as_images(targets, outputs))
    return tf.reduce_mean(1.0 - (both + SMOOTHING) / (probable + true - both + SMOOTHING), axis=-1)


def focal(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return (1 - p_t)^2 * -log(p_t) with each channel as a binary decision, averaged over pixels and channels.

    p_t is p where the target is 1 and 1 - p where it is 0 (Lin et al., arXiv 1708.02002, sections 3.1 and 3.2, gamma 2,
    without alpha). For targets between 0 and 1, p_t and -log(p_t) are interpolated linearly.
    """
    targets, outputs = _as_images(targets, outputs)
    missing = 1.0 - (targets * outputs + (1.0 - targets) * (1.0 - outputs))
    return _mean(tf.square(missing) * keras.ops.binary_crossentropy(targets, outputs))


def focal_of_probabilities(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return the focal loss of the classes of a softmax: p_t is the probability of the target's class.

    Target images have no classes and are compared channel by channel, as in `focal`.
    """
    if not _is_label_map(targets):
        return focal(targets, outputs)
    return _focal_of_classes(_cross_entropy_by_pixel(targets, outputs))


def focal_of_log_probabilities(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return what `focal_of_probabilities` returns, from the outputs of a log_softmax."""
    if not _is_label_map(targets):
        return focal(targets, tf.exp(_float(outputs)))
    return _focal_of_classes(_nll_by_pixel(targets, outputs))


def accuracy(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return the fraction of an example's pixels (or 1 or 0 for a class) whose most probable class is the target.

    With one channel, it is the fraction where "value above 0" and "probability above 0.5" agree.
    """
    targets = tf.convert_to_tensor(targets)
    if outputs.shape[-1] == 1:
        return _mean(_float((targets > 0) == (outputs[..., 0] > 0.5)))
    return _mean(_float(targets == tf.argmax(outputs, axis=-1, output_type=targets.dtype)))


def dice_coefficient(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return the Dice coefficient 2 |P and T| / (|P| + |T|) of an example's label map and its most probable classes.

    P and T are the pixels of a class in the outputs and in the targets. The result is the mean over the classes, where
    a class that is in neither counts as 1; with one channel, P is "probability above 0.5" and T "value above 0".

    Args:
        targets: int32 [batch, height, width].
        outputs: float [batch, height, width, channels].

    Returns:
        float32 [batch], in [0, 1].
    """
    channels = outputs.shape[-1]
    found = outputs > 0.5 if channels == 1 else tf.one_hot(tf.argmax(outputs, axis=-1), channels)
    both, ours, theirs = _overlap(*_as_images(targets, _float(found)))
    total = ours + theirs
    return tf.reduce_mean(tf.where(total > 0, tf.math.divide_no_nan(2.0 * both, total), 1.0), axis=-1)


def _float(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values, tf.float32)


def _mean(values: tf.Tensor) -> tf.Tensor:
    """Return the mean over all axes except the batch."""
    return tf.reduce_mean(values, axis=list(range(1, len(values.shape))))


def _sum(values: tf.Tensor) -> tf.Tensor:
    """Return the sum over all axes except the batch."""
    return tf.reduce_sum(values, axis=list(range(1, len(values.shape))))


def _is_label_map(targets: tf.Tensor) -> bool:
    return tf.convert_to_tensor(targets).dtype.is_integer


def _as_images(targets: tf.Tensor, outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return targets and outputs with the same shape, float32 [batch, height, width, channels]."""
    if not _is_label_map(targets):
        return _float(targets), _float(outputs)
    channels = outputs.shape[-1]
    return (_float(targets > 0)[..., None] if channels == 1 else tf.one_hot(targets, channels)), _float(outputs)


# Losses by pixel: the mean over the channels, float32 [batch, height, width].


def _bce_by_pixel(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return keras.losses.binary_crossentropy(targets, outputs)


def _mse_by_pixel(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.square(outputs - targets), axis=-1)


def _l1_by_pixel(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.abs(outputs - targets), axis=-1)


def _nll_by_pixel(targets: tf.Tensor, outputs: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    outputs = _float(outputs)
    by_pixel = -tf.gather(outputs, targets, axis=-1, batch_dims=len(outputs.shape) - 1)
    return (1.0 - smoothing) * by_pixel - smoothing * tf.reduce_mean(outputs, axis=-1) if smoothing else by_pixel


def _cross_entropy_by_pixel(targets: tf.Tensor, outputs: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Return the cross entropy of probabilities; in a graph, Keras computes it from the softmax's inputs, exactly."""
    if smoothing:
        classes = tf.one_hot(targets, outputs.shape[-1])
        return keras.losses.categorical_crossentropy(classes, _float(outputs), label_smoothing=smoothing)
    return keras.losses.sparse_categorical_crossentropy(targets, _float(outputs))


def _focal_of_classes(by_pixel: tf.Tensor) -> tf.Tensor:
    """Return the focal loss from -log(p_t); expm1 keeps the precision of 1 - p_t if p_t is close to 1."""
    return _mean(tf.square(tf.math.expm1(-by_pixel)) * by_pixel)


LOSS_OF_PIXELS = {"BCE": _bce_by_pixel, "MSE": _mse_by_pixel, "L1": _l1_by_pixel}


def _weighted_by_pixel(loss: PerExample, batch: Batch, outputs: tf.Tensor) -> tf.Tensor:
    """Return the weighted mean over each example's pixels; 0 if all weights are 0."""
    weights = _float(batch["weights"])[..., 0]
    by_pixel = loss(_float(batch["targets"]), _float(outputs))
    return tf.math.divide_no_nan(_sum(weights * by_pixel), _sum(weights))


def _class_mean(
    by_pixel: tf.Tensor, targets: tf.Tensor, outputs: tf.Tensor, class_weights: Sequence[float] | None
) -> tf.Tensor:
    if class_weights is None:
        return _mean(by_pixel)
    assert len(class_weights) == outputs.shape[-1], "one weight for each class of the network"
    weights = _pixel_weights(targets, class_weights)
    return tf.math.divide_no_nan(_sum(weights * by_pixel), _sum(weights))


def _pixel_weights(targets: tf.Tensor, class_weights: Sequence[float]) -> tf.Tensor:
    """Return the weight of each target's class, float32 with the targets' shape."""
    return tf.gather(tf.constant(class_weights, tf.float32), targets)


def _overlap(targets: tf.Tensor, outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return sum(p t), sum(p) and sum(t) over the pixels, each float32 [batch, channels]."""
    return tuple(tf.reduce_sum(values, axis=[1, 2]) for values in (outputs * targets, outputs, targets))
