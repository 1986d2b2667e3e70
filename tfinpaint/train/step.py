"""One training step: losses, gradients, their average over the ranks, and the update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from tfinpaint.batch import Batch
from tfinpaint.models.losses import of_targets


class ControlFlags(NamedTuple):
    """What a rank asks of all ranks, which do it between the same two steps.

    Attributes:
        save: a checkpoint.
        stop: a checkpoint, and the end of the run for now.
        rejoin: a checkpoint, and the same run with other ranks.
    """

    save: bool = False
    stop: bool = False
    rejoin: bool = False


class PendingStep(NamedTuple):
    """A step, of which is not known yet how it went: by itself each tensor waits for the device."""

    step: int
    batch: Batch
    stopped: tf.Tensor
    spoilt: tf.Tensor
    asked: tf.Tensor


class LossShares(NamedTuple):
    """What the sums over a rank's examples are divided by, and what its loss is multiplied by; float32 scalars.

    Attributes:
        weight: of the examples of a mean rank.
        images: of this rank.
        scale: of the loss, which the gradients have too.
    """

    weight: tf.Tensor
    images: tf.Tensor
    scale: tf.Tensor


NOTHING = of_targets(lambda targets, outputs: tf.zeros(tf.shape(outputs)[:1]))


def are_finite(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.math.is_finite(tf.add_n([tf.nn.l2_loss(gradient) for gradient in gradients]))


def put_back(state: Sequence[tuple[keras.Variable, tf.Tensor]]) -> tf.Operation:
    """Undo what forward has done to variables: a step that is left out leaves nothing behind."""
    for variable, before in state:
        variable.assign(before)
    return tf.no_op()
