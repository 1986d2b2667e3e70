"""Train a model in less memory: activations within residual blocks are computed a second time in the backward pass.

This is gradient checkpointing (Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost", arXiv
1604.06174, section 3): only the inputs of the blocks are kept between the forward and the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import keras
import tensorflow as tf
from keras import layers
from tensorflow.compiler.tf2xla.ops.gen_xla_ops import xla_optimization_barrier

from tfinpaint.models.frozen import DividedModel


def recomputing(
    parts: DividedModel, wanted: Sequence[keras.KerasTensor], block_ends: Collection[str], *, jit_compile: bool
) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """Return a forward pass of `parts.trained` in training, which recomputes its blocks.

    Outputs, gradients and batch-norm statistics are those of `parts.trained(inputs, training=True)`. What follows the
    last block, such as a decoder, is computed once.

    Args:
        parts: a model in blocks.
        wanted: tensors of the model that the pass returns, not before the end of its last block.
        block_ends: names of the layers at which blocks end; all paths through the model pass each of them.
        jit_compile: whether XLA compiles the pass. It would merge both computations of a block without a barrier.
    """
    ends = [layer.output for layer in parts.trained.layers if layer.name in block_ends]
    points = [parts.division, *ends]
    blocks = [keras.Model(*pair) for pair in pairwise(points)]
    passes = [_recomputed(block, jit_compile) if block.trainable_variables else block for block in blocks]
    behind = [tensor for tensor in wanted if tensor is not points[-1]]
    rest = keras.Model(points[-1], behind) if behind else None

    def forward(inputs: tf.Tensor) -> list[tf.Tensor]:
        for block in passes:
            inputs = block(inputs, training=True)
        made = iter(tf.nest.flatten(rest(inputs, training=True)) if rest else [])
        return [inputs if tensor is points[-1] else next(made) for tensor in wanted]

    return forward


def _recomputed(block: keras.Model, jit_compile: bool) -> Callable[..., tf.Tensor]:
    """Return the forward pass of a block that keeps nothing but its input for the backward pass."""

    @tf.custom_gradient
    def forward(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, list[tf.Tensor]]]]:
        def backward(received: tf.Tensor, variables: Sequence[tf.Variable]) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
            again = _not_before(inputs, received, jit_compile)
            with _keeping_statistics(block), tf.GradientTape() as tape:
                tape.watch(again)
                outputs = block(again, training=True)
            gradient, *others = tape.gradient(outputs, [again, *variables], received)
            return gradient, others

        return block(inputs, training=True), backward

    return lambda inputs, training: forward(inputs)


def _not_before(inputs: tf.Tensor, gradient: tf.Tensor, jit_compile: bool) -> tf.Tensor:
    """Return the inputs, but not before the gradient is known, so that nothing is recomputed too early or merged."""
    if jit_compile:
        return xla_optimization_barrier([inputs, gradient])[0]
    with tf.control_dependencies([gradient]):
        return tf.identity(inputs)


@contextmanager
def _keeping_statistics(block: keras.Model) -> Iterator[None]:
    """Keep the statistics of batch norms while a block is traced: the forward pass has updated them already."""
    norms = [layer for layer in block.layers if isinstance(layer, layers.BatchNormalization)]
    kept = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 1.0
        yield
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
