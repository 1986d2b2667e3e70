"""Images per second along one setting, for this program and its peers: the curves of docs/benchmarks.md.

usage: python scripts/bench/curves.py {size,batch,threads,images} [--rounds 3] [--peers PYTHON]

- size, batch, threads: one training step, as in scripts/bench/step.py, of tfinpaint and of PyTorch in float32, eager.
  PYTHON is that of an environment with PyTorch; without it, PyTorch is left out.
- images: the input of training, from images in memory to shuffled batches, for data sets of 1,000 to 1,000,000 images
  of 8 x 8 pixels. Every turn begins a new pass over them. The peer is `tf.data.Dataset.from_tensor_slices` with
  `shuffle` over the whole data set and `batch`.

At every point the sides take turns (turns.py). Prints medians and ranges, then all values as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from turns import serve_turns, take_turns

POINTS = {
    "size": (32, 64, 128),
    "batch": (4, 16, 64),
    "threads": (1, 2),
    "images": (1_000, 10_000, 100_000, 1_000_000),
}
FIXED = {"size": 64, "batch": 32}
LABELS = {"size": "image size, pixels", "batch": "batch size", "threads": "threads", "images": "images in the data set"}
SIDE, BATCH, BATCHES = 8, 128, 50  # of the curve "images": pixels, images in a batch, batches in a turn


def step_sides(along: str, point: int, peers: str | None) -> dict[str, list[str]]:
    """Return the commands of the sides of a training step at one point."""
    here = Path(__file__).parent
    options = {**FIXED, **({along: point} if along != "threads" else {})}
    settings = [text for name, value in options.items() for text in (f"--{name}", str(value))] + ["--steps", "2"]
    threads = point if along == "threads" else len(os.sched_getaffinity(0))
    pinned = ["taskset", "-c", ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[:threads])]
    own = [*pinned, sys.executable, str(here / "step.py"), *settings, "--serve"]
    sides = {"tfinpaint": [*own, "tfinpaint"]}
    if peers:
        sides["torch"] = [*pinned, peers, str(here / "step_torch.py"), *settings, "--threads", str(threads)]
    return sides


def input_sides(point: int) -> dict[str, list[str]]:
    """Return the commands of the sides of the input of training for a data set of `point` images."""
    own = [sys.executable, __file__, "images", "--images", str(point), "--serve"]
    return {"tfinpaint": [*own, "tfinpaint"], "tf.data": [*own, "tf.data"]}


def serve_input(side: str, images: int) -> None:
    """Take the turns of one side of the curve "images": whole batches from the beginning of a pass on."""
    import numpy as np
    import tensorflow as tf

    from tfinpaint.config.schema import Config
    from tfinpaint.data import pipeline
    from tfinpaint.data.examples import Images, RankShare
    from tfinpaint.data.listing.excluded import ExcludedFiles
    from tfinpaint.data.listing.listing import Listing
    from tfinpaint.data.listing.names import Names
    from tfinpaint.data.tasks import classification_task

    pixels = np.random.default_rng(0).integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8)
    labels = np.zeros(images, np.int32)
    if side == "tfinpaint":
        config = Config.model_validate({"data": {"input_path": ".", "transforms": [{"resize": [SIDE, SIDE]}]}})
        task = classification_task(config, labels=True, augment=True)
        listing = Listing(Path(), Names.of([""] * images), labels, ("one",), ExcludedFiles())
        ready = Images(listing, RankShare(), task.images, tf.constant(pixels))

    if side == "tfinpaint":
        batches = pipeline.train_batches(ready, batch_size=BATCH, seed=0, first_step=0, prepare=task.prepare)
    else:
        whole = tf.data.Dataset.from_tensor_slices((pixels, labels)).shuffle(images).batch(BATCH)
        whole = whole.map(lambda x, y: (tf.cast(x, tf.float32) / 255, y))
        batches = whole.repeat().prefetch(tf.data.AUTOTUNE)
    batches = batches.take(BATCHES)

    def turn() -> float:
        begin = time.perf_counter()
        for _ in batches:  # a new iterator, which shuffles the whole data set
            pass
        return BATCH * BATCHES / (time.perf_counter() - begin)

    serve_turns(turn)


def measure(along: str, rounds: int, peers: str | None) -> dict[str, dict[int, list[float]]]:
    """Return the values of each side at each point."""
    points: dict[str, dict[int, list[float]]] = {}
    for point in POINTS[along]:
        sides = input_sides(point) if along == "images" else step_sides(along, point, peers)
        for side, values in take_turns(sides, rounds).items():
            points.setdefault(side, {})[point] = values
            spread = f"{min(values):.4g} to {max(values):.4g}"
            print(f"{along} {point:9,}  {side:12} {statistics.median(values):10.4g} images/s  ({spread})", flush=True)
    return points


def main(arguments: Sequence[str] | None = None) -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("along", choices=POINTS)
    cli.add_argument("--rounds", type=int, default=3, help="turns of each side at each point")
    cli.add_argument("--peers", help="Python of an environment with PyTorch")
    cli.add_argument("--images", type=int, help=argparse.SUPPRESS)
    cli.add_argument("--serve", help=argparse.SUPPRESS)
    args = cli.parse_args(arguments)
    if args.serve:
        serve_input(args.serve, args.images)
        return
    points = measure(args.along, args.rounds, args.peers)
    titles = {"images": "Input of training"}
    fixed = {name: value for name, value in FIXED.items() if name != args.along} if args.along != "images" else {}
    print(
        json.dumps(
            {
                "title": titles.get(args.along, "Training step"), "along": LABELS[args.along], "unit": "images/s",
                "settings": fixed, "points": points,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
