"""Run a command in bounded time, end all processes that it has started, and find the line that says why it failed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GRACE_SECONDS = 10  # for a launcher to end its ranks
# Environment variable of a process that is a stage of something larger: the command that continues all of that.
CONTINUED_BY = "TFINPAINT_CONTINUED_BY"
OUTPUT_LIMIT = 1_000_000  # bytes of a command's output that are read

# Open MPI writes "[1,0]<stdout>: text", Horovod's Gloo launcher "[0]<stdout>:text".
_TAGGED = re.compile(r"\[(\d+,)?(?P<rank>\d+)\]<(?P<stream>stdout|stderr)>:(?(1) ?)(?P<text>.*)", re.DOTALL)
# Horizontal lines, and the notices of TensorFlow's C++ part.
_NOTICE = re.compile(r"-+|WARNING: All log messages before absl.*|[IW]\d{4} .*|To enable the following instructions.*")


@dataclass(frozen=True)
class RankLine:
    """A line that a rank has printed, without the tag that its launcher has put in front of it.

    Attributes:
        stream: "stdout" or "stderr".
    """

    rank: int
    stream: str
    text: str


def clean_environment() -> dict[str, str]:
    """Return the environment in which this tfinpaint is imported, and programs beside Python are found last."""
    package = str(Path(__file__).parents[2])
    return os.environ | {
        "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)]),
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
    }


def find_program(program: str) -> str | None:
    """Return the path of a program on the PATH or beside this Python, or None if there is none."""
    return shutil.which(program, path=clean_environment()["PATH"])


def run_bounded(command: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Run a command without input.

    Returns:
        Its exit code, or None if it was ended after `seconds`; and its output.

    Raises:
        OSError: it cannot be started.
    """
    # A file, not a pipe: a process that outlives its launcher would keep a pipe open.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=clean_environment(), start_new_session=True,
        )  # fmt: skip
        code = None
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            end_group(process)
        output.seek(0)
        return code, output.read(OUTPUT_LIMIT).decode(errors="replace")


def end_group(process: subprocess.Popen) -> None:
    """End a process and its group; mpirun, which horovodrun starts, gets time to end ranks in other groups."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while _is_group(process) and time.monotonic() < deadline:
            time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _is_group(process: subprocess.Popen) -> bool:
    """Return True if any process of the group still runs; a process that has ended is waited for first."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def read_tag(line: str) -> RankLine | None:
    """Return the line of a rank that a launcher has tagged; None for a line of the launcher itself."""
    found = _TAGGED.fullmatch(line)
    return RankLine(int(found["rank"]), found["stream"], found["text"]) if found else None


def is_notice(line: str) -> bool:
    """Return True for a horizontal line, and for a notice that TensorFlow's C++ part prints at any log level."""
    return bool(_NOTICE.fullmatch(line.strip()))


def failure_reason(output: str) -> str:
    """Return the line of a failed command's output that says why: the first error, or else the first line.

    Lines of the ranks count before those of their launcher.
    """
    tagged = [line for line in map(read_tag, output.splitlines()) if line and line.stream == "stderr"]
    told = [line.text for line in tagged] or output.splitlines()
    lines = [line.strip() for line in told if line.strip() and not is_notice(line)]
    errors = [line for line in lines if "error:" in line.lower()]
    return (errors or lines or ["it printed nothing"])[0]
