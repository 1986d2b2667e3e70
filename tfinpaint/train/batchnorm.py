"""Recalibrate batch-norm statistics (PreciseBN).

The moving averages of training lag: they mix the activations of earlier weights, and after short runs of a deep network
inference with them can be useless although training went well. Wu and Johnson, "Rethinking 'Batch' in BatchNorm" (arXiv
2105.07576, section 3, PreciseBN) fix the weights, run some training batches and pool their statistics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.batch import input_of
from tfinpaint.distributed.batchnorm import all_batchnorms, synchronise_batchnorm
from tfinpaint.distributed.world import World
from tfinpaint.models.visible_batchnorm import encoder_batchnorms, over_visible


def batchnorm_layers(model: keras.Model, *, trainable: bool) -> list[keras.layers.BatchNormalization]:
    """Return the batch-norm layers that are trained, or those that are frozen."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return [layer for layer in norms if layer.trainable == trainable]


class StatisticsEstimator:
    """Sets the mean and variance of some batch-norm layers to those over given batches of all ranks.

    With equal batch sizes the result is the exact mean and the exact (biased) variance of the layers' inputs when every
    layer before them normalises by its own batch: that of the rank, as in training, or that of all ranks.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[keras.layers.BatchNormalization],
        batches: Iterable,
        world: World,
        *,
        synchronised: bool = False,
        visible_only: bool = False,
    ) -> None:
        """
        Args:
            layers: batch-norm layers of `model`, frozen or not.
            batches: finitely many, equally many and equally large on every rank; they are iterated at each run.
            synchronised: while estimating, normalise by the batches of all ranks together, so that the result does not
                depend on the number of ranks; this costs a collective for each batch norm and batch.
            visible_only: batch norms of the built-in encoder leave erased positions out, as they did in training; each
                batch counts the same. Batches have "mask".
        """
        self._model, self._layers, self._batches, self._world = model, list(layers), batches, world
        self._synchronised = synchronised and world.size > 1
        self._visible_only = [layer for layer in encoder_batchnorms(model) if layer in layers] if visible_only else []
        self._observe = tf.function(self._forward, autograph=False)

    def run(self) -> None:
        """Estimate and set the statistics of these layers; nothing else in the model changes."""
        if not self._layers:
            return
        sums, count = np.zeros(0), 0
        together = _normalising_together(self._model, self._world) if self._synchronised else nullcontext()
        with together, _showing_batch_statistics(self._model, self._layers):
            for batch in self._batches:
                self._world.report_activity()
                self._observe(input_of(batch), batch["mask"] if self._visible_only else None)
                means, variances = self._read()
                moments = np.concatenate([means, variances + means**2])
                sums = moments if count == 0 else sums + moments
                count += 1
        mean, mean_of_squares = np.split(self._world.sum_array(sums) / (count * self._world.size), 2)
        self._write(mean, np.maximum(mean_of_squares - mean**2, 0.0))

    def _forward(self, inputs: tf.Tensor, erased: tf.Tensor | None) -> None:
        with nullcontext() if erased is None else over_visible(self._visible_only, erased):
            self._model(inputs, training=True)

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the means and the variances of all layers, each as one float64 vector."""
        means = np.concatenate([layer.moving_mean.numpy() for layer in self._layers]).astype(np.float64)
        variances = np.concatenate([layer.moving_variance.numpy() for layer in self._layers]).astype(np.float64)
        return means, variances

    def _write(self, means: np.ndarray, variances: np.ndarray) -> None:
        ends = np.cumsum([layer.moving_mean.shape[0] for layer in self._layers])[:-1]
        for layer, mean, variance in zip(self._layers, np.split(means, ends), np.split(variances, ends), strict=True):
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)


@contextmanager
def _normalising_together(model: keras.Model, world: World) -> Iterator[None]:
    """Normalise by the batches of all ranks within a `with` statement."""
    changed = [layer for layer in all_batchnorms(model) if "_moments" not in vars(layer)]
    synchronise_batchnorm(model, world)
    try:
        yield
    finally:
        for layer in changed:
            del layer._moments  # so that its class's method is found again, and the layer computes by one operation


@contextmanager
def _showing_batch_statistics(model: keras.Model, layers: Sequence[keras.layers.BatchNormalization]) -> Iterator[None]:
    """Within a `with` statement, have each call in training mode set the layers' statistics to those of its batch.

    The other batch norms of the model get their statistics back afterwards.
    """
    kept = [(layer, layer.momentum, layer.trainable) for layer in layers]
    others = [
        (v, v.numpy()) for n in all_batchnorms(model) if n not in layers for v in (n.moving_mean, n.moving_variance)
    ]
    try:
        for layer in layers:
            layer.momentum, layer.trainable = 0.0, True
            layer.moving_mean.assign(tf.zeros_like(layer.moving_mean))  # 0 * inf would stay nan
            layer.moving_variance.assign(tf.ones_like(layer.moving_variance))
        yield
    finally:
        for layer, momentum, trainable in kept:
            layer.momentum, layer.trainable = momentum, trainable
        for variable, value in others:
            variable.assign(value)
