"""Signals that ask a run to stop, such as those that a scheduler sends before it takes the machine away."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

log = logging.getLogger(__name__)

# SIGTERM comes from Kubernetes, systemd and mpirun; SIGUSR1 is what Slurm's `--signal=USR1@60` is for; SIGHUP comes
# when the terminal is closed or a connection by ssh breaks off; SIGINT is Ctrl-C.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        name: name of the signal; "" where none has come.
    """

    def __init__(self) -> None:
        self.name = ""

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Record the signals within a `with` statement, instead of ending the process. Works in the main thread only.

        A signal that this process was started to ignore, such as SIGHUP by nohup, stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def obey(self) -> None:
        """End this process by the signal that has come, if one has, as if it had not been recorded."""
        if self.name:
            log.warning(f"This process leaves the run, as {self.name} asked")
            sys.stdout.flush()
            signal.signal(signal.Signals[self.name], signal.SIG_DFL)
            signal.raise_signal(signal.Signals[self.name])

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.name:  # a user who cannot wait
                raise KeyboardInterrupt
            with contextlib.suppress(OSError):  # not print, in the middle of which the signal may have come
                os.write(
                    2, b"\nInterrupted: the run stops after this step. Press Ctrl-C again to end it now, unsaved.\n"
                )
        self.name = signal.Signals(number).name
