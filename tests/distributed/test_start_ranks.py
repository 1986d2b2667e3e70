"""Ranks that a command starts itself: under which launcher, where, and what happens at signals and failures."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest
from conftest import ROOT
from terminal import Terminal

from tfinpaint.distributed import start_ranks
from tfinpaint.distributed.start_ranks import Placement, launcher, read_placement
from tfinpaint.errors import UserError
from tfinpaint.system.hardware import read_hardware

HERE = socket.gethostname()


@pytest.fixture
def installed(monkeypatch):
    """Pretend that Horovod is installed, and neither launcher has started this process."""
    monkeypatch.setattr(start_ranks.installation, "version", lambda name: "0.28.1")
    for name in ("OMPI_COMM_WORLD_SIZE", "HOROVOD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("ranks", "hosts", "placement"),
    [
        (None, None, None),
        (1, None, None),
        (3, None, Placement(3, "localhost:3", is_local=True)),
        (None, "localhost:1", None),
        (None, f"{HERE}:2", Placement(2, f"{HERE}:2", is_local=True)),
        (None, "127.0.0.1:2", Placement(2, "127.0.0.1:2", is_local=True)),
        (None, "localhost:2,node2:4", Placement(6, "localhost:2,node2:4", is_local=False)),
    ],
)
def test_options_say_how_many_ranks_and_where(installed, ranks, hosts, placement):
    assert read_placement(ranks, hosts) == placement


@pytest.mark.parametrize(
    ("ranks", "hosts", "message"),
    [
        (0, None, "--ranks 0: expected 1 or more"),
        (None, "node1", "--hosts node1: expected host:ranks,host:ranks such as node1:4,node2:4"),
        (None, "node1:0", "--hosts node1:0: expected host:ranks,host:ranks such as node1:4,node2:4"),
        (
            None,
            "192.0.2.1:2,localhost:2",
            f"--hosts 192.0.2.1:2,localhost:2: the first host must be this one, {HERE}, because rank 0 runs there; "
            "start the run there, or with a launcher",
        ),
        (
            None,
            "192.0.2.1:1",
            f"--hosts 192.0.2.1:1: the first host must be this one, {HERE}, because rank 0 runs there; start the run "
            "there, or with a launcher",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused(installed, ranks, hosts, message):
    with pytest.raises(UserError) as error:
        read_placement(ranks, hosts)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("hosts", "cores", "told"),
    [
        ("localhost:2", 2, []),
        (
            "localhost:8", 2,
            [
                "8 ranks share 2 cores on this host, so that each of them has a part of one and training is slower than "
                "with fewer; `tfinpaint doctor` recommends up to 2"
            ],
        ),
        ("localhost:2,127.0.0.1:40", 2, []),  # the cores of other hosts are not known
        (
            "localhost:1,node.invalid:1", 2,
            [
                "--hosts localhost:1,node.invalid:1: node.invalid cannot be found: no address is known for that name; "
                "correct it, or add it to /etc/hosts, unless it is a name in ~/.ssh/config"
            ],
        ),
    ],
)  # fmt: skip
def test_ranks_without_a_core_and_hosts_without_an_address_are_warned_of_before_the_start(
    monkeypatch, caplog, hosts, cores, told
):
    machine = replace(read_hardware(), gpus=(), allowed_cores=cores, core_limit=None, memory=2**40, memory_limit=None)
    monkeypatch.setattr(start_ranks, "read_hardware", lambda: machine)
    monkeypatch.setattr(start_ranks, "launcher", lambda placement, environment: ["true"])
    placement = Placement(9, hosts, is_local="," not in hosts)
    start_ranks.start_ranks(placement, [])
    assert [record.getMessage() for record in caplog.records] == told


def test_a_process_that_a_launcher_has_started_starts_no_others(installed, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert read_placement(2, None) is None
    with pytest.raises(UserError, match="--ranks 3: a launcher has already started 2 ranks; omit the option"):
        read_placement(3, None)


def test_without_horovod_there_is_one_rank(installed, monkeypatch):
    monkeypatch.setattr(start_ranks.installation, "version", lambda name: None)
    assert read_placement(1, None) is None
    with pytest.raises(UserError, match="--ranks 2: several ranks need Horovod, which is not installed"):
        read_placement(2, None)


TWO = Placement(2, "localhost:2", is_local=True)
TWO_HOSTS = Placement(3, "localhost:1,node2:2", is_local=False)


@pytest.mark.parametrize(
    ("placement", "mpi", "mpirun", "expected"),
    [
        (
            TWO, "/lib/libmpi.so", "mpirun (Open MPI) 5.0.11, /bin/mpirun",
            "/bin/mpirun -np 2 -H localhost:2 --tag-output --bind-to none --map-by slot --mca btl_tcp_if_include lo",
        ),
        (
            TWO_HOSTS, "/lib/libmpi.so", "mpirun (Open MPI) 5.0.11, /bin/mpirun",
            "/bin/mpirun -np 3 -H localhost:1,node2:2 --tag-output --bind-to none --map-by slot -x PATH -x TF_X",
        ),
        (
            TWO, None, "mpirun (Open MPI) 5.0.11, /bin/mpirun",
            "/bin/horovodrun --gloo -np 2 -H localhost:2 --network-interfaces lo",
        ),
        (TWO_HOSTS, "/lib/libmpi.so", None, "/bin/horovodrun --gloo -np 3 -H localhost:1,node2:2"),
        (TWO_HOSTS, "not found", "HYDRA, /bin/mpirun", "/bin/horovodrun --gloo -np 3 -H localhost:1,node2:2"),
    ],
)  # fmt: skip
def test_mpirun_starts_the_ranks_where_horovod_knows_mpi_and_gloo_otherwise(
    monkeypatch, placement, mpi, mpirun, expected
):
    monkeypatch.setattr(start_ranks.installation, "mpi_of_horovod", lambda: mpi)
    monkeypatch.setattr(start_ranks.installation, "mpirun", lambda: mpirun)
    monkeypatch.setattr(start_ranks, "find_program", lambda name: f"/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert " ".join(launcher(placement, {"PATH": "/bin", "HOME": "/root", "TF_X": "1"})) == expected


def test_without_any_launcher_there_is_one_line(monkeypatch):
    monkeypatch.setattr(start_ranks.installation, "mpirun", lambda: None)
    monkeypatch.setattr(start_ranks, "find_program", lambda name: None)
    with pytest.raises(
        UserError, match="2 ranks cannot be started: there is no mpirun and no horovodrun; run scripts/setup"
    ):
        launcher(TWO, {})


# Starts two ranks of PROGRAM, which loads no TensorFlow.
STARTER = """
import sys
from tfinpaint.cli.command import run_command
from tfinpaint.distributed.start_ranks import Placement, start_ranks

program = [sys.executable, "-c", sys.argv[1]]
sys.exit(run_command(lambda: start_ranks(Placement(2, "localhost:2", is_local=True), program)))
"""
PROGRAM = """
import os, sys, time
from tfinpaint.cli.command import run_command
from tfinpaint.distributed.environment import launched_rank
from tfinpaint.errors import StoppedError, UserError
from tfinpaint.runs.signals import StopRequest

def command():
    stop = StopRequest()
    with stop.listening():
        if launched_rank() == 0:
            print("terminal" if os.isatty(1) else "pipe", os.environ["OMPI_COMM_WORLD_SIZE"], flush=True)
        {work}
    raise StoppedError(f"Stopped, as {{stop.name}} asked" * (launched_rank() == 0), 130 if stop.name == "SIGINT" else 0)

sys.exit(run_command(command))
"""
WAIT = PROGRAM.format(work="while launched_rank() == 0 and not stop.name: time.sleep(0.01)")


def begin(program: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", STARTER, program], cwd=ROOT, **pipes)


@pytest.mark.parallel
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGUSR1, 0)])
def test_a_signal_reaches_rank_0_once_and_its_exit_code_is_kept(number, code):
    with begin(WAIT) as started:
        first = started.stdout.readline()
        started.send_signal(number)
        output, errors = started.communicate(timeout=60)
    assert first in ("pipe 2\n", "terminal 2\n")  # mpirun gives a rank a terminal of its own
    assert output == f"Stopped, as {number.name} asked\n"
    notes = errors.splitlines()
    assert len(notes) == (number == signal.SIGINT)
    assert all(note.startswith("Interrupted: ") for note in notes)
    assert started.returncode == code


@pytest.mark.parallel
@pytest.mark.parametrize(
    ("work", "code", "errors"),
    [
        ("raise UserError('no such folder')", 2, "error: no such folder\n"),
        (
            "if launched_rank(): raise UserError('no folder')\n        else: time.sleep(60)",
            2,
            "rank 1: error: no folder\n",
        ),
        ("os.kill(os.getpid(), 9) if launched_rank() else time.sleep(60)", 137, None),
    ],
)
def test_a_failure_is_told_once_with_its_exit_code(work, code, errors):
    with begin(PROGRAM.format(work=work)) as started:
        _, told = started.communicate(timeout=60)
    assert started.returncode == code
    assert told == errors if errors else "signal 9 (Killed)" in told


@pytest.mark.parallel
def test_ranks_end_when_the_process_that_has_started_them_is_killed():
    with begin(PROGRAM.format(work="print(os.getpid(), flush=True); time.sleep(600)")) as started:
        lines = [started.stdout.readline() for _ in range(3)]
        ranks = [psutil.Process(int(line)) for line in lines if line.strip().isdecimal()]
        started.kill()
    assert len(ranks) == 2
    assert psutil.wait_procs(ranks, timeout=60)[1] == []


def test_a_terminal_without_a_path_is_none(monkeypatch):
    def ttyname(number: int) -> str:
        raise FileNotFoundError  # as in a container to which the terminal was handed

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(os, "ttyname", ttyname)
    assert start_ranks._terminal() == ""


@pytest.mark.parallel
def test_on_a_terminal_rank_0_writes_to_it():
    terminal = Terminal([sys.executable, "-c", STARTER, WAIT], columns=80)
    sent = []

    def look(rows: list[str]) -> None:
        if rows and not sent:
            sent.append(rows[0])
            terminal.process.send_signal(signal.SIGINT)

    assert terminal.watch(look) == 130
    first, *others = terminal.rows()
    assert first == "terminal 2"
    assert "Stopped, as SIGINT asked" in others
    assert sum(row.startswith("Interrupted: ") for row in others) == 1
    assert not [row for row in others if row.startswith("[") or "prterun" in row]
