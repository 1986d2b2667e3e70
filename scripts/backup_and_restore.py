"""Keras's own BackupAndRestore put through what tests/test_resume.py asks of this project's checkpoints.

A small network (batch norm, dropout, Adam, a cosine schedule, shuffled data) is trained for 4 epochs with
`keras.callbacks.BackupAndRestore`, deterministically: once undisturbed, and once ended after some step and begun again
in a new process, as its documentation shows. Prints how many bytes of the weights and of the optimizer's variables
differ, and by how much.

usage: python scripts/backup_and_restore.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.storage.safe_npz import write_npz

EPOCHS, STEPS, BATCH = 4, 6, 8
KILLED = 77


def main(arguments: Sequence[str]) -> int:
    if arguments:
        folder, end_after, frequency = arguments
        train(Path(folder), int(end_after), frequency if frequency == "epoch" else int(frequency))
        return 0
    for frequency, end_after in (("epoch", 2 * STEPS), ("epoch", 2 * STEPS + 3), ("2", 2 * STEPS + 3)):
        with tempfile.TemporaryDirectory() as temporary:
            whole, parted = Path(temporary) / "whole", Path(temporary) / "parted"
            run(whole, 0, frequency)
            run(parted, end_after, frequency)
            run(parted, 0, frequency)
            print(
                f"save_freq={frequency}, ended after step {end_after} of {EPOCHS * STEPS}: {difference(whole, parted)}"
            )
    return 0


def run(folder: Path, end_after: int, frequency: str) -> None:
    code = subprocess.run([sys.executable, __file__, str(folder), str(end_after), frequency]).returncode
    if code != (KILLED if end_after else 0):
        raise SystemExit(f"the process has ended with {code}")


def train(folder: Path, end_after: int, frequency: str | int) -> None:
    """Train to the end, or until the process ends itself after a step; save weights and optimizer at the end."""
    folder.mkdir(exist_ok=True)
    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    model = keras.Sequential(
        [
            keras.layers.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.5),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.01, EPOCHS * STEPS)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    generator = np.random.default_rng(0)
    images, labels = generator.random((STEPS * BATCH, 8, 8, 3), np.float32), generator.integers(0, 2, STEPS * BATCH)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(STEPS * BATCH, seed=0).batch(BATCH)
    backup = keras.callbacks.BackupAndRestore(str(folder / "backup"), save_freq=frequency, delete_checkpoint=False)
    model.fit(data, epochs=EPOCHS, verbose=0, callbacks=[backup, Ending(end_after)])
    variables = [*model.variables, *model.optimizer.variables]
    write_npz(folder / "end.npz", {str(n): v.numpy() for n, v in enumerate(variables)})


class Ending(keras.callbacks.Callback):
    """Ends the process after a number of steps, as SIGKILL would."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self._left -= 1
        if self._left == 0:
            os._exit(KILLED)


def difference(whole: Path, parted: Path) -> str:
    with (
        np.load(whole / "end.npz", allow_pickle=False) as first,
        np.load(parted / "end.npz", allow_pickle=False) as second,
    ):
        pairs = [(np.atleast_1d(first[name]), np.atleast_1d(second[name])) for name in first.files]
    total = sum(a.nbytes for a, _ in pairs)
    differing = sum(int(np.count_nonzero(a.view(np.uint8) != b.view(np.uint8))) for a, b in pairs)
    largest = max(float(np.abs(a.astype(np.float64) - b).max()) for a, b in pairs if a.dtype == np.float32)
    return f"{differing} of {total} bytes differ, by up to {largest:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
