"""The doctor's judgement of machines and installations, and the whole of it with the real ones."""

import io
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console

from tfinpaint import doctor
from tfinpaint.system import diagnosis, installation
from tfinpaint.system.diagnosis import Way, has_address, sensible_ranks, try_way
from tfinpaint.system.hardware import Gpu, Machine
from tfinpaint.system.installation import Imported

GIB = 2**30
BOTH = Imported(gpus=0, parts={"MPI": True, "Gloo": True, "NCCL": False})
HERE = Machine(
    "Debian", "Xeon", ("AVX2",), cores=8, allowed_cores=8, core_limit=None, memory=32 * GIB, memory_limit=None,
    shared_memory=64 * 2**20, gpus=(),
)  # fmt: skip
TIMEOUT_SECONDS = 580


def changed(here: Machine, **changes: object) -> Machine:
    return Machine(**{**vars(here), **changes})


@pytest.fixture
def diagnose(monkeypatch):
    """Diagnose a machine on which nothing is started: `says` is the outcome of each way by its first words."""
    installed = {"tensorflow": "2.21.0", "keras": "3.15.1", "horovod": "0.28.1"}
    for name in [name for name in os.environ if doctor._LAUNCHER_VARIABLE.fullmatch(name)]:
        monkeypatch.delenv(name)

    def run(
        imported: Imported = BOTH,
        here: Machine = HERE,
        without: str = "",
        mpirun: bool = True,
        address: bool = True,
        **says: str,
    ):
        monkeypatch.setattr(doctor, "read_hardware", lambda: here)
        monkeypatch.setattr(installation, "imported", lambda: imported)
        monkeypatch.setattr(
            installation, "version", lambda *names: None if names[0] == without else installed[names[0]]
        )
        monkeypatch.setattr(installation, "mpi_of_horovod", lambda: "/venv/lib/libmpi.so.40")
        monkeypatch.setattr(
            installation, "mpirun", lambda: "mpirun (Open MPI) 5.0.11, /venv/bin/mpirun" if mpirun else None
        )
        monkeypatch.setattr(
            diagnosis, "find_program", lambda program: f"/bin/{program}" if mpirun or program != "mpirun" else None
        )
        monkeypatch.setattr(diagnosis, "has_address", lambda name: address)
        monkeypatch.setattr(
            diagnosis, "try_way", lambda way: next((says[key] for key in says if key in way.name), None)
        )
        output = io.StringIO()
        healthy = doctor.diagnose(Console(file=output, highlight=False), 2)
        return healthy, output.getvalue()

    return run


def tried(output: str) -> list[str]:
    return [" ".join(line.split()[:2]) for line in output.splitlines() if line.endswith(" s)")]


def test_a_healthy_machine(diagnose):
    healthy, output = diagnose()
    assert healthy
    assert output.startswith("This takes one to several minutes: ")
    assert tried(output) == [
        "one process",
        "horovodrun --mpi",
        "horovodrun --gloo",
        f"mpirun {'--allow-run-as-root' if os.geteuid() == 0 else '--oversubscribe'}",
    ]
    assert output.count("works (0 s)") == 4
    assert "problem" not in output
    assert "note" not in output
    assert "Horovod        0.28.1, MPI yes, Gloo yes, NCCL no\n" in output
    assert "bfloat16       not in hardware; precision: auto means float32\n" in output
    assert "memory         32.0 GiB; no limit; /dev/shm 64 MiB\n" in output
    assert "\x1b" not in output  # no colours in a file


def test_each_failing_way_is_a_problem_with_its_command(diagnose):
    healthy, output = diagnose(gloo="error: [Errno 111] refused")
    assert not healthy
    assert output.count("works (0 s)") == 3
    assert "problem  horovodrun --gloo -np 2: error: [Errno 111] refused\n" in output
    assert (
        f"/bin/horovodrun --gloo --network-interfaces lo -np 2 {sys.executable} -m tfinpaint.canary --ranks 2\n"
        in output
    )


def test_without_horovod_one_process_is_enough(diagnose):
    healthy, output = diagnose(
        Imported(gpus=0, error="ModuleNotFoundError: No module named 'horovod'"), without="horovod"
    )
    assert healthy
    assert tried(output) == ["one process"]
    assert "Horovod        missing\n" in output
    assert (
        "note     Horovod is not installed: there is one rank only.\n         To build it, run scripts/setup.\n"
        in output
    )


def test_without_tensorflow_nothing_is_tried(diagnose):
    healthy, output = diagnose(Imported(error="ModuleNotFoundError"), without="tensorflow")
    assert not healthy
    assert tried(output) == []
    assert "problem  TensorFlow is not installed.\n" in output


def test_libraries_that_cannot_be_imported_are_told_apart(diagnose):
    healthy, output = diagnose(Imported(error="Illegal instruction"))
    assert not healthy
    assert "problem  TensorFlow cannot be imported: Illegal instruction\n" in output
    healthy, output = diagnose(Imported(gpus=0, error="ImportError: undefined symbol"))
    assert not healthy
    assert "problem  Horovod cannot be imported: ImportError: undefined symbol\n" in output
    assert tried(output) == ["one process"]


def test_horovod_with_mpi_wants_an_mpirun(diagnose):
    healthy, output = diagnose(mpirun=False)
    assert not healthy
    assert tried(output) == ["one process", "horovodrun --gloo"]
    assert "there is no mpirun on the PATH" in output


def test_gloo_wants_the_machines_own_name_to_resolve(diagnose, monkeypatch):
    monkeypatch.setattr(diagnosis.platform, "node", lambda: "e5d901840d35")
    healthy, output = diagnose(address=False)
    assert not healthy
    assert "         Add it to /etc/hosts: 127.0.0.1 e5d901840d35\n" in output
    healthy, _ = diagnose(Imported(gpus=0, parts={"MPI": True, "Gloo": False, "NCCL": False}), address=False)
    assert healthy


@pytest.mark.parametrize(("name", "found"), [("localhost", True), ("127.0.0.1", True), ("no..such..name", False)])
def test_a_host_name_has_an_address_or_not(name, found):
    assert has_address(name) is found


def test_only_what_horovod_was_built_for_is_tried(diagnose):
    healthy, output = diagnose(Imported(gpus=0, parts={"MPI": False, "Gloo": True, "NCCL": False}))
    assert healthy
    assert tried(output) == ["one process", "horovodrun --gloo"]


def test_under_a_launcher_no_ranks_are_started(diagnose, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    healthy, output = diagnose()
    assert healthy
    assert tried(output) == []
    assert "launcher       OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=4\n" in output
    assert "not tried, because a launcher started this process" in output


def test_what_makes_training_slow_is_a_note(diagnose):
    gpus = (Gpu("NVIDIA H100", 81559, 9.0),) * 2
    healthy, output = diagnose(here=changed(HERE, gpus=gpus))
    assert healthy
    assert "note     TensorFlow does not see the GPUs.\n" in output
    assert "note     Horovod was built without NCCL" in output
    assert "GPUs           NVIDIA H100, 80 GiB, compute capability 9.0; NVIDIA H100, 80 GiB" in output


@pytest.mark.parametrize(
    ("changes", "ranks"),
    [
        ({}, 8),
        ({"core_limit": 2.5}, 2),
        ({"allowed_cores": 3}, 3),
        ({"memory_limit": 11 * GIB}, 3),
        ({"memory": GIB}, 1),
        ({"gpus": (Gpu("a", 1, 8.0),) * 4}, 4),
    ],
)
def test_ranks_need_a_core_and_memory_or_a_gpu(changes, ranks):
    assert sensible_ranks(changed(HERE, **changes)) == ranks


def test_a_way_that_fails_or_hangs_is_told_in_a_line(monkeypatch):
    def way(code: str) -> Way:
        return Way("way", (sys.executable, "-c", code))

    assert try_way(way("print('error: but all is well')")) is None
    assert try_way(way("import sys; sys.exit('rank 1: error: gone')")) == "rank 1: error: gone"
    assert try_way(Way("way", ("/no/such/launcher",))) == "cannot be started: No such file or directory"
    monkeypatch.setattr(diagnosis, "CHECK_SECONDS", 0.2)
    assert try_way(way("import time; time.sleep(600)")) == "not finished after 0.2 s, ended"


@pytest.mark.parametrize(("healthy", "code"), [(True, 0), (False, 1)])
def test_exit_code(monkeypatch, healthy, code):
    monkeypatch.setattr(doctor, "diagnose", lambda console, ranks: healthy)
    assert doctor.main([]) == code


def test_one_rank_is_refused(capsys):
    assert doctor.main(["--ranks", "1"]) == 2
    assert "error: --ranks 1: expected 2 or more" in capsys.readouterr().err


def hidden(*packages: str) -> str:
    """Code that runs the doctor where these packages are missing, in its children too."""
    return (
        "import importlib.metadata as m, sys; from tfinpaint import doctor; from tfinpaint.system import installation; version = m.version\n"
        f"gone = {packages!r}\n"
        "def hide(name):\n"
        "    if name.split('-')[0] in gone: raise m.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "m.version = hide\n"
        "installation._IMPORTS = f'import sys; sys.modules.update(dict.fromkeys({gone!r}))' + installation._IMPORTS\n"
        "sys.exit(doctor.main([]))"
    )


@pytest.mark.stress
def test_a_python_without_horovod():
    done = subprocess.run(
        [sys.executable, "-c", hidden("horovod")], capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert tried(done.stdout) == ["one process"]
    assert "Horovod        missing\n" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_python_without_tensorflow():
    done = subprocess.run(
        [sys.executable, "-c", hidden("tensorflow", "horovod")], capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "problem  TensorFlow is not installed.\n" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parallel
@pytest.mark.stress
def test_the_real_thing_works_under_every_launcher():
    done = subprocess.run(
        [sys.executable, "-m", "tfinpaint.doctor"], capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(tried(done.stdout)) == 4
    assert done.stdout.count(" works (") == 4
    assert re.search(r"^Horovod's MPI  /.*/libmpi\.so", done.stdout, re.MULTILINE)
