"""What the operating system tells about this machine: processor, cores, memory, GPUs. Needs no TensorFlow."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Instructions that decide how fast TensorFlow computes on a CPU, as Linux names them.
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_BFLOAT16_FEATURES = {"AVX512_BF16", "AMX_BF16"}
_BFLOAT16_CAPABILITY = 8.0  # NVIDIA's compute capability from which on tensor cores take bfloat16


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU; memory in MiB."""

    name: str
    memory: int
    capability: float


@dataclass(frozen=True)
class Machine:
    """Memory sizes are in bytes. The limits are those of the control group (a container, a batch job), or None.

    Attributes:
        cores: of the whole machine.
        allowed_cores: those this process is bound to.
        core_limit: processor time per second, in cores.
        features: of `AVX2`, `AVX512F`, `AVX512_BF16`, `AMX_BF16`, those that the processor has.
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
        return max(1, int(min(self.allowed_cores, self.core_limit or self.allowed_cores)))

    @property
    def usable_memory(self) -> int:
        return min(self.memory, self.memory_limit or self.memory)

    @property
    def computes_in_bfloat16(self) -> bool:
        """Whether the hardware multiplies bfloat16 by itself: all its GPUs, or the processor where there is none."""
        if self.gpus:
            return all(gpu.capability >= _BFLOAT16_CAPABILITY for gpu in self.gpus)
        return not _BFLOAT16_FEATURES.isdisjoint(self.features)


def read_hardware(root: Path = Path("/")) -> Machine:
    """Read /proc, /sys and /etc under `root`; what is not there counts as absent or 0."""
    processor = _fields(root / "proc/cpuinfo", ":")
    flags = processor.get("flags", "").split()
    memory = int(_fields(root / "proc/meminfo", ":").get("MemTotal", "0").split()[0]) * 1024
    limits = [limit for limit in _memory_limits(root) if limit < memory]
    return Machine(
        system=f"{_system(root)}, Linux {platform.release()}, {' '.join(platform.libc_ver())}",
        processor=processor.get("model name", platform.machine()),
        features=tuple(name.upper() for name in _FEATURES if name in flags),
        cores=os.cpu_count() or 1,
        allowed_cores=len(os.sched_getaffinity(0)),
        core_limit=core_limit(root),
        memory=memory,
        memory_limit=min(limits, default=None),
        shared_memory=_size(root / "dev/shm"),
        gpus=parse_gpus(_nvidia_smi()),
    )


def parse_gpus(table: str) -> tuple[Gpu, ...]:
    """The GPUs in what `nvidia-smi --query-gpu=name,memory.total,compute_cap --format=csv,noheader,nounits` prints."""
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
    """Processor time per second, in cores, that the control group allows (a container, a batch job); None: all."""
    return min(_core_limits(root), default=None)


def _core_limits(root: Path) -> Iterator[float]:
    for group in _control_groups(root, "cpu"):
        # cgroup v2 has one file, `max 100000` where nothing is limited; v1 has two, with -1.
        values = _text(group / "cpu.max") or f"{_text(group / 'cpu.cfs_quota_us')} {_text(group / 'cpu.cfs_period_us')}"
        numbers = [int(value) for value in values.split() if value.isdigit()]
        if len(numbers) == 2:
            yield numbers[0] / numbers[1]


def _memory_limits(root: Path) -> Iterator[int]:
    for group in _control_groups(root, "memory"):
        value = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
        if value.strip().isdigit():
            yield int(value)


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those above it, any of which may set a limit."""
    top = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = top / controller if controllers else top
        group = mount / path.lstrip("/")
        # Inside a container the path may be the host's; then only the mount itself exists, and is the container's.
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
    """`NAME separator VALUE` lines; of a name that comes again, as for each core, the first value."""
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
