"""What bad images cost: the speed of training input, and of training, with 1 % of the files bad against none.

usage: python scripts/bench/bad_images.py [--images 2560] [--size 256] [--rounds 7] [--passes 2] [--share 0.01]
           [--training-rounds 3] [--training-steps 20]

Three data sets of JPEG files, each opened as a run opens it, its check included:

- clean: all good;
- checked: the share is bad before the check (empty, cut, an HTML page, zeros, a header of 3.6 gigapixels) and left
  out;
- gone: all good when checked, then the share goes bad, and other images take their places.

In each round every set is measured in turn, so that other work on the machine meets all alike: whole passes of the
input alone, without the first batch; and steps of the tiny network on 64 x 64 pixels, in the first rounds.

Prints a JSON line a set, with the median and the range over the rounds of its speed relative to the clean set's of the
same round, by the clock and by this process's own seconds on the processor, which other work disturbs less; and the
numbers of bad images that were planted, found by the check, and found in training. It ends with an error where these
differ.
"""

import argparse
import functools
import json
import logging
import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from PIL import Image

from tfinpaint.config.schema import Config
from tfinpaint.data.listing import listing
from tfinpaint.data.tasks import inpainting_task
from tfinpaint.distributed.world import World
from tfinpaint.models.decoder import build_inpainter
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.losses import build_objective
from tfinpaint.runs.data import DataSet, open_data
from tfinpaint.runs.run import Run
from tfinpaint.train.trainer import Trainer

BATCH = 64
SETS = ("clean", "checked", "gone")
HEADER = b"IHDR" + (60000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
LARGE_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + HEADER + zlib.crc32(HEADER).to_bytes(4, "big") + bytes(64)


def write_images(root: Path, count: int, size: int) -> None:
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 255, (8, 8, 3), np.uint8)
        image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        image.save(root / f"{number:05}.jpg", quality=90)


def spoil(root: Path, share: float) -> dict[Path, bytes]:
    """Make evenly spread files bad, in different ways; the contents that they had."""
    paths = sorted(root.iterdir())
    chosen = paths[:: round(1 / share)][: round(share * len(paths))]
    before = {path: path.read_bytes() for path in chosen}
    for number, (path, whole) in enumerate(before.items()):
        kinds = (b"", whole[: len(whole) // 2], b"<html>not found</html>", bytes(len(whole)), LARGE_PNG)
        path.write_bytes(kinds[number % len(kinds)])
    return before


def make_run(folder: Path, images: int) -> Run:
    data = {
        "batch_size": BATCH, "max_bad_images": images,
        "transforms": [{"resize": [64, 64]}, {"random_horizontal_flip": 0.5}, {"center": {}}],
    }  # fmt: skip
    return Run(Config.model_validate({"data": data, "workdir": folder}), "inpainter")


def make_trainer(run: Run) -> Trainer:
    model = build_inpainter(build_encoder("tiny", "before_add", 64, 64))
    objective = build_objective(run.config.loss.model_copy(update={"function": "BCE"}), "sigmoid", by_pixel=False)
    return Trainer(model, keras.optimizers.Adam(1e-3), objective, world=World())


@dataclass
class Speed:
    """Images a second, by the clock and by the processor's seconds of this process; a value for each round."""

    by_clock: list[float] = field(default_factory=list)
    by_processor: list[float] = field(default_factory=list)

    def measure(self, use: Callable[[], object], images: int) -> None:
        clock, processor = time.perf_counter(), time.process_time()
        use()
        self.by_clock.append(images / (time.perf_counter() - clock))
        self.by_processor.append(images / (time.process_time() - processor))


def read(batches: Iterator, steps: int) -> None:
    for _ in range(steps):
        next(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2560)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--training-rounds", type=int, default=3)
    parser.add_argument("--training-steps", type=int, default=20)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        measure(Path(name), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    roots = {kind: folder / kind for kind in SETS}
    for root in roots.values():
        root.mkdir()
        write_images(root, options.images, options.size)
    planted = len(spoil(roots["checked"], options.share))
    run = make_run(folder, options.images)
    trainer = make_trainer(run)
    recipe = inpainting_task(run.config, separate=False, augment=True)
    steps = options.passes * (options.images // BATCH)

    def opened(kind: str) -> DataSet:
        return open_data(run, World(), folder, recipe, listing.list_images(roots[kind]), training=True)

    speeds = {use: {kind: Speed() for kind in SETS} for use in ("input", "training")}
    counts: dict[str, set[int]] = {"checked": set(), "gone": set()}
    trainer.train_steps(iter(opened("clean").batches_from(0)), 2)  # traced, and the files are in the disk's cache
    for number in range(options.rounds):
        for kind in SETS[number % 3 :] + SETS[: number % 3]:
            data = opened(kind)
            before = spoil(roots[kind], options.share) if kind == "gone" else {}
            batches = iter(data.batches_from(0))
            next(batches)
            speeds["input"][kind].measure(functools.partial(read, batches, steps - 1), (steps - 1) * BATCH)
            if kind in counts:
                counts[kind].add(data.failures.before if kind == "checked" else len(data.failures.found))
            if number < options.training_rounds:
                data.failures.found.clear()
                batches = iter(data.batches_from(0))
                next(batches)
                train = functools.partial(trainer.train_steps, batches, options.training_steps)
                speeds["training"][kind].measure(train, options.training_steps * BATCH)
            del batches
            for path, whole in before.items():
                path.write_bytes(whole)
    uses = ("input", "training") if options.training_rounds else ("input",)
    for use in uses:
        by_kind = speeds[use]
        for kind, speed in by_kind.items():
            clean = by_kind["clean"]
            line = {"what": use, "set": kind, "images_per_second": round(statistics.median(speed.by_clock), 1)}
            line |= relative("clock", speed.by_clock, clean.by_clock)
            line |= relative("processor", speed.by_processor, clean.by_processor)
            print(json.dumps(line), flush=True)
    print(json.dumps({"planted": planted} | {f"found_{kind}": sorted(found) for kind, found in counts.items()}))
    if any(found != {planted} for found in counts.values()):
        raise SystemExit("error: the counts differ")


def relative(name: str, found: list[float], clean: list[float]) -> dict[str, object]:
    ratios = [a / b for a, b in zip(found, clean, strict=True)]
    median, least, most = (round(value, 3) for value in (statistics.median(ratios), min(ratios), max(ratios)))
    return {f"relative_by_{name}": median, f"range_by_{name}": [least, most]}


if __name__ == "__main__":
    main()
