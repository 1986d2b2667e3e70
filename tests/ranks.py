"""Start commands on several ranks: one launch for each command, or a session that runs many commands in one launch."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np

from tfinpaint.checkpoint.find import list_checkpoints

BIN = Path(sys.executable).parent
TIMEOUT_SECONDS = 240
LAUNCHERS = {
    "mpi": ["horovodrun", "--mpi", "--network-interfaces", "lo", "-np"],
    "gloo": ["horovodrun", "--gloo", "--network-interfaces", "lo", "-np"],
    "mpirun": ["mpirun", "--oversubscribe", "--mca", "btl_tcp_if_include", "lo", "-np"],
}
SESSION = Path(__file__).parent / "parallel" / "session.py"


def environment() -> dict[str, str]:
    """Return this process's variables, in which ranks find the launchers and this package, and root may use Open MPI."""
    return os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def start(
    python: list[str | Path], *, launcher: str = "mpirun", ranks: int = 2, **options: object
) -> subprocess.Popen[str]:
    """Start Python with these arguments on several ranks."""
    command = [*LAUNCHERS[launcher], str(ranks), sys.executable, *map(str, python)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()}
    return subprocess.Popen(command, **pipes | options)


def launch_python(*python: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments on several ranks; a hang fails by the time-out."""
    with start(list(python), **options) as started:
        try:
            output, errors = started.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            started.terminate()
            raise
    return subprocess.CompletedProcess(started.args, started.returncode, output, errors)


def launch(command: str, *arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m tfinpaint.<command>` on several ranks."""
    return launch_python("-m", f"tfinpaint.{command}", *arguments, **options)


def alone(command: str, *arguments: str | Path) -> None:
    """Run a command on one rank, in this process."""
    assert importlib.import_module(f"tfinpaint.{command}").main([*map(str, arguments)]) == 0


class Session:
    """Two ranks that a launcher has started once, and which run one command after another."""

    def __init__(self, launcher: str, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self._log = (folder / "log").open("w+")
        self._ranks = start([SESSION, folder], launcher=launcher, stdout=self._log, stderr=subprocess.STDOUT)

    def run(self, module: str, *arguments: str | Path) -> str:
        """Run the `main` of a module on both ranks, which must return 0.

        Args:
            module: one that Python imports, such as `tfinpaint.pretrain`.

        Returns:
            What rank 0 has written to its standard output.
        """
        request = {"module": module, "arguments": [*map(str, arguments)]}
        answers = self._folder / f"{self._number}.0.json", self._folder / f"{self._number}.1.json"
        self._send(request)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not all(path.exists() for path in answers) and time.monotonic() < deadline:
            assert self._ranks.poll() is None, self._written()
            time.sleep(0.02)
        assert all(path.exists() for path in answers), f"no answer within {TIMEOUT_SECONDS} s: {self._written()}"
        first, second = (SimpleNamespace(**json.loads(path.read_text())) for path in answers)
        assert (first.code, second.code) == (0, 0), (first, second)
        return first.output

    def succeed(self, command: str, *arguments: str | Path) -> str:
        """Run a command of tfinpaint as `run` does."""
        return self.run(f"tfinpaint.{command}", *arguments)

    def close(self) -> None:
        """End both ranks; they must have had no failure."""
        self._send(None)
        code = self._ranks.wait(TIMEOUT_SECONDS)
        assert code == 0, self._written()
        self._log.close()

    def _send(self, request: object) -> None:
        partial = self._folder / "partial"
        partial.write_text(json.dumps(request))
        partial.rename(self._folder / f"{self._number}.json")
        self._number += 1

    def _written(self) -> str:
        self._log.seek(0)
        return self._log.read()


def weights(run: Path, model: str = "model") -> dict[str, np.ndarray]:
    """Return all weights in the newest checkpoint of a run, by their paths in the file."""
    found = {}
    with h5py.File(list_checkpoints(run / "model_checkpoints")[-1] / f"{model}.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def largest_relative_difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """Return the largest difference over all tensors, each divided by the largest magnitude of its tensor."""
    assert ours.keys() == theirs.keys()
    return max(np.abs(ours[n] - theirs[n]).max() / max(np.abs(theirs[n]).max(), 1e-12) for n in ours)
