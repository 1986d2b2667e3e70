"""Signals that ask a run to stop, such as those that a scheduler sends before it takes the machine away."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from tfinpaint.cli.command import EXIT_INTERRUPTED
from tfinpaint.distributed.environment import launched_rank
from tfinpaint.distributed.failures import tell_failure

log = logging.getLogger(__name__)

# SIGTERM comes from Kubernetes, systemd and mpirun; SIGUSR1 is what Slurm's `--signal=USR1@60` is for; SIGHUP comes
# when the terminal is closed or a connection by ssh breaks off; SIGINT is Ctrl-C.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
NOTICE = "Interrupted: the run is saved and stops after this step. Press Ctrl-C again to end it now, unsaved."
UNSAVED_NOTICE = (
    "Interrupted: the run stops after this step; nothing is saved (checkpoints.save: null). Press Ctrl-C again to end "
    "it now."
)
GRACE_SECONDS = 1.0  # within which Python notices a signal, unless TensorFlow computes a long step


class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        name: name of the signal; "" where none has come.
    """

    def __init__(self, describe_saved: Callable[[], str] = str, notice: str = NOTICE, *, may_exit: bool = True) -> None:
        """
        Args:
            describe_saved: returns what of the run is saved, for a user who interrupts it twice.
            notice: what is printed at the first interrupt.
            may_exit: whether a second interrupt ends the process within a long step too; if not, it raises
                KeyboardInterrupt after the step.
        """
        self.name = ""
        self._describe_saved, self._notice, self._may_exit = describe_saved, notice, may_exit
        self._is_ending = threading.Event()

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
            with self._watching():
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
        if number == signal.SIGINT and self.name:  # a user who cannot wait
            self._is_ending.set()
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Answer interrupts from a thread: Python calls no handler while TensorFlow computes a step."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._answer, args=(reader,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_ending.set()
            signal.set_wakeup_fd(before)
            os.close(writer)
            thread.join()
            os.close(reader)

    def _answer(self, reader: int) -> None:
        """Read the numbers of the signals as they come, until the pipe is closed."""
        came = 0
        while numbers := os.read(reader, 1):
            came += numbers[0] in SIGNALS
            if numbers[0] != signal.SIGINT:
                continue
            if came == 1:
                if launched_rank() == 0:
                    _print_error(f"\n{self._notice}")
            elif self._may_exit and not self._is_ending.wait(GRACE_SECONDS):
                tell_failure("interrupted", final=True)
                _print_error(f"interrupted: {self._describe_saved()}")
                os._exit(EXIT_INTERRUPTED)


def _print_error(line: str) -> None:
    """Write a line to standard error, past Python's stream, which the main thread may be writing to."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
