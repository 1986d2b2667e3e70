"""A rank of test_elastic.py: pretrain; one rank is killed in epoch 3, another host offered in epoch 4, and the machine
of rank 1 taken away, with notice, in epoch 5.

usage: python elastic_rank.py FOLDER VICTIM --config ...
"""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

from tfinpaint.distributed import world as dist
from tfinpaint.pretrain import main as pretrain
from tfinpaint.train.trainer import Trainer

folder, victim = Path(sys.argv[1]), int(sys.argv[2])
trainers: list[Trainer] = []
said, construct = dist.World.report_task, Trainer.__init__


def doing(world: dist.World, what: str) -> None:
    said(world, what)
    if "epoch 3, step 2" in what and world.size == 2 and world.rank == victim:
        while not (folder / "run" / "model_checkpoints" / "model_checkpoint_2").exists():  # a thread writes it
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    if "epoch 4, step 1" in what and world.size == 1:
        hosts = folder / "hosts"
        (folder / "more").write_text(hosts.read_text() + "127.1:1\n")
        (folder / "more").replace(hosts)
        while not world.hosts_changed():
            time.sleep(0.1)
    if "epoch 5, step 2" in what and "reading" not in what and world.size == 2:
        weights = b"".join(v.numpy().tobytes() for v in trainers[-1].model.trainable_variables)
        (folder / f"weights.{world.rank}").write_text(hashlib.sha256(weights).hexdigest())
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def init(self: Trainer, *args: object, **kwargs: object) -> None:
    trainers.append(self)
    construct(self, *args, **kwargs)


dist.World.report_task, Trainer.__init__ = doing, init
sys.exit(pretrain(sys.argv[3:]))
