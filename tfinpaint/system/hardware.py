"""Read what the operating system reports about this machine: processor, cores, memory, GPUs. Needs no TensorFlow."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Instruction sets that decide how fast TensorFlow computes on a CPU, as Linux names them.
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
BFLOAT16_FEATURES = {"AVX512_BF16", "AMX_BF16"}
BFLOAT16_CAPABILITY = 8.0  # lowest compute capability of NVIDIA GPUs whose tensor cores take bfloat16


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU; memory in MiB."""

    name: str
    memory: int
    capability: float


@dataclass(frozen=True)
class Machine:
    """The hardware of this machine. Sizes are in bytes; limits are those of the control group (a container), or None.

    Attributes:
        cores: number of the whole machine.
        allowed_cores: number of cores to which this process is bound.
        core_limit: processor time per second, in cores.
        features: which of `AVX2`, `AVX512F`, `AVX512_BF16`, `AMX_BF16` the processor has.
    """

    system: str
    processor: str
    features: tuple[str, ...]
    cores: int
    allowed_cores: int
    core_limit: float | None
    memory: int
    memory_limit: int | None
    shared_memory: int
    gpus: tuple[Gpu, ...]

    @property
    def usable_cores(self) -> int:
        """Number of cores that this process may use all the time, at least 1."""
        return max(1, int(min(self.allowed_cores, self.core_limit or self.allowed_cores)))

    @property
    def usable_memory(self) -> int:
        """Memory that this process may use, in bytes."""
        return min(self.memory, self.memory_limit or self.memory)

    @property
    def computes_in_bfloat16(self) -> bool:
        """True if training can use hardware for bfloat16: that of all GPUs, or of the processor if there are none."""
        if self.gpus:
            return all(gpu.capability >= BFLOAT16_CAPABILITY for gpu in self.gpus)
        return has_onednn() and not BFLOAT16_FEATURES.isdisjoint(self.features)


def read_hardware(root: Path = Path("/")) -> Machine:
    """Read /proc, /sys and /etc below `root`; what is missing counts as absent or 0."""
    processor = _fields(root / "proc/cpuinfo", ":")
    memory = int(_fields(root / "proc/meminfo", ":").get("MemTotal", "0").split()[0]) * 1024
    limits = [limit for limit in _memory_limits(root) if limit < memory]
    return Machine(
        system=f"{_system(root)}, Linux {platform.release()}, {' '.join(platform.libc_ver())}",
        processor=processor.get("model name", platform.machine()),
        features=processor_features(root),
        cores=os.cpu_count() or 1,
        allowed_cores=len(os.sched_getaffinity(0)),
        core_limit=core_limit(root),
        memory=memory,
        memory_limit=min(limits, default=None),
        shared_memory=_size(root / "dev/shm"),
        gpus=parse_gpus(_nvidia_smi()),
    )


def has_onednn() -> bool:
    """Return whether TensorFlow uses oneDNN, whose kernels alone use a processor's hardware for bfloat16."""
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"


def processor_features(root: Path = Path("/")) -> tuple[str, ...]:
    """Return which of `AVX2`, `AVX512F`, `AVX512_BF16`, `AMX_BF16` the processor has."""
    flags = _fields(root / "proc/cpuinfo", ":").get("flags", "").split()
    return tuple(name.upper() for name in _FEATURES if name in flags)


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process can still take without swapping, as the machine and its control group say."""
    available = int(_fields(root / "proc/meminfo", ":").get("MemAvailable", "0").split()[0]) * 1024
    return min([available, *_memory_left(root)])


def parse_gpus(table: str) -> tuple[Gpu, ...]:
    """Return the GPUs in the output of `nvidia-smi --query-gpu=name,memory.total,compute_cap --format=csv,noheader`."""
    gpus = []
    for line in table.splitlines():
        try:
            name, memory, capability = line.rsplit(",", 2)
            gpus.append(Gpu(name.strip(), int(memory), float(capability)))
        except ValueError:  # a message instead of a GPU: the driver is not running
            continue
    return tuple(gpus)


def _nvidia_smi() -> str:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def core_limit(root: Path = Path("/")) -> float | None:
    """Return the processor time per second, in cores, that the control group allows, or None if it sets no limit."""
    return min(_core_limits(root), default=None)


def _core_limits(root: Path) -> Iterator[float]:
    for group in _control_groups(root, "cpu"):
        # cgroup v2 has one file, with `max 100000` for no limit; v1 has two, with -1 for no limit.
        values = _text(group / "cpu.max") or f"{_text(group / 'cpu.cfs_quota_us')} {_text(group / 'cpu.cfs_period_us')}"
        numbers = [int(value) for value in values.split() if value.isdigit()]
        if len(numbers) == 2:
            yield numbers[0] / numbers[1]


def _memory_limits(root: Path) -> Iterator[int]:
    for group in _control_groups(root, "memory"):
        value = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
        if value.strip().isdigit():
            yield int(value)


def _memory_left(root: Path) -> Iterator[int]:
    """Yield what each control group's limit leaves; the pages of files, which it can give back, count as free."""
    for group in _control_groups(root, "memory"):
        limit = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
        used = _text(group / "memory.current") or _text(group / "memory.usage_in_bytes")
        if limit.strip().isdigit() and used.strip().isdigit():
            cached = _fields(group / "memory.stat", " ").get("inactive_file", "0")
            yield max(0, int(limit) - int(used) + int(cached))


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of its parents, any of which may set a limit."""
    top = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = top / controller if controllers else top
        group = mount / path.lstrip("/")
        # Inside a container the path may be that of the host; then only the mount exists, and it is the container's.
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount) and folder.is_dir())


def _system(root: Path) -> str:
    return _fields(root / "etc/os-release", "=").get("PRETTY_NAME", platform.system()).strip('"')


def _size(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_frsize * found.f_blocks


def _fields(path: Path, separator: str) -> dict[str, str]:
    """Return name -> value of the lines `NAME separator VALUE`; the first value if a name is repeated."""
    found: dict[str, str] = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(separator)
        found.setdefault(name.strip(), value.strip())
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""
