"""Images per second of one training step of the context encoder: ours, a bare `keras.Model.fit`, and PyTorch.

usage: python scripts/bench/step.py [--size 128] [--batch 32] [--steps 3] [--rounds 5] [--precision auto]
           [--peers PYTHON] [--sides tfinpaint keras torch-fp32 torch-bf16 torch-fp32-compiled torch-bf16-compiled]

All train the same model (43 M parameters) with Adam on all cores, each in a process of its own, in turns. Ours reads
preloaded images through the whole pipeline, erasing included; the peers get one ready batch again and again. `keras`
computes in float32, its default. PYTHON is the interpreter of an environment with PyTorch (`pip install torch numpy`);
without it, PyTorch is left out. At 128 px and batch 32 a side takes 2 to 4 GiB of memory. Prints the median and
the range of each side and of the ratios of neighbouring turns, then all values as one JSON line.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from peers import without_tuning
from PIL import Image
from turns import Aim, print_comparison, serve_turns, take_turns

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
from tfinpaint.system.hardware import BFLOAT16_FEATURES, processor_features
from tfinpaint.train.optimizers import build_optimizer
from tfinpaint.train.trainer import Trainer

PATCH_DIVISOR = 8  # patches of 1/8 of the side, 16 of them, as in the tutorial
TORCH = {
    "torch-fp32": [],
    "torch-bf16": ["--precision", "bf16"],
    "torch-fp32-compiled": ["--compile"],
    "torch-bf16-compiled": ["--precision", "bf16", "--compile"],
}
# The ratios that are aimed at with the default precision, by the size of the images.
WANTED = {128: {"keras": ">= 1.7", "torch": ">= 1.1"}, 64: {"keras": ">= 1.7", "torch": ">= 1.4"}}


def build(size: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_inpainter(build_encoder("resnet50", "before_add", size, size))


def our_steps(size: int, batch: int, precision: str, folder: Path) -> Callable[[int], object]:
    """A function that trains n steps through the project's pipeline and loop."""
    settings = Config.model_validate({"precision": precision, "data": {"input_path": folder}})
    keras.config.set_dtype_policy(settle_precision(settings, world.World(), None).precision)
    generator = np.random.default_rng(0)
    for i in range(4 * batch):
        Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{i:04}.png")
    patches = {"number": 16, "size": size // PATCH_DIVISOR}
    config = Config.model_validate({"data": {"transforms": [{"resize": [size, size]}, {"random_patches": patches}]}})
    recipe = inpainting_task(config, separate=False, augment=True)
    images = Images.open(listing.list_images(folder), RankShare(), recipe.images, preload=True)
    batches = pipeline.train_batches(
        images, batch_size=batch, seed=0, first_step=0, prepare=recipe.prepare, leave_out=recipe.not_trained_on
    )
    optimizer = build_optimizer(Optimizer(learning_rate=1e-3), steps_per_epoch=1, num_epochs=1)
    trainer = Trainer(build(size), optimizer, losses.of_targets(losses.bce), world=world.World())
    endless = iter(batches)
    return lambda steps: trainer.train_steps(endless, steps)


def keras_steps(size: int, batch: int) -> Callable[[int], object]:
    """A function that trains n steps by `fit`."""
    import tensorflow as tf

    inputs, targets = (tf.random.uniform((batch, size, size, 3)) for _ in range(2))
    data = without_tuning(tf.data.Dataset.from_tensors((inputs, targets)).repeat())
    model = build(size)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="binary_crossentropy", jit_compile=False)
    return lambda steps: model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0)


def serve(args: argparse.Namespace) -> None:
    """Take the turns of one side, in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        if args.serve == "tfinpaint":
            train = our_steps(args.size, args.batch, args.precision, Path(folder))
        else:
            train = keras_steps(args.size, args.batch)

    def turn() -> float:
        begin = time.perf_counter()
        train(args.steps)
        return args.batch * args.steps / (time.perf_counter() - begin)

    serve_turns(turn)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--size", type=int, default=128, help="pixels")
    cli.add_argument("--batch", type=int, default=32)
    cli.add_argument("--steps", type=int, default=3, help="per turn")
    cli.add_argument("--rounds", type=int, default=5, help="turns of each side")
    cli.add_argument("--precision", choices=("auto", "float32", "mixed_bfloat16"), default="auto", help="of tfinpaint")
    cli.add_argument("--peers", help="interpreter of an environment with PyTorch")
    cli.add_argument(
        "--sides", nargs="+", choices=("tfinpaint", "keras", *TORCH), default=("tfinpaint", "keras", *TORCH)
    )
    cli.add_argument("--serve", choices=("tfinpaint", "keras"), help=argparse.SUPPRESS)
    args = cli.parse_args()
    if args.serve:
        serve(args)
        return
    sizes = ["--size", str(args.size), "--batch", str(args.batch), "--steps", str(args.steps)]
    own = [sys.executable, __file__, *sizes, "--precision", args.precision, "--serve"]
    sides = {name: [*own, name] for name in ("tfinpaint", "keras") if name in args.sides}
    if not set(processor_features()) & BFLOAT16_FEATURES:  # PyTorch would emulate it, in minutes for each step
        print("bfloat16 is left out: the processor does not compute in it", file=sys.stderr)
        args.sides = [name for name in args.sides if "bf16" not in name]
    if args.peers:
        threads = ["--threads", str(len(os.sched_getaffinity(0)))]
        program = [args.peers, str(Path(__file__).with_name("step_torch.py")), *sizes, *threads]
        sides |= {name: [*program, *options] for name, options in TORCH.items() if name in args.sides}
    else:
        print("PyTorch is left out: --peers names no interpreter", file=sys.stderr)
    wanted = WANTED.get(args.size, {}) if args.precision == "auto" else {}
    aims = [Aim("tfinpaint", name, wanted.get(name.partition("-")[0], "")) for name in sides if name != "tfinpaint"]
    settings = {"size": args.size, "batch": args.batch, "steps": args.steps, "precision": args.precision}
    print_comparison("training step", settings, "images/s", take_turns(sides, args.rounds), aims)


if __name__ == "__main__":
    main()
