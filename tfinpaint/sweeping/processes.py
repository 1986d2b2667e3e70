"""Run jobs in parallel, each in a process of its own, with cores or a GPU of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from tfinpaint.cli.command import EXIT_INTERRUPTED
from tfinpaint.config.checks import Command
from tfinpaint.errors import StoppedError, UserError
from tfinpaint.runs.signals import SIGNALS, StopRequest
from tfinpaint.system.hardware import Machine, available_memory, read_hardware
from tfinpaint.system.subprocesses import CONTINUED_BY, clean_environment, failure_reason
from tfinpaint.system.wording import counted

CORES = 2  # of a worker without a GPU
MEMORY = 3 * 2**30  # bytes that a worker is taken to need, for the default number of workers
GRACE = 120  # seconds in which a process that was asked to stop saves what it has
PATIENCE = 4  # presses of Ctrl-C after which a process on the terminal is ended without being asked
INTERVAL = 0.1  # seconds between looks at the processes
NOTICE = "Interrupted: the runs are saved and stop. Press Ctrl-C again to end them now, unsaved."
MOST_LOG = 2**14  # bytes at the end of a process's output that are searched for the reason of a failure


@dataclass(frozen=True, eq=False)  # two workers may have equal parts
class Slot:
    """The part of the machine that one worker uses.

    Attributes:
        cores: numbers of its cores.
        gpu: as in CUDA_VISIBLE_DEVICES; None without GPUs.
    """

    cores: tuple[int, ...]
    gpu: str | None = None


@dataclass(eq=False)
class Job:
    """A process to run.

    Attributes:
        title: for messages.
        begin: prepares the job and returns its command.
        end: called when the process has ended, with its duration in seconds; returns whether its work was done.
        log: the file for its output.
        work: how long it takes: in images of training.
        share: of the labels; None for all shares together.
        needs: jobs that must have ended before.
    """

    title: str
    begin: Callable[[], Sequence[str]]
    end: Callable[[float], bool]
    log: Path
    work: float
    share: float | None = None
    needs: Sequence[Job] = field(default=())


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    output: IO[bytes]
    first: int  # byte of the log at which the output of this process begins
    started: float


def make_slots(workers: int | None, machine: Machine | None = None) -> list[Slot]:
    """Divide the machine among workers.

    Args:
        workers: their number; None: one for each GPU, or for each CORES cores as far as memory allows.

    Raises:
        UserError: There are fewer GPUs, or cores.
    """
    machine = machine or read_hardware()
    cores, gpus = sorted(os.sched_getaffinity(0))[: machine.usable_cores], _gpus(machine)
    most = len(gpus) if gpus else max(1, len(cores) // CORES)
    if workers is not None and workers > most:
        has = (
            f"{counted(len(gpus), 'GPU')}, one for each worker"
            if gpus
            else f"{counted(len(cores), 'core')}, {CORES} for each worker"
        )
        raise UserError(f"--workers {workers}: this machine has {has}; give at most {most}")
    by_memory = max(1, available_memory() // MEMORY)
    count = workers or (most if gpus else min(most, by_memory))
    bounds = [len(cores) * place // count for place in range(count + 1)]
    shares = [tuple(cores[bounds[place] : bounds[place + 1]]) or tuple(cores) for place in range(count)]
    return [Slot(share, gpus[place] if gpus else None) for place, share in enumerate(shares)]


def _gpus(machine: Machine) -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(len(machine.gpus))]
    return names if visible is None else [name.strip() for name in visible.split(",") if name.strip()][: len(names)]


def training_command(task: Command, config: Path, *options: str) -> tuple[str, ...]:
    """Return the command that runs `pretrain` or `classify` in a process."""
    return sys.executable, "-m", "tfinpaint", task, "--config", str(config), *options


def start(command: Sequence[str], slot: Slot, output: IO[bytes] | None) -> subprocess.Popen:
    """Start a process on the cores and the GPU of a worker, in a group of its own, so that Ctrl-C reaches only us.

    Args:
        output: the file that it prints into; None: it prints where this process does.
    """
    environment = clean_environment() | ({} if slot.gpu is None else {"CUDA_VISIBLE_DEVICES": slot.gpu})
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT if output else None,
        env=environment, start_new_session=True,
    )  # fmt: skip
    with suppress(OSError):  # it has ended already
        os.sched_setaffinity(process.pid, slot.cores)  # long before TensorFlow counts its cores
    return process


def run_on_terminal(command: Sequence[str], slot: Slot) -> tuple[int, int]:
    """Run a process that prints where this one does, and pass on to it the signals that ask this one to stop.

    The process says itself that it stops, and what it has saved.

    Returns:
        Its exit code, minus the number of the signal that has ended it; and the signal that was passed on, 0 for none.
    """
    process, asked, presses = None, 0, 0

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal asked, presses
        asked, presses = number, presses + (number == signal.SIGINT)
        if process:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number if presses < PATIENCE else signal.SIGKILL)

    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in handled}
    try:
        process = start(command, slot, None)
        if asked:  # before there was a process to pass it on to
            pass_on(asked, None)
        return process.wait(), asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def continued_by(command: str) -> Iterator[None]:
    """Name a command within a `with` statement that continues all trainings; what they say of an interrupt names it."""
    os.environ[CONTINUED_BY] = command
    try:
        yield
    except KeyboardInterrupt:  # not while a training runs
        raise KeyboardInterrupt(f"finished stages are kept; continue with: {command}") from None
    finally:
        del os.environ[CONTINUED_BY]


def run_training(
    title: str, command: Sequence[str], ranks: int, is_finished: Callable[[], bool], saved: Callable[[], str]
) -> None:
    """Run one training on the terminal, within `continued_by`.

    Args:
        title: for messages.
        ranks: number of processes that the command starts.
        is_finished: returns whether the training has its result; it has none before.
        saved: returns what of the training is saved, and the command that continues.

    Raises:
        UserError: It has failed; what it has printed says why.
        StoppedError, SystemExit: It was asked to stop; it has said how to continue, or the error says it.
    """
    sys.stdout.flush()
    slot = Slot(tuple(sorted(os.sched_getaffinity(0)))) if ranks > 1 else make_slots(1)[0]
    code, asked = run_on_terminal(command, slot)
    again = os.environ[CONTINUED_BY]
    if asked:
        name = "Ctrl-C" if asked == signal.SIGINT else signal.Signals(asked).name
        own_code = EXIT_INTERRUPTED if asked == signal.SIGINT else 0
        if is_finished():
            raise StoppedError(f"Stopped after {title}, as {name} asked; continue with: {again}", own_code)
        if code in (0, EXIT_INTERRUPTED):  # it has said where it stopped, and how to continue
            raise SystemExit(own_code)
        raise StoppedError(f"{title} was ended, as {name} asked; {saved()}", own_code)
    if is_finished():
        return
    if code == 0:  # asked to stop by somebody else; it has said so
        raise SystemExit(0)
    raise UserError(f"{title}: failed: {_described(code)}; when that is fixed, continue with: {again}")


def _described(code: int) -> str:
    """Return how a training has ended that did not finish."""
    if code >= 0:
        return "the lines above say why"
    hint = ", perhaps because memory did not suffice" if -code == signal.SIGKILL else ""
    return f"its process was ended by {signal.Signals(-code).name}{hint}"


def run_jobs(jobs: Sequence[Job], slots: Sequence[Slot], on_end: Callable[[Job], None]) -> None:
    """Run all jobs in their order, as soon as what they need has ended and a slot is free.

    Args:
        on_end: called when a job has done its work.

    Raises:
        UserError: A job has failed, and the others were stopped; or one could not begin, and the others have ended.
        StoppedError: This process was asked to stop; the jobs were, too, and have saved what they had.
    """
    waiting, running, refused, stop = list(jobs), dict[Slot, _Running](), list[UserError](), StopRequest(notice=NOTICE)
    with stop.listening():
        try:
            while waiting or running:
                refused += _start_ready(waiting, running, slots)
                time.sleep(INTERVAL)
                for slot in [slot for slot, each in running.items() if each.process.poll() is not None]:
                    ended = running.pop(slot)
                    if _is_done(ended, stopped=bool(stop.name)):
                        on_end(ended.job)
                if stop.name:
                    raise StoppedError("The runs have stopped", 130 if stop.name == "SIGINT" else 0)
        finally:
            _stop(list(running.values()))
    if refused:
        raise refused[0]


def _start_ready(waiting: list[Job], running: dict[Slot, _Running], slots: Sequence[Slot]) -> list[UserError]:
    """Start jobs in free slots, and move them from `waiting` to `running`; return why others could not begin."""
    refused = []
    free = [slot for slot in slots if slot not in running]
    while free:
        unfinished = {*waiting, *(each.job for each in running.values())}
        job = next((job for job in waiting if unfinished.isdisjoint(job.needs)), None)
        if job is None:
            break
        waiting.remove(job)
        try:
            command = job.begin()
        except UserError as error:
            refused.append(error)
            continue
        slot = free.pop(0)
        output, first = _open_log(job.log)
        running[slot] = _Running(job, start(command, slot, output), output, first, time.monotonic())
    return refused


def _open_log(log: Path) -> tuple[IO[bytes], int]:
    """Return the file that a process appends its output to, and the byte at which that will begin."""
    log.parent.mkdir(parents=True, exist_ok=True)
    output = log.open("ab")
    return output, output.seek(0, os.SEEK_END)


def _is_done(ended: _Running, *, stopped: bool) -> bool:
    """Have a job look at its results; return whether its work was done.

    Raises:
        UserError: It was not, and the job was not stopped.
    """
    ended.output.close()
    if ended.job.end(time.monotonic() - ended.started):
        return True
    if stopped:
        return False
    reason = failure_reason(read_end(ended.job.log, ended.first)).removeprefix("error: ")
    raise UserError(f"{ended.job.title}: failed: {reason} ({ended.job.log} has its whole output)")


def read_end(log: Path, first: int = 0) -> str:
    """Return the last lines of the output of a process, none before byte `first`; "" without any."""
    try:
        with log.open("rb") as file:
            file.seek(max(first, log.stat().st_size - MOST_LOG))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _stop(running: Sequence[_Running]) -> None:
    """Ask processes to save and end; end those that take longer than GRACE, or at once at a second Ctrl-C."""
    for each in running:
        with suppress(ProcessLookupError):
            os.killpg(each.process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    try:
        for each in running:
            with suppress(subprocess.TimeoutExpired):
                each.process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for each in running:
            with suppress(ProcessLookupError):
                os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()
            each.output.close()
