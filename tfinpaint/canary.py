"""Train a two-layer model on different data per rank and check that the ranks end with the same weights.

usage: horovodrun -np 2 python -m tfinpaint.canary

Exits with 0 and prints one line if every collective returns the right numbers, gradients are averaged, and the weights
are equal to the last byte.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfinpaint.batch import Batch
from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.config.sections import Distributed
from tfinpaint.distributed.launch import join_ranks
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.system.wording import counted

STEPS = 5


def check(world: World) -> str:
    """Run the check on every rank.

    Raises:
        UserError: a collective gave wrong numbers, or the weights differ.
    """
    import keras
    import tensorflow as tf

    from tfinpaint.models.losses import of_targets
    from tfinpaint.train.trainer import Trainer

    for name, found, expected in collectives(world):
        if found != expected:
            raise UserError(f"canary: {name} over {counted(world.size, 'rank')} gave {found}, expected {expected}")

    keras.utils.set_random_seed(world.rank)  # different initial weights, which the broadcast must make equal
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)])
    trainer = Trainer(
        model,
        keras.optimizers.Adam(1e-2),
        of_targets(lambda targets, outputs: tf.reduce_mean(tf.square(outputs - targets), axis=1)),
        world=world,
    )
    trainer.synchronise()
    generator = np.random.default_rng(world.rank)
    batches: list[Batch] = [
        {"inputs": generator.normal(size=(4, 8)).astype("float32"), "targets": np.full((4, 1), 1.0, "float32")}
        for _ in range(STEPS)
    ]
    trainer.train_steps(iter(batches), STEPS)
    trainer.check_replicas_equal()
    ranks = counted(world.size, "rank")
    return f"canary: {ranks}, gradients averaged, weights equal to the last byte, every collective right"


def collectives(world: World) -> Iterator[tuple[str, Any, Any]]:
    """Call every collective with values that differ by rank; yield its name, its result and the expected result.

    All results are multiples of a half, or sums that are exact in any order; only averages, which Horovod computes by a
    product with 1 / ranks, are rounded.
    """
    import keras
    import tensorflow as tf

    ranks = range(world.size)
    mean, total = sum(ranks) / world.size, float(sum(ranks))

    gradients = [tf.constant([float(world.rank)]), tf.fill((2, 1), world.rank + 0.5)]
    averaged = [gradient.numpy().round(3).tolist() for gradient in world.average_gradients(gradients)]
    yield "average_gradients", averaged, [[mean], [[mean + 0.5], [mean + 0.5]]]

    mine = tf.constant([float(world.rank), 1.0])
    yield "all_reduce_sum", world.all_reduce_sum(mine, "canary_sum").numpy().tolist(), [total, world.size]
    yield "all_reduce_mean", world.all_reduce_mean(mine, "canary_mean").numpy().round(3).tolist(), [round(mean, 3), 1.0]

    weight, counter = keras.Variable([world.rank + 1.0]), keras.Variable(world.rank, dtype="int64")
    seeds = keras.random.SeedGenerator(world.rank).state
    own_seeds = seeds.numpy().tolist()
    world.broadcast_variables([weight, counter, seeds])
    received = [weight.numpy().tolist(), int(counter.numpy()), seeds.numpy().tolist()]
    yield "broadcast_variables", received, [[1.0], 0, own_seeds]

    weight.assign([float(world.rank)])
    counter.assign(world.rank)
    world.average_variables([weight, counter])
    yield "average_variables", [weight.numpy().round(3).tolist(), int(counter.numpy())], [[mean], world.rank]

    tiny = 2.0**-40  # beside 1, lost in float32
    summed = world.sum_array(np.array([world.rank, 1.0 + tiny])).tolist()
    yield "sum_array", summed, [total, world.size + world.size * tiny]
    gradient = 2.0 * (1 + world.rank) * world.size
    yield "gather_rows", _rows_and_gradient(world), [[1.0 + rank for rank in ranks], gradient]
    rows = world.all_gather_rows(np.array([world.rank, 0.1])).tolist()
    yield "all_gather_rows", rows, [[rank, 0.1] for rank in ranks]
    yield "sum_values", world.sum_values({"ranks": world.rank, "ones": 1.0}), {"ranks": total, "ones": world.size}

    gathered = world.all_gather({"rank": world.rank, "text": "é" * world.rank})
    yield "all_gather", gathered, [{"rank": rank, "text": "é" * rank} for rank in ranks]
    own = np.array([[0.1, world.rank]]) if world.is_rank0 else None
    yield "broadcast_array", world.broadcast_array(own).tolist(), [[0.1, 0.0]]
    yield "run_on_rank0", world.run_on_rank0(lambda: [world.rank, "first"]), [0, "first"]
    yield "run_on_rank0's error", _error_of_first(world), "told by rank 0"


def _rows_and_gradient(world: World) -> list[Any]:
    """Return the rows of all ranks, and the gradient of their squares in this rank's row, which all ranks sum up."""
    import tensorflow as tf

    own = tf.constant([[1.0 + world.rank]])
    with tf.GradientTape() as tape:
        tape.watch(own)
        rows = world.gather_rows(own, "canary_rows")
        squares = tf.reduce_sum(tf.square(rows))
    return [rows.numpy().ravel().tolist(), tape.gradient(squares, own).numpy().item()]


def _error_of_first(world: World) -> str:
    def fail() -> None:
        raise UserError(f"told by rank {world.rank}")

    try:
        world.run_on_rank0(fail)
    except UserError as error:
        return str(error)
    return "no error"


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("canary")
        parser.add_argument(
            "--ranks", type=int, metavar="N", help="fail unless there are this many ranks (default: any number)"
        )
        parsed = parser.parse_args(arguments)
        world = join_ranks(Distributed())
        if parsed.ranks not in (None, world.size):
            raise UserError(f"canary: {counted(world.size, 'rank')} found each other, expected {parsed.ranks}")
        message = check(world)
        if world.is_rank0:
            print(message)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
