"""Divide a model behind the frozen layers at its beginning, which need no gradients and give fixed outputs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import layers

from tfinpaint.batch import Batch, input_of


@dataclass(frozen=True)
class DividedModel:
    """A model as two models that share its variables: its frozen layers, and all layers behind them.

    Attributes:
        whole: the model itself.
        frozen: from images to features; None where the model does not begin with frozen layers.
        trained: from features to the model's outputs; the model itself where `frozen` is None.
        last_frozen: name of the layer whose outputs are the features; "" where `frozen` is None.
    """

    whole: keras.Model
    frozen: keras.Model | None
    trained: keras.Model
    last_frozen: str = ""

    @property
    def division(self) -> keras.KerasTensor:
        """The tensor of `whole` at which it is divided: the features, or the input where `frozen` is None."""
        return self.whole.get_layer(self.last_frozen).output if self.frozen else self.whole.inputs[0]

    def inputs_of_trained(self, batch: Batch) -> tf.Tensor:
        """Return what the trained part takes of a batch: its features, which are computed unless the batch has them.

        Call it outside of a gradient tape: nothing that is trained comes before.
        """
        if "features" in batch or self.frozen is None:
            return input_of(batch)
        return self.frozen(batch["inputs"], training=False)


def divide(model: keras.Model) -> DividedModel:
    """Divide a model behind as many frozen layers as possible.

    The layers before the division have no trained variables, and give the same outputs in training as in inference:
    no dropout is among them, and no batch norm that normalises by its batch. The division is at a single tensor, so it
    is not within a residual block.

    Args:
        model: functional, with one input, whose layers' `trainable` flags are set.
    """
    if (last := _last_frozen(model)) is None:
        return DividedModel(model, None, model)
    frozen = keras.Model(model.inputs[0], last.output, name="frozen")
    return DividedModel(model, frozen, keras.Model(last.output, model.outputs[0], name="trained"), last.name)


def _last_frozen(model: keras.Model) -> keras.Layer | None:
    """Return the last layer whose output all paths through the model pass, with nothing but fixed layers before it.

    The layers are gone through in topological order, with the tensors that later layers still take. Where there is one
    such tensor only, all paths pass it.
    """
    graph = model._functional if isinstance(model, keras.Sequential) else model
    inner = [each for each in graph.operations if not isinstance(each, layers.InputLayer)]  # layers and, say, additions
    calls = [node for nodes in graph._nodes_by_depth.values() for node in nodes]  # more than layers, if some are shared
    uses = Counter(id(tensor) for call in calls for tensor in call.input_tensors)
    pending, has_variables, last = {id(model.inputs[0])}, False, None
    for each in inner[:-1]:
        is_layer, taken = isinstance(each, keras.Layer), [id(tensor) for tensor in _inputs(each)]
        if not pending.issuperset(taken) or (is_layer and not _is_fixed(each)):  # the first: of a layer called twice
            break
        uses.subtract(taken)
        pending = {tensor for tensor in pending if uses[tensor] != 0} | {id(each.output)}
        has_variables |= is_layer and bool(each.variables)
        if len(pending) == 1 and has_variables and is_layer:
            last = each
    return last


def _inputs(operation: keras.Operation) -> list[keras.KerasTensor]:
    return operation.input if isinstance(operation.input, list) else [operation.input]


def _is_fixed(layer: keras.Layer) -> bool:
    """Return whether training changes neither the layer nor what it makes of an input, nor adds to the loss there."""
    draws = any("seed_generator" in variable.path for variable in layer.variables)
    return not (layer.trainable and layer.variables) and not draws and layer.activity_regularizer is None
