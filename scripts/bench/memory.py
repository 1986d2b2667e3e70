"""Peak memory of one rank: a training step with and without `recompute`, and preloaded images.

usage: python scripts/bench/memory.py [--size 128] [--batch 128] [--steps 2] [--images 10000] [--rounds 1]

Trains the context encoder (43 M parameters) in float32 on one batch of that many images per rank, with and without
`recompute: true`, each in a process of its own, and reports the greatest resident memory of the process and the seconds
of a step. Then preloads that many images and starts to read batches of them: the memory that this takes is compared
with the bytes of the pixels. Prints tables, then the same as lines of JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from turns import Aim, print_comparison

GIB = 2**30


def peak() -> float:
    """The greatest resident memory of this process so far, in GiB.

    It is that of Linux for this program alone: `getrusage` also counts the memory of the process that started it.
    """
    status = Path("/proc/self/status").read_text()
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kibibytes) * 1024 / GIB


def train(size: int, batch: int, steps: int, recompute: bool) -> dict[str, float]:
    """Return the peak memory of some training steps, and the seconds of the fastest but the first."""
    import keras
    import tensorflow as tf

    from tfinpaint.config.optimizer import Optimizer
    from tfinpaint.distributed import world
    from tfinpaint.models import losses
    from tfinpaint.models.decoder import build_inpainter
    from tfinpaint.models.encoder import block_ends, build_encoder
    from tfinpaint.train.optimizers import build_optimizer
    from tfinpaint.train.step import StepOptions
    from tfinpaint.train.trainer import Trainer

    keras.utils.set_random_seed(0)
    model = build_inpainter(build_encoder("resnet50", "before_add", size, size))
    optimizer = build_optimizer(Optimizer(learning_rate=1e-3), steps_per_epoch=1, num_epochs=1)
    objective = losses.of_targets(losses.bce)
    ends = block_ends("resnet50", model) if recompute else ()
    trainer = Trainer(model, optimizer, objective, world=world.World(), step_options=StepOptions(recompute=ends))
    images = tf.random.uniform((batch, size, size, 3))
    batches = iter(lambda: {"inputs": images, "targets": images}, None)
    seconds = []
    for _ in range(1 + steps):
        begin = time.perf_counter()
        trainer.train_steps(batches, 1)
        seconds.append(time.perf_counter() - begin)
    return {"memory": peak(), "seconds": min(seconds[1:])}


def preload(size: int, images: int) -> dict[str, float]:
    """Return the memory that preloaded images and an iterator of their batches take at most."""
    import numpy as np
    from PIL import Image

    from tfinpaint.config.schema import Config
    from tfinpaint.data import pipeline
    from tfinpaint.data.examples import Images, RankShare
    from tfinpaint.data.listing import listing
    from tfinpaint.data.tasks import inpainting_task

    patches = {"number": 16, "size": size // 8}
    config = Config.model_validate({"data": {"transforms": [{"resize": [size, size]}, {"random_patches": patches}]}})
    recipe = inpainting_task(config, separate=False, augment=True)

    def read(folder: str, number: int) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(Path(folder) / "0.png")
        for each in range(1, number):
            (Path(folder) / f"{each}.png").symlink_to("0.png")
        loaded = Images.open(listing.list_images(Path(folder)), RankShare(), recipe.images, preload=True)
        batches = pipeline.train_batches(loaded, batch_size=2, seed=0, first_step=0, prepare=recipe.prepare)
        next(iter(batches))

    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as folder:
        read(few, 16)  # what TensorFlow and the pipeline take for any number of images
        before = peak()
        read(folder, images)
    return {"memory": peak() - before}


def measure(*arguments: str) -> dict[str, float]:
    """Run this program in a process of its own for one value."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--size", type=int, default=128, help="pixels")
    cli.add_argument("--batch", type=int, default=128, help="images of one rank")
    cli.add_argument("--steps", type=int, default=2)
    cli.add_argument("--images", type=int, default=10000, help="to preload")
    cli.add_argument("--rounds", type=int, default=1)
    cli.add_argument("--measure", choices=("plain", "recompute", "preload"), help=argparse.SUPPRESS)
    args = cli.parse_args()
    if args.measure:
        preloads = args.measure == "preload"
        recompute = args.measure == "recompute"
        found = preload(args.size, args.images) if preloads else train(args.size, args.batch, args.steps, recompute)
        print(json.dumps(found))
        return
    sizes = [f"--{name}={getattr(args, name)}" for name in ("size", "batch", "steps", "images")]
    sides = {"recompute: false": "plain", "recompute: true": "recompute"}
    found = {side: [] for side in sides}
    for _ in range(args.rounds):
        for side, name in sides.items():
            found[side].append(measure(*sizes, "--measure", name))
    settings = {"size": args.size, "batch": args.batch, "precision": "float32"}
    aims = [Aim("recompute: true", "recompute: false")]
    for title, unit, name in (("peak memory of a rank", "GiB", "memory"), ("training step", "s", "seconds")):
        values = {side: [each[name] for each in measured] for side, measured in found.items()}
        print_comparison(title, settings, unit, values, aims)
    taken = [measure(*sizes, "--measure", "preload")["memory"] for _ in range(args.rounds)]
    values = {"preloaded images": taken, "bytes of the pixels": [args.images * args.size**2 * 3 / GIB] * args.rounds}
    aims = [Aim("preloaded images", "bytes of the pixels", "<= 1.1")]
    print_comparison("memory of images", {"size": args.size, "images": args.images}, "GiB", values, aims)


if __name__ == "__main__":
    main()
