"""The forward pass of a training step: what of the model it computes, and whether in less memory."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import keras
import tensorflow as tf

from tfinpaint.models.frozen import DividedModel
from tfinpaint.models.recompute import recomputing


class Computed(NamedTuple):
    """What a forward pass has computed.

    Attributes:
        outputs: of the model; None where nothing is restored.
        features: of the layer whose features views are compared by; None without it.
    """

    outputs: tf.Tensor | None
    features: tf.Tensor | None


def build_training_pass(
    parts: DividedModel, *, layer: str | None, restores: bool, recompute: Collection[str], jit_compile: bool
) -> Callable[[tf.Tensor], Computed]:
    """Return the forward pass, in training mode, from the inputs of `parts.trained`.

    Args:
        layer: name of the layer whose outputs are wanted, too; None: none.
        restores: the model's outputs are wanted. Otherwise nothing behind `layer` is computed.
        recompute: names of the layers that end the blocks which are computed again in the backward pass; (): none.
        jit_compile: as `recomputing` takes it.
    """
    whole = parts.whole
    wanted = [whole.outputs[0]] if restores else []
    if layer:
        wanted.append(whole.get_layer(layer).output)
    if recompute:
        forward = recomputing(parts, wanted, recompute, jit_compile=jit_compile)
    else:
        model = keras.Model(parts.division, wanted) if layer else parts.trained

        def forward(inputs: tf.Tensor) -> list[tf.Tensor]:
            return tf.nest.flatten(model(inputs, training=True))

    def compute(inputs: tf.Tensor) -> Computed:
        made = forward(inputs)
        return Computed(made[0] if restores else None, made[-1] if layer else None)

    return compute
