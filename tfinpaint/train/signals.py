"""Being told to stop: what a scheduler sends before it takes the machine away."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

log = logging.getLogger(__name__)

# SIGTERM comes from Kubernetes, systemd and mpirun; SIGUSR1 is what Slurm's `--signal=USR1@60` is for.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether this process was told to stop.

    Attributes:
        name: of the signal; "" where none has come.
    """

    def __init__(self) -> None:
        self.name = ""

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, the signals are taken note of instead of ending the process. In the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def obey(self) -> None:
        """End this process by the signal that has come, if one has, as if it had not been listened for."""
        if self.name:
            log.warning(f"This process leaves the run, as {self.name} asked")
            sys.stdout.flush()
            signal.signal(signal.Signals[self.name], signal.SIG_DFL)
            signal.raise_signal(signal.Signals[self.name])

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
