"""Train a two-layer model on different data per rank and check that the ranks end with the same weights.

usage: horovodrun -np 2 python -m tfinpaint.canary

Exits 0 and prints one line when gradients are really averaged and the weights are equal to the last byte.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from tfinpaint import cli, dist
from tfinpaint.config import Distributed
from tfinpaint.errors import UserError

STEPS = 5


def check(world: dist.World) -> str:
    """Run the check on every rank.

    Raises:
        UserError: a gradient was not the mean over the ranks, or the weights differ.
    """
    import keras
    import tensorflow as tf

    from tfinpaint.models.losses import of_targets
    from tfinpaint.train.loop import Trainer

    ranks_mean = world.average_gradients([tf.constant([float(world.rank)])])[0].numpy()[0]
    if ranks_mean != (world.size - 1) / 2:
        raise UserError(f"canary: the mean of the ranks 0..{world.size - 1} came out as {ranks_mean}")

    keras.utils.set_random_seed(world.rank)  # different initial weights: the broadcast has to mend them
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)])
    trainer = Trainer(
        model,
        keras.optimizers.Adam(1e-2),
        of_targets(lambda targets, outputs: tf.reduce_mean(tf.square(outputs - targets), axis=1)),
        world=world,
    )
    trainer.synchronise()
    generator = np.random.default_rng(world.rank)
    batches = [
        {"inputs": generator.normal(size=(4, 8)).astype("float32"), "targets": np.full((4, 1), 1.0, "float32")}
        for _ in range(STEPS)
    ]
    trainer.train_steps(iter(batches), STEPS)
    trainer.check_in_step()
    return f"canary: {world.size} rank(s), gradients averaged, weights equal to the last byte"


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = argparse.ArgumentParser(prog="tfinpaint canary", description=__doc__.splitlines()[0])
        parser.add_argument("--ranks", type=int, help="fail unless there are this many ranks")
        parsed = parser.parse_args(arguments)
        world = dist.start(Distributed())
        if parsed.ranks not in (None, world.size):
            raise UserError(f"canary: {world.size} rank(s) found each other, expected {parsed.ranks}")
        message = check(world)
        if world.is_first:
            print(message)

    return cli.guard(command)


if __name__ == "__main__":
    sys.exit(main())
