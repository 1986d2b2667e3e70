"""Ctrl-C, once and twice, in a process of its own that computes something which Python cannot interrupt."""

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SCRIPT = """
import hashlib
from tfinpaint.runs.signals import StopRequest

stop = StopRequest(lambda: "the newest checkpoint is X")
with stop.listening():
    print("computing", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", {rounds})  # a C function that lets no handler of Python run
    print("computed", flush=True)
print(f"asked by {{stop.name}}", flush=True)
"""
NOTICE = "Interrupted: the run is saved and stops after this step. Press Ctrl-C again to end it now, unsaved.\n"


@pytest.fixture(scope="module")
def rounds_per_second() -> float:
    began = time.process_time()
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 200_000)
    return 200_000 / (time.process_time() - began)


@contextmanager
def computing(seconds: float, rounds_per_second: float) -> Iterator[subprocess.Popen]:
    """A process in the middle of a step that takes about so long."""
    script = SCRIPT.format(rounds=min(int(seconds * rounds_per_second), 2**31 - 1))
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "computing\n"
            yield process
        finally:
            process.kill()


def interrupt(process: subprocess.Popen) -> None:
    """Press Ctrl-C once, and read the answer, which comes while the step is being computed."""
    process.send_signal(signal.SIGINT)
    assert [process.stderr.readline(), process.stderr.readline()] == ["\n", NOTICE]


def test_one_interrupt_lets_a_step_end(rounds_per_second):
    with computing(1, rounds_per_second) as process:
        interrupt(process)
        assert process.communicate() == ("computed\nasked by SIGINT\n", "")
    assert process.returncode == 0


def test_a_second_interrupt_ends_a_process_in_the_middle_of_a_long_step(rounds_per_second):
    with computing(1000, rounds_per_second) as process:
        interrupt(process)
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("", "interrupted: the newest checkpoint is X\n")
    assert process.returncode == 130
