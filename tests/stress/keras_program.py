"""A program of anybody's that trains with `model.fit`, in which something happens to a rank: for test_keras_programs.py.

usage: python keras_program.py FOLDER EVENT, under a launcher; EVENT is "none", "error" (rank 1 raises one in epoch 2) or
"kill" (rank 0 is killed in epoch 3, and epoch 4 on, another host is offered).
"""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np

from tfinpaint.distributed import DistributedOptimizer, OnRank0, SynchroniseRanks, join, shard

folder, event = Path(sys.argv[1]), sys.argv[2]
world = join()


class Event(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if world.is_rank0:
            with (folder / "epochs").open("a") as file:
                file.write(f"{epoch + 1} {world.size}\n")
        if event == "kill" and epoch == 2 and world.size == 2 and world.is_rank0:
            os.kill(os.getpid(), signal.SIGKILL)
        if event == "kill" and epoch == 3 and world.size == 1:
            hosts = folder / "hosts"
            (folder / "more").write_text(hosts.read_text() + "127.1:1\n")
            (folder / "more").replace(hosts)
            while not world.hosts_changed():
                time.sleep(0.1)

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if event == "error" and world.rank == 1 and self.model.optimizer.iterations >= 3:
            raise ValueError("told by rank 1")


inputs, targets = shard((np.arange(64.0).reshape(32, 2) / 64, np.ones((32, 1))), world)
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.Adam(0.01), world), "mse", jit_compile=False)
backup = keras.callbacks.BackupAndRestore(str(folder / "backup"), double_checkpoint=True)
callbacks = [OnRank0(backup, world), Event(), SynchroniseRanks(world)]
model.fit(inputs, targets, 16 // world.size, epochs=6, shuffle=False, verbose=0, callbacks=callbacks)
weights = b"".join(weight.tobytes() for weight in model.get_weights())
(folder / f"weights.{world.rank}").write_text(hashlib.sha256(weights).hexdigest())
if world.is_rank0:
    time.sleep(4)  # the others have ended, and wait
    print(f"{world.size} rank(s) have trained {int(model.optimizer.iterations)} updates")
