"""Start a rank of an elastic run again, after another one was lost or hosts have come or gone."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Mapping

from tfinpaint.distributed import rendezvous
from tfinpaint.distributed.launch import leave_ranks

log = logging.getLogger(__name__)


def start_again(environment: Mapping[str, str]) -> None:
    """Execute this program again with a new rank; for launcher and terminal it remains the same process.

    Returns only if the run continues without this process.

    Args:
        environment: variables of the new program, as the launcher made them; those of the new rank are added.
    """
    leave_ranks()
    try:
        place = rendezvous.ask_for_place()
    except rendezvous.DismissedError as end:
        log.warning(str(end))
        return
    sys.stdout.flush()
    for number in os.listdir("/dev/fd"):  # Horovod's connections, whose end other ranks notice, and the run's lock
        with contextlib.suppress(OSError):
            os.set_inheritable(int(number), int(number) <= 2)
    program = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, program, {**environment, **place})  # noqa: S606 -- this program, its own arguments
