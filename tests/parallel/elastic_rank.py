"""A rank of test_elastic.py: pretrain, with one rank killed in epoch 3 and another host offered in epoch 4.

usage: python elastic_rank.py FOLDER VICTIM --config ...
"""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

from tfinpaint import dist, pretrain
from tfinpaint.train.loop import Trainer

folder, victim = Path(sys.argv[1]), int(sys.argv[2])
trainers: list[Trainer] = []
said, construct = dist.World.doing, Trainer.__init__


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


def init(self: Trainer, *args: object, **kwargs: object) -> None:
    trainers.append(self)
    construct(self, *args, **kwargs)


dist.World.doing, Trainer.__init__ = doing, init
code = pretrain.main(sys.argv[3:])
digest = hashlib.sha256(b"".join(weight.tobytes() for weight in trainers[-1].model.get_weights())).hexdigest()
(folder / f"weights.{os.environ['HOROVOD_HOSTNAME']}").write_text(digest)
sys.exit(code)
