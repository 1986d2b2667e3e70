"""What ranks cost and bring on this machine: images per second of real training runs, as ratios from one run.

usage: python scripts/bench/scaling.py [--rounds 3] [--steps 5] [--size 128] [--batch 128] [--variants alone ...]
           [--weights]

Every figure is that of `tfinpaint.pretrain` itself, as its defaults come: ResNet50 and decoder (43 M parameters), size
and batch of the tutorial, preloaded images, Adam, the second epoch of a run, without its first step. The variants are
run in turns, so that a noisy machine hits all alike; a ratio is taken within each round; its median and range over the
rounds are shown. Smaller images or batches have less to compute between reductions of the same 172 MB.

  alone    one process on all cores, no launcher, no Horovod
  one      the same under horovodrun -np 1
  pinned   one process bound to one core, with half the batch
  mpi      two ranks, one thread each, horovodrun --mpi        gloo     the same, horovodrun --gloo
  groups   mpi with distributed.gradient_groups=8              fp16     mpi with distributed.compression=fp16

With `--weights`, `tests/stress/equal_weights.py` follows on two ranks: how far their weights are from one rank's after
20 steps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from turns import Aim, print_comparison

BIN = Path(sys.executable).parent
TWO = ["horovodrun", "--network-interfaces", "lo", "-np", "2"]
VARIANTS: dict[str, tuple[list[str], list[str]]] = {  # launcher, overrides
    "alone": ([], []),
    "one": (["horovodrun", "--network-interfaces", "lo", "-np", "1"], []),
    "pinned": (["taskset", "-c", "0"], []),
    "mpi": ([*TWO, "--mpi"], []),
    "gloo": ([*TWO, "--gloo"], []),
    "groups": ([*TWO, "--mpi"], ["--set", "distributed.gradient_groups=8"]),
    "fp16": ([*TWO, "--mpi"], ["--set", "distributed.compression=fp16"]),
}
AIMS = [  # for images per second
    Aim("one", "alone", ">= 0.98"),
    Aim("mpi", "alone", ">= 0.95"),
    Aim("gloo", "alone", ">= 0.95"),
    Aim("mpi", "pinned", ">= 0.92", factor=2),
    Aim("gloo", "pinned", ">= 0.92", factor=2),
    Aim("groups", "mpi"),
    Aim("fp16", "mpi"),
]


def make_images(folder: Path, count: int, size: int) -> None:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{i:04}.png")


def configuration(images: Path, batch: int, steps: int, size: int) -> str:
    """JSON, which is YAML."""
    return json.dumps(
        {
            "num_epochs": 2,
            "steps_per_epoch": steps,
            "checkpoints": {"save": None},
            "model": {"batchnorm_batches": 0},
            "data": {
                "input_path": str(images),
                "batch_size": batch,
                "preload": True,
                "transforms": [{"resize": [size, size]}, {"random_patches": {"number": 16, "size": size // 8}}],
            },
            "optimizer": {"type": "Adam", "learning_rate": 1e-3},
        }
    )


def images_per_second(variant: str, folder: Path, args: argparse.Namespace) -> float:
    launcher, overrides = VARIANTS[variant]
    batch = args.batch // 2 if variant == "pinned" else args.batch
    (folder / "config.yaml").write_text(configuration(folder / "images", batch, args.steps, args.size))
    command = [*launcher, str(BIN / "python"), "-m", "tfinpaint.pretrain", "--config", str(folder / "config.yaml")]
    command += ["--workdir", str(folder / "run"), "--overwrite", "--set", f"precision={args.precision}", *overrides]
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    last = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    return last["images_per_second"]


def equal_weights() -> dict:
    program = Path(__file__).parents[2] / "tests" / "stress" / "equal_weights.py"
    command = [*TWO, "--mpi", str(BIN / "python"), str(program)]
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return json.loads(output[output.index("{") : output.rindex("}") + 1])


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--rounds", type=int, default=3)
    cli.add_argument("--steps", type=int, default=5, help="of an epoch")
    cli.add_argument("--size", type=int, default=128, help="pixels")
    cli.add_argument("--batch", type=int, default=128, help="images over all ranks")
    cli.add_argument("--precision", choices=("auto", "float32", "mixed_bfloat16"), default="auto")
    cli.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    cli.add_argument("--weights", action="store_true", help="compare the weights of two ranks with those of one, too")
    args = cli.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in args.variants}
    with tempfile.TemporaryDirectory() as name:
        make_images(Path(name) / "images", 2 * args.batch, args.size)
        for number in range(1, args.rounds + 1):
            for variant, found in rates.items():
                begin = time.perf_counter()
                found.append(images_per_second(variant, Path(name), args))
                seconds = time.perf_counter() - begin
                print(f"round {number}  {variant:7} {found[-1]:7.2f} images/s  ({seconds:.0f} s)", flush=True)
    settings = {"pixels": args.size, "batch": args.batch, "precision": args.precision}
    print_comparison("Two ranks on one host", settings, "images/s", rates, AIMS)
    if args.weights:
        print("Largest relative difference of the weights of two ranks and of one, after 20 steps:")
        for title, difference in equal_weights()["largest relative difference"].items():
            print(f"  {title:36} {difference:.1e}")


if __name__ == "__main__":
    main()
