"""Run a program on a pseudo-terminal, and read the screen of that terminal as a reader would."""

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence

import pyte
from conftest import ROOT

SETTLE_SECONDS = 0.3  # in which a frame that has been drawn is written, too
LINES = 60  # of the screen: more than any test prints, so that nothing is scrolled away


class Terminal:
    """A program on a terminal.

    Attributes:
        screen: what the terminal shows.
        process: the program.
    """

    def __init__(self, command: Sequence[str], columns: int, **variables: str) -> None:
        self.screen = pyte.Screen(columns, LINES)
        self._stream = pyte.ByteStream(self.screen)
        self._ours, theirs = os.openpty()
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, cwd=ROOT,
            env=environment | {"TERM": "xterm-256color"} | variables,
        )  # fmt: skip
        os.close(theirs)

    def resize(self, columns: int) -> None:
        """Make the terminal wider or narrower; the program never draws for a screen that is wider than this one."""
        if columns > self.screen.columns:
            self.screen.resize(LINES, columns)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        time.sleep(SETTLE_SECONDS)
        while select.select([self._ours], [], [], 0)[0]:
            self._stream.feed(os.read(self._ours, 65536))
        self.screen.resize(LINES, columns)

    def rows(self) -> list[str]:
        """Return the rows of the screen down to the last that is not empty, without blanks at their ends."""
        rows = [row.rstrip() for row in self.screen.display]
        return rows[: max((number for number, row in enumerate(rows, 1) if row), default=0)]

    def watch(self, look: Callable[[list[str]], None] = lambda rows: None) -> int:
        """Read until the program ends; return its exit code.

        Args:
            look: called with the rows of the screen whenever something was written.
        """
        while True:
            try:
                self._stream.feed(os.read(self._ours, 65536))
            except OSError:  # the other end is closed
                break
            look(self.rows())
        os.close(self._ours)
        return self.process.wait()
