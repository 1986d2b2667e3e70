"""How far the weights of several ranks are from those of one after 20 steps, with each option that could part them.

usage: horovodrun -np 2 python scripts/equal_weights.py [--steps 20]

Every case trains the tiny context encoder (32 px, SGD with momentum) twice: on all ranks, each with its share of a
batch of 24 images, and on rank 0 alone with the whole batch, in one part and with plain batch norms. Holes differ in
size, so that ranks have unequal shares of a masked loss. Batch norms are frozen, except with sync_batchnorm. Rank 0
prints a line of JSON: by case, the largest difference over all tensors, relative to the largest weight of the tensor.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

import numpy as np

from tfinpaint import cli, dist
from tfinpaint.config import Distributed

BATCH, SIDE = 24, 32
CASES: dict[str, dict] = {
    "plain": {},
    "accumulation": {"accumulate_steps": 3},
    "clipping": {"clip_norm": 0.02},
    "masked loss": {"masked": True},
    "accumulation, clipping, masked loss": {"accumulate_steps": 3, "clip_norm": 0.02, "masked": True},
    "gradient groups": {"distributed": {"gradient_groups": 4}},
    "sync_batchnorm": {"sync_batchnorm": True},
    "mixed_bfloat16": {"precision": "mixed_bfloat16"},
    "mixed_float16": {"precision": "mixed_float16", "scale_loss": True},
    "fp16 compression": {"distributed": {"compression": "fp16"}, "scale_loss": True},
}


def batches(steps: int, rank: int, ranks: int) -> Iterator[dict]:
    """A rank's share of each batch: noise with rectangular holes of 2 to 70 % of the area, to be restored."""
    import tensorflow as tf

    generator = np.random.default_rng(0)
    for _ in range(steps):
        # Coloured: of grey noise, of mean 0.5, a new decoder is right already, and all gradients are rounding errors.
        colours = generator.uniform(0.0, 0.5, (BATCH, 1, 1, 3))
        originals = (colours + 0.3 * generator.random((BATCH, SIDE, SIDE, 3))).astype(np.float32)
        sides = np.round(SIDE * np.sqrt(generator.uniform(0.02, 0.7, BATCH))).astype(int)
        places = np.arange(SIDE)[None, :] < sides[:, None]
        mask = (places[:, :, None] & places[:, None, :]).astype(np.float32)[..., None]
        whole = {"inputs": originals * (1 - mask), "targets": originals, "weights": mask}
        yield {name: tf.constant(values[rank::ranks]) for name, values in whole.items()}


def train(
    world: dist.World,
    steps: int,
    *,
    precision: str = "float32",
    masked: bool = False,
    sync_batchnorm: bool = False,
    accumulate_steps: int = 1,
    clip_norm: float | None = None,
    scale_loss: bool = False,
) -> list[np.ndarray]:
    """The weights after so many steps."""
    import keras

    from tfinpaint.config import Loss, Optimizer
    from tfinpaint.models.encoder import build_encoder
    from tfinpaint.models.inpaint import build_inpainter
    from tfinpaint.models.losses import build_objective
    from tfinpaint.train.batchnorm import batchnorm_layers, synchronise_batchnorm
    from tfinpaint.train.loop import Trainer
    from tfinpaint.train.optimizers import build_optimizer

    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(0)
    model = build_inpainter(build_encoder("tiny", "before_add", SIDE, SIDE))
    if sync_batchnorm:
        synchronise_batchnorm(model, world)
    else:
        for layer in batchnorm_layers(model, trainable=True):
            layer.trainable = False
    objective = build_objective(Loss(function="BCE"), "sigmoid", by_pixel=masked)
    optimizer = build_optimizer(Optimizer(type="SGD", learning_rate=0.1, momentum=0.9), steps, 1)
    trainer = Trainer(
        model,
        optimizer,
        objective,
        world=world,
        accumulate_steps=accumulate_steps,
        clip_norm=clip_norm,
        scale_loss=scale_loss,
    )
    trainer.synchronise()
    trainer.train_steps(batches(steps, world.rank, world.size), steps)
    trainer.check_in_step()
    return model.get_weights()


def largest_difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12)) for a, b in zip(ours, theirs, strict=True))


def compare(steps: int) -> None:
    world = dist.start(Distributed())
    found = {}
    for name, options in CASES.items():
        options = dict(options)
        settings = Distributed(**options.pop("distributed", {}))
        world.gradient_groups, world.compression = settings.gradient_groups, settings.compression
        several = train(world, steps, **options)
        if world.is_first:
            options["accumulate_steps"] = 1
            found[name] = float(f"{largest_difference(several, train(dist.World(), steps, **options)):.3g}")
    if world.is_first:
        print(json.dumps({"ranks": world.size, "steps": steps, "largest relative difference": found}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    return cli.guard(lambda: compare(steps))


if __name__ == "__main__":
    sys.exit(main())
