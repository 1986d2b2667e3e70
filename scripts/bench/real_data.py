"""What input costs in training: a step on real data, relative to a step on one constant batch.

usage: python scripts/bench/real_data.py [--size 128] [--batch 32] [--steps 5] [--rounds 5] [--width 256]
           [--sides NAME...]

Every side trains the context encoder (ResNet50, Adam, float32) on all cores by the project's loop, in a process of its
own: on one batch again and again ("constant"), on images in memory ("preloaded"), and on JPEG files ("files"). The last
two erase 16 patches; the files are photo-like images, `--width` pixels wide, of quality 90. Prints the seconds of a
step, with the median and range of each side and of the ratios of neighbouring turns, then all values as one line of
JSON.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from jpeg import write_photos
from turns import Aim, print_comparison, serve_turns, take_turns

from tfinpaint.batch import Batch
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
from tfinpaint.runs.precision import settle_precision
from tfinpaint.train.optimizers import build_optimizer
from tfinpaint.train.trainer import Trainer

SIDES = ("constant", "preloaded", "files")
IMAGES = 512


def open_batches(side: str, folder: Path, size: int, batch: int) -> Iterator[Batch]:
    """Return endless batches of one side."""
    patches = {"number": 16, "size": size // 8}
    config = Config.model_validate({"data": {"transforms": [{"resize": [size, size]}, {"random_patches": patches}]}})
    task = inpainting_task(config, separate=False, augment=True)
    images = Images.open(listing.list_images(folder), RankShare(), task.images, preload=side == "preloaded")
    batches = pipeline.train_batches(
        images, batch_size=batch, seed=0, first_step=0, prepare=task.prepare, leave_out=task.not_trained_on
    )
    if side == "constant":
        batches = tf.data.Dataset.from_tensors(next(iter(batches))).repeat()
    return iter(batches)


def serve(args: argparse.Namespace) -> None:
    """Take the turns of one side, in its own process."""
    keras.utils.set_random_seed(0)
    settings = Config.model_validate({"data": {"input_path": args.folder}})
    keras.config.set_dtype_policy(settle_precision(settings, world.World(), None).precision)
    model = build_inpainter(build_encoder("resnet50", "before_add", args.size, args.size))
    optimizer = build_optimizer(Optimizer(learning_rate=1e-3), steps_per_epoch=1, num_epochs=1)
    trainer = Trainer(model, optimizer, losses.of_targets(losses.bce), world=world.World())
    batches = open_batches(args.serve, args.folder, args.size, args.batch)

    def turn() -> float:
        trainer.train_steps(batches, 2)  # what was read ahead while the others had their turns
        begin = time.perf_counter()
        trainer.train_steps(batches, args.steps)
        return (time.perf_counter() - begin) / args.steps

    serve_turns(turn)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--size", type=int, default=128, help="pixels, a multiple of 32")
    cli.add_argument("--batch", type=int, default=32)
    cli.add_argument("--steps", type=int, default=5, help="per turn")
    cli.add_argument("--rounds", type=int, default=5, help="turns of each side")
    cli.add_argument("--width", type=int, default=256, help="of the files, in pixels")
    cli.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    cli.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    cli.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    args = cli.parse_args()
    if args.serve:
        serve(args)
        return
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "photos"
        write_photos(folder, IMAGES, args.width)
        options = [f"--{name}={getattr(args, name)}" for name in ("size", "batch", "steps")]
        program = [sys.executable, str(Path(__file__)), *options, f"--folder={folder}", "--serve"]
        sides = {name: [*program, name] for name in args.sides}
        aims = [Aim(name, "constant", "<= 1.02") for name in sides if name != "constant"]
        settings = {name: getattr(args, name) for name in ("size", "batch", "steps", "width")}
        print_comparison("real data", settings, "s/step", take_turns(sides, args.rounds), aims)


if __name__ == "__main__":
    main()
