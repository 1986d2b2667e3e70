"""Describe the machine and the installation, name what keeps training from working, and try each way of starting ranks."""

from __future__ import annotations
import json
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from rich.console import Console
from rich.markup import escape
from tfinpaint.cli import command as cli
from tfinpaint.cli.command import run_command
from tfinpaint.distributed.environment import launched_rank, threads_per_rank, was_launched
from tfinpaint.errors import UserError
from tfinpaint.system import installation, startup
from tfinpaint.system.hardware import Machine, read_hardware
from tfinpaint.system.installation import Imported
from tfinpaint.system.subprocesses import failure_reason, find_program, run_bounded
from tfinpaint.version import __version__
from tfinpaint.doctor import launcher


CHECK_SECONDS = 180


MEMORY_PER_RANK = 3 * 2**30  # the demo takes 2.2 GiB, with 32 images of 32 px per rank


# Variables by which users tune TensorFlow on purpose; they may change speed and the last digits of numbers.
_TUNING_VARIABLES = (
    *("TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC", "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA"),
    *("XLA_FLAGS", "TF_XLA_FLAGS", "NVIDIA_TF32_OVERRIDE", "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "PYTHONPATH"),
)


@dataclass(frozen=True)
class Finding:
    """Something to mend. Training works in spite of a mere note."""

    what: str
    remedy: str
    is_note: bool = False


@dataclass(frozen=True)
class Way:
    """A way of starting ranks: what a user types before `python -m`, and the command that tries it on loopback."""

    name: str
    command: tuple[str, ...]


def installed_versions(imported: Imported) -> Iterator[tuple[str, str]]:
    """Labels and values, as those of `facts`."""
    yield "tfinpaint", __version__
    yield "Python", f"{platform.python_version()}, {sys.executable}"
    yield "TensorFlow", installation.version("tensorflow", "tensorflow-cpu") or "missing"
    yield "Keras", installation.version("keras") or "missing"
    horovod = installation.version("horovod")
    parts = [f"{name} {'yes' if built else 'no'}" for name, built in imported.parts.items()]
    yield "Horovod", ", ".join([horovod or "missing", *parts])
    if horovod:
        yield "Horovod's MPI", installation.mpi_of_horovod() or "cannot be told"
    yield "mpirun", installation.mpirun() or "missing"


def machine_facts(here: Machine) -> Iterator[tuple[str, str]]:
    yield "system", here.system
    yield "processor", ", ".join([here.processor, *here.features])
    where, speed = ("in hardware", "faster") if here.computes_in_bfloat16 else ("not in hardware", "slower")
    yield "bfloat16", f"{where}; mixed_bfloat16 is likely {speed} than float32"
    limit = "no limit" if here.core_limit is None else f"limited to the time of {here.core_limit:g}"
    yield "cores", f"{here.cores}; for this process {here.allowed_cores}, {limit}"
    limit = "no limit" if here.memory_limit is None else f"limited to {readable_size(here.memory_limit)}"
    yield "memory", f"{readable_size(here.memory)}; {limit}; /dev/shm {readable_size(here.shared_memory)}"
    gpus = (f"{gpu.name}, {gpu.memory / 1024:.0f} GiB, compute capability {gpu.capability}" for gpu in here.gpus)
    yield "GPUs", "; ".join(gpus) or "none"
    yield "launcher", launcher(os.environ)
    yield "variables", " ".join(f"{name}={os.environ[name]}" for name in _TUNING_VARIABLES if name in os.environ) or "none"
    yield "ignored", "; ".join(ignored_settings()) or "none"
    ranks = sensible_ranks(here)
    why = "one per GPU" if here.gpus else f"a core and {readable_size(MEMORY_PER_RANK)} of memory each"
    yield "ranks here", f"up to {ranks} ({why}); {threads_per_rank(ranks)} thread(s) each where there are {ranks}"


def ignored_settings() -> Iterator[str]:
    """Yield what the user has set for Keras and Matplotlib, which this program does not use."""
    yield from (f"{name}={value}" for name, value in sorted(startup.overridden.items()))
    path = startup.user_keras_file()
    try:
        values = json.loads(path.read_bytes())
        ours = json.loads(startup.KERAS_FILE.read_bytes())
        yield from (f"{key}: {value} in {path}" for key, value in values.items() if ours.get(key, value) != value)
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError):  # of any kind: it is not read elsewhere
        yield f"{path}, which is no Keras configuration"


def readable_size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def sensible_ranks(here: Machine) -> int:
    """One rank per GPU; without GPUs as many as find a core and memory."""
    return len(here.gpus) or max(1, min(here.usable_cores, here.usable_memory // MEMORY_PER_RANK))


def find_problems(imported: Imported) -> Iterator[Finding]:
    """What of the installation keeps training from working."""
    horovod = installation.version("horovod")
    if not installation.version("tensorflow", "tensorflow-cpu"):
        yield Finding("TensorFlow is not installed.", "scripts/setup, or: pip install -e .[cpu] (or .[gpu])")
    elif imported.gpus is None:
        yield Finding(f"TensorFlow cannot be imported: {imported.error}", "rm -r .venv, then scripts/setup")
    elif horovod and not imported.parts:
        yield Finding(
            f"Horovod cannot be imported: {imported.error}",
            "Build it for this TensorFlow: rm -r .venv, then scripts/setup",
        )
    elif not horovod:
        yield Finding("Horovod is not installed: there is one rank only.", "scripts/setup builds it.", is_note=True)
    if imported.parts.get("MPI") and not find_program("mpirun"):
        yield Finding(
            "Horovod was built with MPI, but there is no mpirun on the PATH.",
            "Put the one it was built with there (source .venv/bin/activate, or the cluster's module).",
        )
    name = platform.node()
    if imported.parts.get("Gloo") and not has_address(name):
        yield Finding(
            f"No address is found for this machine's own name, {name}: Gloo crashes on that.",
            f"Add it to /etc/hosts: 127.0.0.1 {name}",
        )


def has_address(name: str) -> bool:
    """Whether a host name resolves; asked in a process of its own, for a resolver may take minutes."""
    question = "import socket, sys; socket.getaddrinfo(sys.argv[1], None)"
    return run_bounded([sys.executable, "-c", question, name], installation.QUESTION_SECONDS)[0] == 0


def find_slowdowns(here: Machine, imported: Imported) -> Iterator[Finding]:
    """What lets training work, but slower than it could."""
    if here.gpus and imported.gpus == 0:
        yield Finding("TensorFlow does not see the GPUs.", "Install its GPU build: pip install -e .[gpu]", is_note=True)
    if len(here.gpus) > 1 and imported.parts.get("NCCL") is False:
        yield Finding(
            "Horovod was built without NCCL: gradients go through the processors' memory.",
            "Build it with HOROVOD_GPU_OPERATIONS=NCCL.", is_note=True,
        )  # fmt: skip


def ways_to_start(parts: Mapping[str, bool], ranks: int) -> Iterator[Way]:
    """One process, and every launcher that Horovod was built for and that is installed."""
    canary = (sys.executable, "-m", "tfinpaint.canary", "--ranks")
    yield Way("one process", (*canary, "1"))
    horovodrun, mpirun = find_program("horovodrun"), find_program("mpirun")
    has_mpi = parts.get("MPI") and mpirun
    for option, usable in (("--mpi", has_mpi), ("--gloo", parts.get("Gloo"))):
        if horovodrun and usable:
            options = (option, "--network-interfaces", "lo", "-np", str(ranks))
            yield Way(f"horovodrun {option} -np {ranks}", (horovodrun, *options, *canary, str(ranks)))
    if mpirun and has_mpi:
        root = ("--allow-run-as-root",) if os.geteuid() == 0 else ()  # Open MPI refuses root otherwise
        typed = (*root, "--oversubscribe", "-np", str(ranks))
        command = (mpirun, *typed, "--mca", "btl_tcp_if_include", "lo", *canary, str(ranks))
        yield Way(f"mpirun {' '.join(typed)}", command)


def try_way(way: Way) -> str | None:
    """Run the canary: why it failed in one line, or None where the ranks train as one."""
    try:
        code, output = run_bounded(way.command, CHECK_SECONDS)
    except OSError as error:
        return f"cannot be started: {error.strerror}"
    if code is None:
        return f"not finished after {CHECK_SECONDS} s, ended"
    return failure_reason(output) if code else None
