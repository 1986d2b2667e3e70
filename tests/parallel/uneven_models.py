"""Normalise by the batches of all ranks, where rank 0 has made more Keras models than the other ranks.

Keras numbers models without a name, and the operations of a model are named after it. Rank 0 prints a line of JSON: the
normalised rows of all ranks, and the gradient of the sum of their squares in the values of rank 0.
"""

import json
from collections.abc import Sequence

from tfinpaint.cli.command import run_command
from tfinpaint.config.sections import Distributed
from tfinpaint.distributed.launch import join_ranks


def main(_: Sequence[str] | None = None) -> int:
    return run_command(normalise)


def normalise() -> None:
    world = join_ranks(Distributed())
    import keras
    import tensorflow as tf

    from tfinpaint.distributed.batchnorm import synchronise_batchnorm

    for _ in range(4 if world.is_rank0 else 1):
        values = keras.Input((2,))
        model = keras.Model(values, keras.layers.BatchNormalization(name="norm", epsilon=1e-12)(values))
    synchronise_batchnorm(model, world)

    @tf.function(autograph=False)
    def rows_and_gradient(own: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(own)
            rows = world.gather_rows(model(own, training=True), "rows")
            loss = tf.reduce_sum(tf.square(rows[:1]))
        return rows, tape.gradient(loss, own)

    rows, gradient = rows_and_gradient(tf.constant([[1.0, -2.0]]) * (1.0 + 2.0 * world.rank))
    if world.is_rank0:
        print(json.dumps({"rows": rows.numpy().tolist(), "gradient": gradient.numpy().tolist()}))
