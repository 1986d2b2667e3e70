"""What checkpoints cost: the time of training steps with one every 20 steps, against the same steps without.

The context encoder on random images is trained in one process in blocks of 20 steps, with and without a checkpoint
begun in them, in turn, so that other work on the machine meets both alike.

usage: python scripts/bench/checkpoints.py --rounds 5 --size 64 --batch 32
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from turns import Aim, print_comparison

from tfinpaint.checkpoint.async_writer import AsyncWriter
from tfinpaint.checkpoint.header import Header, RankState, SavedProgress
from tfinpaint.checkpoint.store import TrainingState
from tfinpaint.config.loss import Loss
from tfinpaint.distributed.world import World
from tfinpaint.models.decoder import build_inpainter, encoder_part
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.losses import build_objective
from tfinpaint.train.rank_state import rank_state
from tfinpaint.train.trainer import Trainer

CUT = "conv5_block3_3_bn"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="in a block (default 20)")
    parser.add_argument("--size", type=int, default=64, help="of the images, pixels (default 64)")
    parser.add_argument("--batch", type=int, default=32, help="images a step (default 32)")
    options = parser.parse_args(arguments)

    trainer, live, copy = make_trainer(options.size)
    generator = np.random.default_rng(0)
    images = tf.constant(generator.random((options.batch, options.size, options.size, 3), np.float32))
    batch = {"inputs": images, "targets": images}
    header = Header(
        kind="inpainter", epoch=0, step=1, encoder="resnet50", encoder_output="before_add",
        height=options.size, width=options.size, batch_size=options.batch, steps_per_epoch=10**6,
    )  # fmt: skip
    ranks = RankState(
        rank_state(trainer.model, statistics=False)[None], np.zeros((1, 1, 0)), np.zeros((1, 1), np.int64)
    )
    progress = SavedProgress(own=ranks.own.shape[1])
    trainer.train_steps(iter([batch] * 3), 3)
    times: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        writer = AsyncWriter(live, lambda _: copy)
        for number in range(options.rounds + 1):
            for saves in (True, False) if number % 2 else (False, True):
                begin = time.perf_counter()
                if saves:
                    trainer.check_replicas_equal(within_epoch=True)
                    step = header.model_copy(update={"step": number + 1})
                    writer.write(Path(folder), step, progress, ranks, keep=2)
                trainer.train_steps(iter([batch] * options.steps), options.steps)
                if number:  # the first round warms up
                    times[saves].append(time.perf_counter() - begin)
                writer.wait()
    settings = {"pixels": options.size, "batch": options.batch, "steps": options.steps}
    sides = {"with a checkpoint": times[True], "without": times[False]}
    print_comparison(
        "Training with checkpoints", settings, "s", sides, [Aim("with a checkpoint", "without", "<= 1.03")]
    )
    return 0


def make_trainer(size: int) -> tuple[Trainer, TrainingState, TrainingState]:
    """(a trainer of the context encoder, what is saved of it, a copy of that to write from)."""
    model = build_inpainter(build_encoder("resnet50", "before_add", size, size))
    optimizer = keras.optimizers.Adam(1e-4)
    trainer = Trainer(model, optimizer, build_objective(Loss(function="BCE"), "sigmoid"), world=World())
    twin = keras.models.clone_model(model)
    contents = [TrainingState(each, optimizer, encoder_part(each, CUT)) for each in (model, twin)]
    return trainer, contents[0], contents[1]


if __name__ == "__main__":
    sys.exit(main())
