"""Start the ranks of a command by a launcher, pass signals on to them, and show what a user wants to see.

The ranks run under Open MPI's mpirun if Horovod was built with MPI, otherwise under Horovod's Gloo launcher. Rank 0
runs on this host. It gets the signals, and on a terminal it writes its standard output to the terminal itself, so that
it can show a progress bar.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from tfinpaint.distributed.environment import launched_size
from tfinpaint.distributed.rank_output import RankOutput
from tfinpaint.errors import UserError
from tfinpaint.system import installation, startup, streams
from tfinpaint.system.diagnosis import sensible_ranks
from tfinpaint.system.hardware import read_hardware
from tfinpaint.system.subprocesses import clean_environment, end_group, find_program
from tfinpaint.system.wording import counted

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
HOSTS = "TFINPAINT_HOSTS"  # environment variable of rank 0: the value of --hosts
_PR_SET_PDEATHSIG = 1  # of prctl(2): the signal that a process gets when its parent ends, however that ends
PATIENCE = 3  # presses of Ctrl-C after which the ranks are ended without being asked

_HOSTS = re.compile(r"[^\s:,]+:[1-9]\d*(,[^\s:,]+:[1-9]\d*)*")
# Variables that the ranks on other hosts get too; `mpirun` passes on no others than its own.
_PASSED = re.compile(r"(HOROVOD|NCCL|TF|CUDA|OMP|KMP)_.*|PATH|LD_LIBRARY_PATH|PYTHONPATH|XLA_FLAGS")
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "HOROVOD_RANK")  # of the two launchers that are used here


@dataclass(frozen=True)
class Placement:
    """How many ranks to start, and where.

    Attributes:
        ranks: their number, at least 2.
        hosts: hosts with their numbers of ranks, such as "node1:4,node2:4"; the first one is this host.
        is_local: True if all ranks run on this host.
    """

    ranks: int
    hosts: str
    is_local: bool


def read_placement(ranks: int | None, hosts: str | None) -> Placement | None:
    """Return which ranks the options --ranks and --hosts ask this process to start; None for none.

    A process that is itself one of them, or that a launcher of the user's has started, starts no others.

    Raises:
        UserError: the options cannot be used, or a launcher has started another number of ranks.
    """
    if ranks is None and hosts is None:
        return None
    if ranks is not None and ranks < 1:
        raise UserError(f"--ranks {ranks}: expected 1 or more")
    if hosts is not None and not _HOSTS.fullmatch(hosts):
        raise UserError(f"--hosts {hosts}: expected host:ranks,host:ranks such as node1:4,node2:4")
    option = f"--ranks {ranks}" if ranks else f"--hosts {hosts}"
    wanted = ranks or sum(int(part.rpartition(":")[2]) for part in str(hosts).split(","))
    if (started := launched_size()) > 1:
        if started != wanted:
            raise UserError(f"{option}: a launcher has already started {started} ranks; omit the option")
        return None
    names = [part.rpartition(":")[0] for part in (hosts or "localhost").split(",")]
    if hosts and not _is_this_host(names[0]):
        raise UserError(
            f"--hosts {hosts}: the first host must be this one, {socket.gethostname()}, because rank 0 runs there; "
            "start the run there, or with a launcher"
        )
    if wanted == 1:
        return None
    if installation.version("horovod") is None:
        remedy = f"{startup.how_to_get_horovod()}, or omit it"
        raise UserError(f"{option}: several ranks need Horovod, which is not installed; {remedy}")
    return Placement(wanted, hosts or f"localhost:{wanted}", is_local=len(names) == 1)


def _is_this_host(name: str) -> bool:
    import psutil

    if name in ("localhost", socket.gethostname()):
        return True
    try:
        found = {address[4][0] for address in socket.getaddrinfo(name, None)}
    except OSError:
        return False
    own = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    return bool(found & own)


def start_ranks(placement: Placement, program: Sequence[str]) -> None:
    """Run a program on several ranks, and wait until they have ended.

    Args:
        program: Python's path, and its arguments.

    Raises:
        UserError: no launcher can be used.
        SystemExit: a rank has failed, with its exit code; what has happened has been printed.
    """
    _warn_of_hosts(placement)
    environment = clean_environment()
    terminal = _terminal()
    if terminal:
        environment[streams.TERMINAL] = terminal
    if not placement.is_local:
        environment[HOSTS] = placement.hosts
    output = RankOutput(beside_bar=bool(terminal))
    with _Ranks([*launcher(placement, environment), *program], environment) as ranks:
        for line in ranks.lines():
            output.add(line)
        code = ranks.wait()
    if ranks.is_ended and ranks.asked_by == signal.SIGINT:
        raise KeyboardInterrupt
    if code and not ranks.asked_by:
        output.explain_failure()
    if code:
        raise SystemExit(output.exit_code or code)


def _warn_of_hosts(placement: Placement) -> None:
    """Warn where ranks share the cores of this host, and of hosts that cannot be found."""
    here, *others = (part.rpartition(":") for part in placement.hosts.split(","))
    machine, ranks = read_hardware(), int(here[2])
    if ranks > machine.usable_cores and not machine.gpus:
        has = f"{counted(ranks, 'rank')} share {counted(machine.usable_cores, 'core')} on this host"
        log.warning(
            f"{has}, so that each of them has a part of one and training is slower than with fewer; `tfinpaint doctor` "
            f"recommends up to {sensible_ranks(machine)}"
        )
    for name, _, _ in others:
        try:
            socket.getaddrinfo(name, None)
        except (OSError, UnicodeError):  # ssh may know it by another name
            log.warning(
                f"--hosts {placement.hosts}: {name} cannot be found: no address is known for that name; correct it, or "
                "add it to /etc/hosts, unless it is a name in ~/.ssh/config"
            )


def _terminal() -> str:
    """Return the path of the terminal that standard output is; "" if it is none, or has no path in this container."""
    with suppress(OSError):
        if sys.stdout.isatty():
            return os.ttyname(1)
    return ""


def launcher(placement: Placement, environment: Mapping[str, str]) -> list[str]:
    """Return the command that starts the ranks, up to the program that they run.

    Raises:
        UserError: there is none.
    """
    where = ["-np", str(placement.ranks), "-H", placement.hosts]
    mpirun, mpi = installation.mpirun(), installation.mpi_of_horovod()
    if mpi not in (None, "not found") and mpirun and "Open MPI" in mpirun:
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []  # Open MPI refuses root otherwise
        # By itself mpirun ties each of two ranks to one core, whatever the host has.
        options = [*root, "--tag-output", "--bind-to", "none", "--map-by", "slot"]
        if placement.is_local:
            options += ["--mca", "btl_tcp_if_include", "lo"]
        else:
            options += [part for name in sorted(environment) if _PASSED.fullmatch(name) for part in ("-x", name)]
        return [str(find_program("mpirun")), *where, *options]
    if horovodrun := find_program("horovodrun"):
        return [horovodrun, "--gloo", *where, *(["--network-interfaces", "lo"] if placement.is_local else [])]
    remedy = startup.how_to_get_horovod()
    raise UserError(f"{placement.ranks} ranks cannot be started: there is no mpirun and no horovodrun; {remedy}")


class _Ranks:
    """The launcher and its ranks, from their start to the end of a `with` statement; signals are passed on to rank 0.

    They have a session of their own, so that Ctrl-C on the terminal reaches this process alone. If this process is
    killed, the launcher is ended, and ends the ranks.

    Attributes:
        asked_by: number of the last signal that has come; 0 for none.
        is_ended: True if the ranks were ended at once: rank 0 was not there yet, or a user cannot wait.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.asked_by, self.is_ended, self._presses, self._launcher = 0, False, 0, 0
        handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._pass_on) for number in handled}
        libc = ctypes.CDLL(None)
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
                text=True, errors="replace", start_new_session=True,
                preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),  # this process has no threads yet
            )  # fmt: skip
        except OSError as error:
            self._restore_handlers()
            raise UserError(f"{command[0]}: cannot be started: {error.strerror}") from None
        self._launcher = self._process.pid
        if self.is_ended:  # a signal came before
            self._process.terminate()

    def __enter__(self) -> _Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        end_group(self._process)
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def lines(self) -> Iterator[str]:
        """Yield what the launcher prints, line by line, until it has ended."""
        assert self._process.stdout
        with self._process.stdout as printed:
            yield from printed

    def wait(self) -> int:
        """Return the exit code of the launcher, as a shell gives it."""
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.asked_by = number
        self._presses += number == signal.SIGINT
        rank_zero = _find_rank_zero(self._launcher) if self._launcher else None
        if rank_zero and self._presses < PATIENCE:
            with suppress(ProcessLookupError):
                os.kill(rank_zero, number)
        else:
            self.is_ended = True
            if self._launcher:
                self._process.terminate()


def _find_rank_zero(launcher: int) -> int | None:
    """Return the process of rank 0 among those that a launcher has started; None if it is not there."""
    import psutil

    found = []
    with suppress(psutil.Error):
        for process in psutil.Process(launcher).children(recursive=True):
            with suppress(psutil.Error):
                environment = process.environ()
                if any(environment.get(name) == "0" for name in RANK_VARIABLES):
                    found.append((process.create_time(), process.pid))
    return min(found)[1] if found else None  # the others are its children
