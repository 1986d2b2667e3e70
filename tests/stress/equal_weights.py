"""How far the weights of several ranks are from those of one after 20 steps, with each option that could part them.

usage: horovodrun -np 2 python tests/stress/equal_weights.py [--steps 20] [--cases "masked loss" ...]

Every case trains the tiny context encoder (32 px, SGD with momentum) twice: on all ranks, each with its share of a
batch of 24 images, and on rank 0 alone with the whole batch, in one part and with plain batch norms. Holes differ in
size, so that ranks have unequal shares of a masked loss. Batch norms are frozen, except with sync_batchnorm. ReLUs,
which would make large differences of rounding errors, are replaced by SiLUs. Rank 0 prints a line of JSON: by case, the
largest difference over all tensors, relative to the largest weight of the tensor.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfinpaint.cli.command import run_command
from tfinpaint.config.sections import Distributed
from tfinpaint.distributed import world as dist
from tfinpaint.distributed.launch import join_ranks

if TYPE_CHECKING:
    import keras

BATCH, SIDE, LEARNING_RATE = 24, 32, 0.1
LEFT_OUT = {  # weights, by the end of their path, whose difference says nothing about the ranks
    "sync_batchnorm": "_conv/bias",  # the batch norm behind it subtracts it again
}
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
) -> dict[str, np.ndarray]:
    """The weights after so many steps, by path."""
    import keras

    from tfinpaint.config.loss import Loss
    from tfinpaint.config.optimizer import Optimizer
    from tfinpaint.distributed.batchnorm import synchronise_batchnorm
    from tfinpaint.models.decoder import build_inpainter
    from tfinpaint.models.encoder import build_encoder
    from tfinpaint.models.losses import build_objective
    from tfinpaint.train.batchnorm import batchnorm_layers
    from tfinpaint.train.optimizers import build_optimizer
    from tfinpaint.train.step import StepOptions
    from tfinpaint.train.trainer import Trainer

    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(0)
    model = build_inpainter(build_encoder("tiny", "before_add", SIDE, SIDE))
    if sync_batchnorm:
        synchronise_batchnorm(model, world)
    else:
        for layer in batchnorm_layers(model, trainable=True):
            layer.trainable = False
    _prepare(model)
    objective = build_objective(Loss(function="BCE"), "sigmoid", by_pixel=masked)
    optimizer = build_optimizer(Optimizer(type="SGD", learning_rate=LEARNING_RATE, momentum=0.9), steps, 1)
    trainer = Trainer(
        model,
        optimizer,
        objective,
        world=world,
        step_options=StepOptions(accumulate_steps=accumulate_steps, clip_norm=clip_norm, scale_loss=scale_loss),
    )
    trainer.synchronise()
    trainer.train_steps(batches(steps, world.rank, world.size), steps)
    trainer.check_replicas_equal()
    return {variable.path: variable.numpy() for variable in model.variables}


def _prepare(model: keras.Model) -> None:
    """Make the network one in which a difference of the ranks can be told from a rounding error.

    Kernels are scaled so that no layer weakens its input (He et al., arXiv 1502.01852, section 2.2): with batch norms
    that do nothing yet, the encoder's gradients would vanish. And a ReLU, which a rounding error at 0 turns on or off,
    with its whole gradient, becomes the smooth SiLU.
    """
    import keras

    for layer in model.layers:
        if getattr(layer, "activation", None) is keras.activations.relu:
            layer.activation = keras.activations.silu
        if not hasattr(layer, "kernel"):
            continue
        height, width, _, inputs = layer.kernel.shape
        if "decoder" in layer.name:
            height, width = height / layer.strides[0], width / layer.strides[1]
        else:
            inputs = layer.kernel.shape[2]
        wanted = (2 / (height * width * inputs)) ** 0.5
        layer.kernel.assign(layer.kernel * (wanted / float(np.std(layer.kernel))))


def largest_difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], left_out: str | None) -> float:
    paths = [path for path in theirs if not (left_out and path.endswith(left_out))]
    return max(float(np.abs(ours[p] - theirs[p]).max() / max(np.abs(theirs[p]).max(), 1e-12)) for p in paths)


def compare(steps: int, cases: list[str]) -> None:
    world = join_ranks(Distributed())
    found = {}
    for name in cases:
        options = dict(CASES[name])
        settings = Distributed(**options.pop("distributed", {}))
        world.gradient_groups, world.compression = settings.gradient_groups, settings.compression
        several = train(world, steps, **options)
        if world.is_rank0:
            options["accumulate_steps"] = 1
            alone = train(dist.World(), steps, **options)
            found[name] = float(f"{largest_difference(several, alone, LEFT_OUT.get(name)):.3g}")
    if world.is_rank0:
        print(json.dumps({"ranks": world.size, "steps": steps, "largest relative difference": found}))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    args = parser.parse_args(arguments)
    return run_command(lambda: compare(args.steps, args.cases))


if __name__ == "__main__":
    sys.exit(main())
