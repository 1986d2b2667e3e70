"""Images per second along one setting, for this program and its peers: the curves of docs/benchmarks.md.

usage: python scripts/bench/curves.py {size,batch,threads,patches,images} [--rounds 3] [--peers PYTHON]

- size, batch, threads: one training step, as in scripts/bench/step.py, of tfinpaint and of PyTorch, eager, under
  bfloat16 autocast where the processor computes in it. PYTHON is that of an environment with PyTorch; without it,
  PyTorch is left out.
- patches: erasing on one processor core, as in scripts/bench/erasing.py. The peer is a loop in NumPy.
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from turns import serve_turns, take_turns

from tfinpaint.system.hardware import BFLOAT16_FEATURES, processor_features

HERE = Path(__file__).parent
SIDE, BATCH, BATCHES = 8, 128, 50  # of the curve "images": pixels, images in a batch, batches in a turn


class Curve(NamedTuple):
    """What a curve shows: a measurement at several points.

    Attributes:
        title: what is measured.
        label: of the axis along which the points lie.
        points: where it is measured.
        settings: those that stay the same.
        unit: of the values.
    """

    title: str
    label: str
    points: tuple[int, ...]
    settings: Mapping[str, int]
    unit: str = "images/s"


CURVES = {
    "size": Curve("Training step", "image size, pixels", (32, 64, 128), {"batch": 32}),
    "batch": Curve("Training step", "batch size", (4, 16, 64), {"size": 64}),
    "threads": Curve("Training step", "threads", (1, 2), {"size": 64, "batch": 32}),
    "patches": Curve("Erasing", "patches", (1, 4, 16, 64, 256), {"size": 128, "batch": 64}, "images/s on one core"),
    "images": Curve("Input of training", "images in the data set", (1_000, 10_000, 100_000, 1_000_000), {}),
}


def sides_at(along: str, point: int, peers: str | None) -> dict[str, list[str]]:
    """Return the commands of the sides of a curve at one point."""
    if along == "images":
        own = [sys.executable, __file__, "images", "--images", str(point), "--serve"]
        return {name: [*own, name] for name in ("tfinpaint", "tf.data")}
    varied = {along: point} if along != "threads" else {}
    options = [text for name, value in (CURVES[along].settings | varied).items() for text in (f"--{name}", str(value))]
    if along == "patches":
        own = [sys.executable, str(HERE / "erasing.py"), *options, "--serve"]
        return {name: [*own, name] for name in ("tfinpaint", "NumPy loop")}
    return _step_sides([*options, "--steps", "2"], point if along == "threads" else None, peers)


def _step_sides(options: Sequence[str], threads: int | None, peers: str | None) -> dict[str, list[str]]:
    """Return the commands of the sides of a training step, on so many cores; None: on all."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    pinned = ["taskset", "-c", ",".join(map(str, cores))]
    sides = {"tfinpaint": [*pinned, sys.executable, str(HERE / "step.py"), *options, "--serve", "tfinpaint"]}
    if peers:
        precision = "bf16" if set(processor_features()) & BFLOAT16_FEATURES else "fp32"
        of_torch = ["--threads", str(len(cores)), "--precision", precision]
        sides[f"torch-{precision}"] = [*pinned, peers, str(HERE / "step_torch.py"), *options, *of_torch]
    return sides


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
    for point in CURVES[along].points:
        for side, values in take_turns(sides_at(along, point, peers), rounds).items():
            points.setdefault(side, {})[point] = values
            spread = f"{min(values):.4g} to {max(values):.4g}"
            print(
                f"{along} {point:9,}  {side:12} {statistics.median(values):10.4g} {CURVES[along].unit}  ({spread})",
                flush=True,
            )
    return points


def main(arguments: Sequence[str] | None = None) -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("along", choices=CURVES)
    cli.add_argument("--rounds", type=int, default=3, help="turns of each side at each point")
    cli.add_argument("--peers", help="Python of an environment with PyTorch")
    cli.add_argument("--images", type=int, help=argparse.SUPPRESS)
    cli.add_argument("--serve", help=argparse.SUPPRESS)
    args = cli.parse_args(arguments)
    if args.serve:
        serve_input(args.serve, args.images)
        return
    curve = CURVES[args.along]
    found = {"points": measure(args.along, args.rounds, args.peers), "along": curve.label}
    print(json.dumps({"title": curve.title, "unit": curve.unit, "settings": curve.settings, **found}))


if __name__ == "__main__":
    main()
