"""What is read from /proc, /sys and nvidia-smi, from files as real machines have them."""

import os
from pathlib import Path

import pytest

from tfinpaint.system import hardware
from tfinpaint.system.hardware import Gpu, read_hardware

CPUINFO = """\
processor	: 0
model name	: Intel(R) Xeon(R) Platinum 8480+
flags		: fpu vme sse4_2 avx avx2 avx512f avx512bw avx512_bf16 amx_bf16 amx_tile

processor	: 1
model name	: another
flags		: fpu
"""
GIB = 2**30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "proc/cpuinfo", CPUINFO)
    write(tmp_path / "proc/meminfo", f"MemTotal:       {8 * GIB // 1024} kB\nMemFree:        1024 kB\n")
    write(tmp_path / "etc/os-release", 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    return tmp_path


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4, 5})
    monkeypatch.setattr(hardware, "_nvidia_smi", lambda: "")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_machine_without_limits(root):
    here = read_hardware(root)
    assert here.system.startswith("Debian GNU/Linux 12 (bookworm), Linux ")
    assert here.processor == "Intel(R) Xeon(R) Platinum 8480+"
    assert here.features == ("AVX2", "AVX512F", "AVX512_BF16", "AMX_BF16")
    assert (here.cores, here.allowed_cores, here.core_limit, here.usable_cores) == (8, 6, None, 6)
    assert (here.memory, here.memory_limit, here.usable_memory) == (8 * GIB, None, 8 * GIB)
    assert (here.shared_memory, here.gpus) == (0, ())


def test_the_tightest_limit_of_the_control_groups_counts(root):
    write(root / "proc/self/cgroup", "0::/slice/job\n")
    write(root / "sys/fs/cgroup/slice/cpu.max", "250000 100000\n")
    write(root / "sys/fs/cgroup/cpu.max", "400000 100000\n")
    write(root / "sys/fs/cgroup/slice/job/cpu.max", "max 100000\n")
    write(root / "sys/fs/cgroup/slice/memory.max", "max\n")
    write(root / "sys/fs/cgroup/slice/job/memory.max", f"{3 * GIB}\n")
    here = read_hardware(root)
    assert (here.core_limit, here.usable_cores) == (2.5, 2)
    assert (here.memory_limit, here.usable_memory) == (3 * GIB, 3 * GIB)


def test_a_container_under_cgroup_v1_finds_its_own_group_at_the_mount(root):
    write(root / "proc/self/cgroup", "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n")
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n")
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{2 * GIB}\n")
    here = read_hardware(root)
    assert (here.core_limit, here.usable_cores) == (0.5, 1)
    assert here.memory_limit == 2 * GIB


def test_what_cgroup_v1_writes_for_no_limit_is_none(root):
    write(root / "proc/self/cgroup", "4:memory:/\n1:cpu:/\n")
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    here = read_hardware(root)
    assert (here.core_limit, here.memory_limit) == (None, None)


def test_an_empty_machine_is_no_error(tmp_path):
    here = read_hardware(tmp_path)
    assert (here.memory, here.features, here.usable_cores, here.computes_in_bfloat16) == (0, (), 6, False)


def test_gpus_as_nvidia_smi_prints_them():
    table = "NVIDIA H100 80GB HBM3, 81559, 9.0\nTesla V100-SXM2-16GB, 16384, 7.0\n"
    assert hardware.parse_gpus(table) == (
        Gpu("NVIDIA H100 80GB HBM3", 81559, 9.0),
        Gpu("Tesla V100-SXM2-16GB", 16384, 7.0),
    )
    assert hardware.parse_gpus("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n") == ()


@pytest.mark.parametrize(
    ("flags", "gpus", "fast"),
    [
        ("avx2 avx512f", "", False),
        ("avx2 avx512f avx512_bf16", "", True),
        ("avx2 amx_bf16", "", True),
        ("avx2 avx512_bf16", "Tesla V100, 16384, 7.0", False),
        ("avx2", "NVIDIA A100, 40960, 8.0", True),
    ],
)
def test_bfloat16_is_judged_by_what_computes(root, monkeypatch, flags, gpus, fast):
    write(root / "proc/cpuinfo", f"flags : {flags}\n")
    monkeypatch.setattr(hardware, "_nvidia_smi", lambda: gpus)
    assert read_hardware(root).computes_in_bfloat16 is fast
