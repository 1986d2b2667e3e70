"""Describe this machine and installation, find what keeps training from working, and try each way of starting ranks."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tfinpaint.system import installation, startup
from tfinpaint.system.hardware import Machine
from tfinpaint.system.installation import Imported
from tfinpaint.system.subprocesses import failure_reason, find_program, run_bounded
from tfinpaint.version import __version__

CHECK_SECONDS = 180
MEMORY_PER_RANK = 3 * 2**30  # a ResNet50 takes 2.2 GiB, with 32 images of 32 px per rank

# Variables by which users tune TensorFlow on purpose; they may change speed and the last digits of numbers.
_TUNING_VARIABLES = (
    *("TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC", "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA"),
    *("XLA_FLAGS", "TF_XLA_FLAGS", "NVIDIA_TF32_OVERRIDE", "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "PYTHONPATH"),
)


@dataclass(frozen=True)
class Finding:
    """Something to repair. Training works in spite of a mere note."""

    what: str
    remedy: str
    is_note: bool = False


@dataclass(frozen=True)
class Way:
    """A way to start ranks.

    Attributes:
        name: what a user types before `python -m`.
        command: the command that tries it, over the loopback interface.
    """

    name: str
    command: tuple[str, ...]


def machine_facts(machine: Machine) -> Iterator[tuple[str, str]]:
    """Yield (label, value) for each fact about the machine."""
    yield "system", machine.system
    yield "processor", ", ".join([machine.processor, *machine.features])
    where, auto = ("in", "mixed_bfloat16") if machine.computes_in_bfloat16 else ("not in", "float32")
    yield "bfloat16", f"{where} hardware; precision: auto means {auto}"
    limit = "no limit" if machine.core_limit is None else f"limited to the time of {machine.core_limit:g}"
    yield "cores", f"{machine.cores}; for this process {machine.allowed_cores}, {limit}"
    limit = "no limit" if machine.memory_limit is None else f"limited to {readable_size(machine.memory_limit)}"
    yield "memory", f"{readable_size(machine.memory)}; {limit}; /dev/shm {readable_size(machine.shared_memory)}"
    gpus = (f"{gpu.name}, {gpu.memory / 1024:.0f} GiB, compute capability {gpu.capability}" for gpu in machine.gpus)
    yield "GPUs", "; ".join(gpus) or "none"
    set_by_user = {name for name in _TUNING_VARIABLES if name in os.environ} - {
        name for name, value in startup.DEFAULTS.items() if os.environ.get(name) == value
    }
    tuned = (f"{name}={os.environ[name]}" for name in _TUNING_VARIABLES if name in set_by_user)
    yield "variables", " ".join(tuned) or "none"
    yield "ignored", "; ".join(ignored_settings()) or "none"


def installed_versions(imported: Imported) -> Iterator[tuple[str, str]]:
    """Yield (label, value) for each package and program that training needs."""
    yield "tfinpaint", __version__
    yield "Python", f"{platform.python_version()}, {sys.executable}"
    yield "TensorFlow", installation.version("tensorflow", "tensorflow-cpu") or "missing"
    yield "Keras", installation.version("keras") or "missing"
    horovod = installation.version("horovod")
    parts = [f"{name} {'yes' if built else 'no'}" for name, built in imported.parts.items()]
    yield "Horovod", ", ".join([horovod or "missing", *parts])
    if horovod:
        yield "Horovod's MPI", installation.mpi_of_horovod() or "unknown"
    yield "mpirun", installation.mpirun() or "missing"


def ignored_settings() -> Iterator[str]:
    """Yield the user's settings for Keras and Matplotlib that this program does not use."""
    yield from (f"{name}={value}" for name, value in sorted(startup.overridden.items()))
    path = startup.user_keras_file()
    try:
        values = json.loads(path.read_bytes())
        ours = json.loads(startup.KERAS_FILE.read_bytes())
        yield from (f"{key}: {value} in {path}" for key, value in values.items() if ours.get(key, value) != value)
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError):
        yield f"{path}, which is not a Keras configuration"


def readable_size(size: int) -> str:
    """Return a number of bytes in GiB or MiB, such as "31.2 GiB"."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def sensible_ranks(machine: Machine) -> int:
    """Return one rank per GPU, or without GPUs as many as have a core and enough memory each."""
    return len(machine.gpus) or max(1, min(machine.usable_cores, machine.usable_memory // MEMORY_PER_RANK))


def find_problems(imported: Imported) -> Iterator[Finding]:
    """Yield what in the installation keeps training from working."""
    horovod = installation.version("horovod")
    if not installation.version("tensorflow", "tensorflow-cpu"):
        yield Finding("TensorFlow is not installed.", f"{startup.install_command('cpu')} (or [gpu])")
    elif imported.gpus is None:
        yield Finding(f"TensorFlow cannot be imported: {imported.error}", startup.how_to_reinstall())
    elif horovod and not imported.parts:
        yield Finding(
            f"Horovod cannot be imported: {imported.error}",
            f"Build it for this TensorFlow: {startup.how_to_reinstall()}",
        )
    elif not horovod:
        yield Finding(
            "Horovod is not installed: there is one rank only.",
            f"To build it, {startup.how_to_get_horovod()}.",
            is_note=True,
        )
    if imported.parts.get("MPI") and not find_program("mpirun"):
        yield Finding(
            "Horovod was built with MPI, but there is no mpirun on the PATH.",
            "Put the one it was built with there (source .venv/bin/activate, or the cluster's module).",
        )
    name = platform.node()
    if imported.parts.get("Gloo") and not has_address(name):
        yield Finding(
            f"This machine's own name, {name}, has no address, and Gloo crashes without one.",
            f"Add it to /etc/hosts: 127.0.0.1 {name}",
        )


def has_address(name: str) -> bool:
    """Return True if a host name resolves; a process of its own asks, because a resolver may take minutes."""
    question = "import socket, sys; socket.getaddrinfo(sys.argv[1], None)"
    return run_bounded([sys.executable, "-c", question, name], installation.QUESTION_SECONDS)[0] == 0


def find_slowdowns(machine: Machine, imported: Imported) -> Iterator[Finding]:
    """Yield what makes training slower than it could be."""
    if machine.gpus and imported.gpus == 0:
        yield Finding(
            "TensorFlow does not see the GPUs.",
            f"Install its GPU build: {startup.install_command('gpu')}",
            is_note=True,
        )
    if len(machine.gpus) > 1 and imported.parts.get("NCCL") is False:
        yield Finding(
            "Horovod was built without NCCL: gradients go through the processors' memory.",
            "Build it with HOROVOD_GPU_OPERATIONS=NCCL.", is_note=True,
        )  # fmt: skip


def ways_to_start(parts: Mapping[str, bool], ranks: int) -> Iterator[Way]:
    """Yield one process, and every launcher that Horovod was built for and that is installed.

    Args:
        parts: whether Horovod was built with `MPI` and `Gloo`.
    """
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
    """Run the canary; return why it failed in one line, or None if the ranks train as one."""
    try:
        code, output = run_bounded(way.command, CHECK_SECONDS)
    except OSError as error:
        return f"cannot be started: {error.strerror}"
    if code is None:
        return f"not finished after {CHECK_SECONDS} s, ended"
    return failure_reason(output) if code else None
