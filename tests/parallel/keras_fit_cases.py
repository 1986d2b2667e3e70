"""Fit small Keras models with `tfinpaint.distributed` on the ranks that there are: the cases of test_keras_fit.py.

`main` runs cases by name on every rank of a session, and writes what each has trained, and the logs of `fit`, to
FOLDER/CASE.RANK.npz. On one rank a test calls a case itself, with World().
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.cli.command import run_command
from tfinpaint.config.sections import Distributed
from tfinpaint.distributed import DistributedOptimizer, SynchroniseRanks, World, shard, synchronise_batchnorm
from tfinpaint.distributed.launch import join_ranks
from tfinpaint.errors import UserError

EXAMPLES, BATCH, EPOCHS = 44, 16, 2  # the third batch of an epoch is not full


def data() -> tuple[np.ndarray, np.ndarray]:
    """Return noise whose brightest quarter is its class, float32 [44, 8, 8, 1], and the classes one-hot."""
    generator = np.random.default_rng(5)
    classes = np.arange(EXAMPLES) % 4
    images = generator.normal(0.0, 0.3, (EXAMPLES, 8, 8, 1)).astype("float32")
    for image, quarter in zip(images, classes, strict=True):
        image[quarter // 2 * 4 :, quarter % 2 * 4 :][:4, :4] += 1.0
    return images, np.eye(4, dtype="float32")[classes]


def build(*layers: keras.Layer) -> keras.Model:
    """Return a convolution, these layers, and a softmax of four classes."""
    random.seed(1)  # from which layers draw their seeds
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, strides=2, activation="relu"),
            *layers,
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="softmax", dtype="float32"),
        ]
    )


def fit(
    world: World,
    model: keras.Model,
    optimizer: keras.Optimizer,
    images: np.ndarray | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    **compiled: Any,
) -> dict[str, np.ndarray]:
    """Fit a model on this rank's share, from weights that differ between the ranks; return all that it has become."""
    tf.random.set_seed(1)  # an earlier command of the session may have set another one on each rank
    own, targets = data()
    for variable in model.trainable_variables:
        variable.assign(variable + 0.01 * world.rank)
    training = tf.data.Dataset.from_tensor_slices((own if images is None else images, targets))
    training = shard(training.shuffle(EXAMPLES, seed=3), world).batch(BATCH // world.size)
    measured = {"metrics": ["accuracy", keras.metrics.R2Score(name="r2")]}
    model.compile(DistributedOptimizer(optimizer, world), "categorical_crossentropy", **{**measured, **compiled})
    history = model.fit(
        training,
        validation_data=shard((own[:13], targets[:13]), world, drop_remainder=False),
        validation_batch_size=4,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[SynchroniseRanks(world)] if callbacks is None else callbacks,
    )
    found = {f"{number}": v.numpy() for number, v in enumerate([*model.variables, *model.optimizer.variables])}
    seeds = [f"{number}" for number, v in enumerate(model.variables) if "seed_generator" in v.path]
    seeded = {f"seed_{name}": found.pop(name) for name in seeds}
    return {**found, **seeded, "logs": np.array(json.dumps(history.history))}


def plain(world: World) -> dict[str, np.ndarray]:
    """Compiled by XLA, as by default."""
    return fit(world, build(), keras.optimizers.SGD(0.1, momentum=0.9))


def everything(world: World) -> dict[str, np.ndarray]:
    """Accumulation, clipping at every update, and averaged weights, which replace the trained ones at the end."""
    options = {"gradient_accumulation_steps": 2, "global_clipnorm": 0.05, "use_ema": True, "ema_momentum": 0.5}
    return fit(world, build(), keras.optimizers.Adam(0.01, **options), jit_compile=False)


@contextmanager
def policy(name: str) -> Iterator[None]:
    """Build layers with this dtype policy, within a `with` statement."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def half_precision(world: World) -> dict[str, np.ndarray]:
    """mixed_float16, where one example, and so one rank, has a gradient that is not finite."""
    images = data()[0]
    images[0] = np.inf
    with policy("mixed_float16"):  # `compile` puts a loss scaling around the optimizer
        return fit(world, build(), keras.optimizers.SGD(0.1), images)


def mixed_bfloat16(world: World) -> dict[str, np.ndarray]:
    """Layers that compute in bfloat16, with weights in float32."""
    with policy("mixed_bfloat16"):
        return fit(world, build(), keras.optimizers.SGD(0.1, momentum=0.9))


def bfloat16(world: World) -> dict[str, np.ndarray]:
    """Weights, their states and moving statistics in bfloat16, which Horovod does not know."""
    with policy("bfloat16"):
        model = build(keras.layers.BatchNormalization(momentum=0.5))
        return fit(world, model, keras.optimizers.SGD(0.1, momentum=0.9), run_eagerly=True)


def several_steps(world: World) -> dict[str, np.ndarray]:
    """Two steps in each call of a function that XLA compiles in parts; the third step of an epoch is alone."""
    return fit(world, build(), keras.optimizers.SGD(0.1, momentum=0.9), steps_per_execution=2)


def eager(world: World) -> dict[str, np.ndarray]:
    """Without a `tf.function`."""
    return fit(world, build(), keras.optimizers.SGD(0.1, momentum=0.9), run_eagerly=True)


def random_layers(world: World) -> dict[str, np.ndarray]:
    """Batch norm and dropout, which have a state of their own on each rank."""
    model = build(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5))
    return fit(world, model, keras.optimizers.SGD(0.1), jit_compile=False)


def synchronised(world: World) -> dict[str, np.ndarray]:
    """Batch norms that normalise by the batches of all ranks."""
    model = build(keras.layers.BatchNormalization(momentum=0.5))
    synchronise_batchnorm(model, world)
    return fit(world, model, keras.optimizers.SGD(0.1))


def own_step(world: World) -> dict[str, np.ndarray]:
    """A `train_step` that returns what Keras does not measure: here the number of the rank."""

    class Own(keras.Sequential):
        def train_step(self, batch: Any) -> dict[str, tf.Tensor]:
            return {**super().train_step(batch), "rank": tf.constant(float(world.rank))}

    model = Own([keras.Input((8, 8, 1)), *build().layers])
    return fit(world, model, keras.optimizers.SGD(0.1), jit_compile=False, metrics=[])


def told(world: World) -> dict[str, np.ndarray]:
    """What `fit` says when something is missing, one text for each."""

    def message(**changes: Any) -> str:
        try:
            fit(world, build(), keras.optimizers.SGD(0.1), jit_compile=False, **changes)
        except UserError as error:
            return str(error)
        return "no error"

    class Meddle(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if world.rank == 1:
                self.model.optimizer.learning_rate = 0.01

    texts = {
        "forgotten broadcast": message(callbacks=[]),
        "meddled": message(callbacks=[Meddle(), SynchroniseRanks(world)]),
    }
    model = build()
    model.compile(DistributedOptimizer("sgd", world), "mse", jit_compile=False)
    images, targets = (array[: 8 * (1 + world.rank)] for array in data())
    try:
        model.fit(images, targets, 8, verbose=0, callbacks=[SynchroniseRanks(world)])
    except UserError as error:
        texts["uneven"] = str(error)
    try:
        shard(np.arange(8) + world.rank, world)
    except UserError as error:
        texts["other data"] = str(error)
    return {name: np.array(text) for name, text in texts.items()}


def stock(world: World) -> dict[str, np.ndarray]:
    """Horovod's own wrapper, with equal weights at the start; its callback that broadcasts fails under Keras 3."""
    import horovod.tensorflow.keras as hvd

    model = build()
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "categorical_crossentropy", jit_compile=False)
    images, targets = shard(data(), world)
    model.fit(images, targets, BATCH // world.size, EPOCHS, verbose=0, shuffle=False)
    return {f"{number}": v.numpy() for number, v in enumerate(model.variables)}


CASES: dict[str, Callable[[World], dict[str, np.ndarray]]] = {
    case.__name__: case
    for case in (
        plain,
        everything,
        half_precision,
        mixed_bfloat16,
        bfloat16,
        several_steps,
        eager,
        random_layers,
        synchronised,
        own_step,
        told,
        stock,
    )
}


def main(arguments: Sequence[str]) -> int:
    folder, *names = arguments

    def command() -> None:
        world = join_ranks(Distributed(), as_library=True)
        for name in names:
            np.savez(Path(folder) / f"{name}.{world.rank}.npz", **CASES[name](world))

    return run_command(command)
