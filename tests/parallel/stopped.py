"""Run `classify`, and send rank 0 SIGUSR1 after some of its steps, as a batch system does that is about to end a run.

usage in a session (session.py): stopped STEP ARGUMENTS OF CLASSIFY...
"""

import os
import signal
from collections.abc import Sequence

from tfinpaint.classify import main as classify
from tfinpaint.distributed.environment import launched_rank
from tfinpaint.runs.progress import RunProgress


def main(arguments: Sequence[str]) -> int:
    last, *options = arguments
    taken, steps = RunProgress.step, 0

    def step(self, epoch, read_loss):
        nonlocal steps
        taken(self, epoch, read_loss)
        steps += 1
        if steps == int(last) and launched_rank() == 0:
            os.kill(os.getpid(), signal.SIGUSR1)

    RunProgress.step = step
    try:
        return classify(options)
    finally:
        RunProgress.step = taken
