"""Show what a user wants to see of the lines that several ranks and their launcher print."""

from __future__ import annotations

import re
import sys
from collections import deque

from tfinpaint.system.subprocesses import is_notice, read_tag

KEPT_LINES = 200  # that are shown if nothing else says why the ranks have failed
CLEAR_LINE = "\r\x1b[2K"  # a progress bar, which its process draws again below

_ENDS_RUN = re.compile(r"error: |interrupted|Traceback ")
_NAMES_OTHER = re.compile(r"error: rank 0 stops: ")  # as `heartbeat.stopping_message` has it
_TRACEBACK = re.compile(r"(rank \d+: )?Traceback ")
_EXIT_CODE = re.compile(r"\s*Exit code:\s*(\d+)")


class RankOutput:
    """Prints the lines of rank 0, and those of the other ranks that are worth it, without the launcher's prefixes.

    Notices of TensorFlow are dropped. Errors of the other ranks, and what the launcher prints, are kept in case that
    rank 0 cannot say why it has ended.

    Attributes:
        exit_code: of the first rank that has failed, as the launcher prints it; None without one.
    """

    def __init__(self, *, beside_bar: bool) -> None:
        """
        Args:
            beside_bar: True if rank 0 writes to the terminal of this process, where it may show a progress bar.
        """
        self._clear = CLEAR_LINE if beside_bar else ""
        self._of_ranks = deque[str](maxlen=KEPT_LINES)
        self._of_launcher = deque[str](maxlen=KEPT_LINES)
        self._has_told = False  # whether rank 0 has said why it ends
        self._names_other = False  # whether that is the failure of another rank, in a line
        self.exit_code: int | None = None

    def add(self, line: str) -> None:
        """Print or keep a line that the launcher has printed."""
        tagged = read_tag(line.rstrip("\r\n"))
        if tagged is None:
            self._of_launcher.append(line.rstrip())
            if self.exit_code is None and (found := _EXIT_CODE.fullmatch(line.rstrip())):
                self.exit_code = int(found[1])
        elif tagged.stream == "stdout":  # of ranks other than 0, these are warnings
            self._print(tagged.text)
        elif not tagged.text or is_notice(tagged.text):
            pass
        elif tagged.rank == 0:
            self._has_told = self._has_told or bool(_ENDS_RUN.match(tagged.text))
            self._names_other = self._names_other or bool(_NAMES_OTHER.match(tagged.text))
            self._print(tagged.text, errors=True)
        else:
            self._of_ranks.append(tagged.text)

    def explain_failure(self) -> None:
        """Print why the ranks have failed, unless rank 0 has done so: what the others say, or else the launcher.

        The traceback of another rank is printed in any case, because rank 0 has only its last line.
        """
        has_traceback = any(_TRACEBACK.match(line) for line in self._of_ranks)
        if self._has_told and not (self._names_other and has_traceback):
            return
        launcher = [line for line in self._of_launcher if line and not is_notice(line)]
        for line in self._of_ranks or launcher:
            self._print(line, errors=True)

    def _print(self, text: str, *, errors: bool = False) -> None:
        stream = sys.stderr if errors else sys.stdout
        # In one piece: `print` would pass on a text with "\r" before its end, and rank 0 writes to the same terminal.
        stream.write(f"{self._clear if stream.isatty() else ''}{text}\n")
        stream.flush()
