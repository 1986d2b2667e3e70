"""Commands end in time with all that they started; the line that says why is found."""

import sys
import time
from pathlib import Path

import pytest

from tfinpaint.system import subprocesses
from tfinpaint.system.subprocesses import failure_reason, find_program, run_bounded


def test_code_and_both_outputs_come_back():
    code, output = run_bounded([sys.executable, "-c", "import sys; print('a'); sys.stdout.flush(); sys.exit('b')"], 60)
    assert (code, output) == (1, "a\nb\n")


def test_a_command_sees_this_package_and_python_s_own_programs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    monkeypatch.chdir(tmp_path)
    _, output = run_bounded(
        [sys.executable, "-c", "import os, tfinpaint; print(tfinpaint.__file__, os.environ['PYTHONPATH'])"], 60
    )
    assert output.split()[0] == str(Path(subprocesses.__file__).parents[1] / "__init__.py")
    assert output.strip().endswith(":/theirs")
    assert find_program("python") == str(Path(sys.executable).with_name("python"))
    first = tmp_path / "python"
    first.touch(mode=0o755)
    assert find_program("python") == str(first)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("heeds", [True, False])
def test_a_command_that_does_not_end_is_ended_with_its_children(monkeypatch, tmp_path, heeds):
    monkeypatch.setattr(subprocesses, "GRACE_SECONDS", 0.5)
    pids = tmp_path / "pids"
    script = "trap '' TERM; " * (not heeds) + f"sleep 600 & echo $! $$ >{pids}; wait; sleep 600"
    code, _ = run_bounded(["sh", "-c", script], 1)
    assert code is None
    children = [int(pid) for pid in pids.read_text().split()]
    assert len(children) == 2
    deadline = time.monotonic() + 10
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, children))


@pytest.mark.parallel
def test_ranks_of_a_launcher_are_ended_although_they_heed_nothing(tmp_path):
    # As horovodrun does it: a shell that ends at once, and mpirun, whose ranks are in process groups of their own.
    script = f"trap '' TERM; echo $$ >>{tmp_path}/pids; sleep 60; sleep 60"
    mpirun = 'mpirun --allow-run-as-root --oversubscribe -np 2 sh -c "$0"'
    code, output = run_bounded(["sh", "-c", f"{mpirun}; exit", script], 6)
    assert code is None, output
    ranks = [int(line) for line in (tmp_path / "pids").read_text().splitlines()]
    assert len(ranks) == 2
    assert not any(map(is_running, ranks))


def test_a_child_that_outlives_its_parent_keeps_nobody_waiting():
    code, output = run_bounded(["sh", "-c", "sleep 600 & echo started"], 60)
    assert (code, output) == (0, "started\n")


def test_a_missing_command_is_told():
    with pytest.raises(FileNotFoundError):
        run_bounded(["/no/such/program"], 1)


UNDER_MPI = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795576013.884669    3253 port.cc:153] oneDNN custom operations are on.
[1,1]<stderr>: rank 1: error: canary: 3 ranks found each other, expected 2
--------------------------------------------------------------------------
prterun detected that one or more processes exited with non-zero status
[1,0]<stderr>:error: later
"""
UNDER_GLOO = """\
[1]<stdout>:said before
[1]<stderr>:I0000 00:00:1795576013.884669    3253 port.cc:153] oneDNN custom operations are on.
[1]<stderr>:Segmentation fault
Process 1 exit with status code 139.
RuntimeError: Horovod detected that one or more processes exited with non-zero status
"""
AS_ROOT = """\
--------------------------------------------------------------------------
prterun has detected an attempt to run as root.

Running as root is *strongly* discouraged
"""
TRACEBACK = """\
[0]<stderr>:Traceback (most recent call last):
[0]<stderr>:  File "x.py", line 1, in <module>
[0]<stderr>:ModuleNotFoundError: No module named 'tensorflow'
"""


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (UNDER_GLOO, "Segmentation fault"),
        (UNDER_MPI, "rank 1: error: canary: 3 ranks found each other, expected 2"),
        (AS_ROOT, "prterun has detected an attempt to run as root."),
        (TRACEBACK, "ModuleNotFoundError: No module named 'tensorflow'"),
        ("\n", "it printed nothing"),
    ],
)
def test_the_line_that_says_why(output, line):
    assert failure_reason(output) == line
