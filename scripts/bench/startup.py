"""How long a user waits: for an answer of the command line, and from the command to the end of the first training step.

usage: python scripts/bench/startup.py [--rounds 3] [--sizes 32 128] [--batch 32]

Every figure is wall time from the start of a process. "tfinpaint --help", the help of a command and a configuration
with a wrong key should each take less than 0.5 s. The first step is that of `pretrain` with the built-in ResNet50 and
decoder at its defaults; the stages before it end where the command prints its lines. Plain Keras builds the same
layers, compiles them and takes a step of `Model.fit` on a batch in memory. One round that does not count comes first;
it also leaves the compiled bytecode of all modules, as the first command after an installation does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from turns import Aim, print_comparison

ROOT = Path(__file__).parents[2]
WRONG = ["--config", str(ROOT / "configs/demo/pretrain.yaml"), "--set", "num_epoch=3"]
ANSWERS = {
    "tfinpaint --help": ["--help"],
    "tfinpaint pretrain --help": ["pretrain", "--help"],
    "wrong key": ["pretrain", *WRONG],
}
STAGES = {  # a part of the line that ends each stage -> its name
    "Run folder: ": "packages are loaded",
    " images": "model is built, images are checked",
    "Compiling the training step": "optimizer is built",
    "epoch 1/1 ": "first step is traced, compiled and taken",
}


def use_bytecode_of(folder: Path) -> None:
    """Let the processes that this one starts keep compiled bytecode in a folder, whatever the environment says."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)


def run(arguments: Sequence[str]) -> float:
    """Return the wall time of a command that ends at once."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tfinpaint", *arguments], capture_output=True, cwd=ROOT, check=False)
    return time.perf_counter() - began


def first_step(config: Path) -> dict[str, float]:
    """Return the wall time of each stage of a run of one step, in their order."""
    command = [sys.executable, "-m", "tfinpaint", "pretrain", "--overwrite", "--config", str(config)]
    before, stages, left = time.perf_counter(), {}, list(STAGES)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as process:
        assert process.stdout
        for line in process.stdout:
            if left and left[0] in line:
                now = time.perf_counter()
                stages[STAGES[left.pop(0)]] = now - before
                before = now
    if left:
        sys.exit(f"{' '.join(command)}: ended with {process.returncode} before a line with {left[0]!r}")
    return stages


def write_run(folder: Path, size: int, batch: int) -> Path:
    """Write as many random images as a batch has, and the configuration of a run of one step."""
    import numpy as np
    from PIL import Image

    generator, images = np.random.default_rng(0), folder / f"images_{size}"
    images.mkdir()
    for number in range(batch):
        pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number:04}.png")
    transforms = [{"resize": [size, size]}, {"random_patches": {"number": 4, "size": size // 4}}]
    config = {
        "workdir": str(folder / f"run_{size}"), "num_epochs": 1, "checkpoints": {"save": None},
        "model": {"batchnorm_batches": 0}, "optimizer": {"type": "Adam"}, "loss": {"function": "BCE"},
        "data": {"input_path": str(images), "batch_size": batch, "preload": True, "transforms": transforms},
    }  # fmt: skip
    path = folder / f"{size}.json"
    path.write_text(json.dumps(config))
    return path


def plain_keras(size: int, batch: int) -> None:
    """Build the layers of the built-in network, compile them and take one step, in this process."""
    import keras
    import numpy as np
    import tensorflow as tf
    from peers import without_tuning

    encoder = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(size, size, 3))
    x = encoder.get_layer("conv5_block3_3_bn").output
    for filters in (512, 256, 128, 64):
        x = keras.layers.Conv2DTranspose(filters, 4, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Conv2DTranspose(3, 4, strides=2, padding="same", activation="sigmoid")(x)
    model = keras.Model(encoder.input, x)
    model.compile("adam", "binary_crossentropy")
    images = np.random.default_rng(0).random((batch, size, size, 3), np.float32)
    model.fit(without_tuning(tf.data.Dataset.from_tensors((images, images))), verbose=0)


def keras_seconds(size: int, batch: int) -> float:
    began = time.perf_counter()
    side = [sys.executable, __file__, "--keras", str(size), "--batch", str(batch)]
    subprocess.run(side, check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    return time.perf_counter() - began


def measure_round(configs: dict[int, Path], batch: int) -> dict[str, float]:
    """Return the seconds of every command and stage, each taken once."""
    values = {what: run(arguments) for what, arguments in ANSWERS.items()}
    for size, config in configs.items():
        stages = first_step(config)
        values |= {f"{size} px: {stage}": seconds for stage, seconds in stages.items()}
        values[f"tfinpaint, {size} px"] = sum(stages.values())
        values[f"Keras, {size} px"] = keras_seconds(size, batch)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=[32, 128])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--keras", type=int, help=argparse.SUPPRESS
    )  # the size of images, in the process of plain Keras
    options = parser.parse_args()
    if options.keras:
        plain_keras(options.keras, options.batch)
        return
    values: defaultdict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        use_bytecode_of(Path(name) / "bytecode")
        configs = {size: write_run(Path(name), size, options.batch) for size in options.sizes}
        measure_round(configs, options.batch)
        for _ in range(options.rounds):
            for what, seconds in measure_round(configs, options.batch).items():
                values[what].append(seconds)
    aims = [Aim(f"tfinpaint, {size} px", f"Keras, {size} px") for size in options.sizes]
    print_comparison("Start-up", {"batch": options.batch}, "s", values, aims)


if __name__ == "__main__":
    main()
