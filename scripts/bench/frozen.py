"""An epoch with frozen layers: this program after its first epoch, against plain Keras.

usage: python scripts/bench/frozen.py [--images 512] [--size 128] [--batch 32] [--rounds 5] [--trained head stage]

Both sides train a ResNet50 classifier of the same random images, with Adam: the dense head alone, or the head and the
last of the four stages; the rest is frozen. An epoch is a pass over the training images and an evaluation of a quarter
as many others. In Keras it is `Model.fit` with `validation_data` and `layer.trainable = False`; here it is what
`classify` does in an epoch at its defaults, with recalibrated batch norms and without the checkpoint. The first epoch
of each side does not count. The features are computed before it: a line on the standard error says how long that takes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from peers import without_tuning
from turns import Aim, print_comparison, serve_turns, take_turns

TRAINED = {"head": ("dense_1",), "stage": ("conv5_*", "dense_1")}
CLASSES = 4


def make_images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def write_classes(folder: Path, count: int, size: int) -> None:
    """Write random images into class folders."""
    from PIL import Image

    for number, pixels in enumerate(make_images(count, size)):
        place = folder / f"class_{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:05}.png", compress_level=1)


def ours(options: argparse.Namespace, folder: Path) -> Callable[[], float]:
    """Return an epoch of `classify`; its images are files, which are read once."""
    from tfinpaint.config.schema import Config
    from tfinpaint.data.listing.listing import list_class_folders
    from tfinpaint.data.tasks import classification_task
    from tfinpaint.distributed.world import World
    from tfinpaint.models.losses import accuracy
    from tfinpaint.runs.data import DataSet, open_data, steps_per_epoch
    from tfinpaint.runs.epoch_end import make_recalibration
    from tfinpaint.runs.features import with_features
    from tfinpaint.runs.run import Run
    from tfinpaint.runs.session import build_run_model
    from tfinpaint.runs.trainer import make_trainer
    from tfinpaint.train.optimizers import build_optimizer

    data = {
        "batch_size": options.batch, "test_batch_size": options.batch, "preload": True, "input_path": folder,
        "target_type": "labels", "transforms": [{"resize": [options.size] * 2}],
    }  # fmt: skip
    config = Config.model_validate({
        "workdir": folder, "data": data, "model": {"trainable": list(TRAINED[options.trained[0]])},
        "optimizer": {"type": "Adam", "learning_rate": 1e-3}, "loss": {"function": "NLL"},
    })  # fmt: skip
    run, world = Run(config, "classifier"), World()

    def opened(name: str, count: int) -> DataSet:
        write_classes(folder / name, count, options.size)
        listing = list_class_folders(folder / name)
        task = classification_task(config, labels=True, augment=True)
        return open_data(run, world, folder, task, listing, training=name == "training")

    training, held_out = opened("training", options.images), opened("testing", options.images // 4)
    steps = steps_per_epoch(run, training)
    model = build_run_model(run, world, training.images.listing.classes)
    optimizer, metrics = build_optimizer(config.optimizer, steps, 2, None), {"accuracy": accuracy}
    trainer = make_trainer(run, world, model, optimizer, metrics, steps=steps, scored=True)
    begin = time.perf_counter()
    training = with_features(trainer, folder, training, "training images", 2)
    batches = with_features(trainer, folder, held_out, "held-out images", 2).evaluation_batches()
    print(f"features: {time.perf_counter() - begin:.1f} s", file=sys.stderr)
    recalibrate, endless = make_recalibration(run, trainer, training, steps), iter(training.batches_from(0))

    def epoch() -> float:
        begin = time.perf_counter()
        trainer.train_steps(endless, steps)
        recalibrate()
        trainer.evaluate(batches)
        return time.perf_counter() - begin

    return epoch


def plain_keras(options: argparse.Namespace) -> Callable[[], float]:
    """Return an epoch of `keras.Model.fit` on a tf.data pipeline of the images in memory."""
    from fnmatch import fnmatchcase

    import keras
    import tensorflow as tf

    encoder = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(options.size, options.size, 3))
    x = keras.layers.Flatten()(encoder.output)
    model = keras.Model(encoder.input, keras.layers.Dense(CLASSES, activation="softmax", name="dense_1")(x))
    for layer in model.layers:
        layer.trainable = any(fnmatchcase(layer.name, pattern) for pattern in TRAINED[options.trained[0]])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    def dataset(count: int) -> tf.data.Dataset:
        images = tf.data.Dataset.from_tensor_slices((make_images(count, options.size), np.arange(count) % CLASSES))
        batches = images.shuffle(count).batch(options.batch)
        scaled = batches.map(lambda x, y: (tf.cast(x, tf.float32) / 255, y), tf.data.AUTOTUNE)
        return without_tuning(scaled.prefetch(tf.data.AUTOTUNE))

    training, held_out = dataset(options.images), dataset(options.images // 4)

    def epoch() -> float:
        begin = time.perf_counter()
        model.fit(training, validation_data=held_out, verbose=0)
        return time.perf_counter() - begin

    return epoch


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trained", choices=TRAINED, nargs="+", default=list(TRAINED))
    parser.add_argument("--side", choices=("tfinpaint", "Keras"), help=argparse.SUPPRESS)  # the process of a side
    options = parser.parse_args(arguments)
    if options.side:
        with tempfile.TemporaryDirectory() as folder:
            serve_turns(ours(options, Path(folder)) if options.side == "tfinpaint" else plain_keras(options))
        return
    settings = {"images": options.images, "size": options.size, "batch": options.batch}
    shared = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, __file__, *shared]
    sides = {
        f"{side}, {trained} trained": [*command, "--side", side, "--trained", trained]
        for trained in options.trained
        for side in ("Keras", "tfinpaint")
    }
    wanted = {"head": ">= 5", "stage": ""}
    aims = [Aim(f"Keras, {each} trained", f"tfinpaint, {each} trained", wanted[each]) for each in options.trained]
    print_comparison("Epoch with frozen layers", settings, "s", take_turns(sides, options.rounds), aims)


if __name__ == "__main__":
    main()
