"""Images per second of one training step of the context encoder, ours beside a bare `keras.Model.fit`.

usage: python scripts/bench/step.py [--size 128] [--batch 32] [--steps 5] [--repeats 5] [--precision float32]

Both train the same model (43 M parameters), precision, Adam and batch in this process on all cores, in turns, so that
a noisy machine hits both alike. Ours reads preloaded images through the whole pipeline, erasing included; `fit` gets
one ready batch again and again, with nothing to read or erase. Prints a JSON line: the median rate of each and the
median and range of the ratios of neighbouring turns.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from PIL import Image

from tfinpaint.config.optimizer import Optimizer
from tfinpaint.config.schema import Config
from tfinpaint.data import pipeline
from tfinpaint.data.examples import Images, RankShare
from tfinpaint.data.listing import listing
from tfinpaint.data.tasks import inpainting_task
from tfinpaint.distributed import world
from tfinpaint.models import losses
from tfinpaint.models.decoder import build_inpainter
from tfinpaint.models.encoder import build_encoder
from tfinpaint.train.optimizers import build_optimizer
from tfinpaint.train.trainer import Trainer

PATCH_DIVISOR = 8  # patches of 1/8 of the side, 16 of them, as in the tutorial


def build(size: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_inpainter(build_encoder("resnet50", "before_add", size, size))


def our_turn(size: int, batch: int, folder: Path):
    """A function that trains n steps through the project's pipeline and loop."""
    generator = np.random.default_rng(0)
    for i in range(4 * batch):
        Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{i:04}.png")
    patches = {"number": 16, "size": size // PATCH_DIVISOR}
    config = Config.model_validate({"data": {"transforms": [{"resize": [size, size]}, {"random_patches": patches}]}})
    recipe = inpainting_task(config, separate=False, augment=True)
    images = Images.open(listing.list_images(folder), RankShare(), recipe.images, preload=True)
    batches = iter(pipeline.train_batches(images, batch_size=batch, seed=0, first_step=0, prepare=recipe.prepare))
    optimizer = build_optimizer(Optimizer(learning_rate=1e-3), steps_per_epoch=1, num_epochs=1)
    trainer = Trainer(build(size), optimizer, losses.of_targets(losses.bce), world=world.World())
    return lambda steps: trainer.train_steps(batches, steps)


def fit_turn(size: int, batch: int):
    """A function that trains n steps by `fit`."""
    import tensorflow as tf

    inputs, targets = (tf.random.uniform((batch, size, size, 3)) for _ in range(2))
    data = tf.data.Dataset.from_tensors((inputs, targets)).repeat()
    model = build(size)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="binary_crossentropy", jit_compile=False)
    return lambda steps: model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--size", type=int, default=128, help="pixels")
    cli.add_argument("--batch", type=int, default=32)
    cli.add_argument("--steps", type=int, default=5, help="per turn")
    cli.add_argument("--repeats", type=int, default=5, help="turns each")
    cli.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    args = cli.parse_args()
    keras.config.set_dtype_policy(args.precision)

    with tempfile.TemporaryDirectory() as folder:
        turns = {"tfinpaint": our_turn(args.size, args.batch, Path(folder)), "fit": fit_turn(args.size, args.batch)}
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for turn in turns.values():
        turn(2)  # compile
    for _ in range(args.repeats):
        for name, turn in turns.items():
            begin = time.perf_counter()
            turn(args.steps)
            rates[name].append(args.batch * args.steps / (time.perf_counter() - begin))
    ratios = [ours / theirs for ours, theirs in zip(rates["tfinpaint"], rates["fit"], strict=True)]
    print(
        json.dumps(
            {
                **vars(args),
                "images_per_second": {name: round(statistics.median(values), 2) for name, values in rates.items()},
                "ratio": round(statistics.median(ratios), 3),
                "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
            }
        )
    )


if __name__ == "__main__":
    main()
