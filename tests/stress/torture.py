"""Kill training again and again, at random moments, and see what it comes to.

Pretraining and classification run with deterministic operations, once undisturbed and once killed (SIGKILL) and resumed
as often as asked: a third of the kills come while a checkpoint is being written, the others at any moment, start-up and
evaluation included. At the end every byte of the weights, of the optimizer's state and of the metrics must be the same.

usage: python tests/stress/torture.py --kills 200
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import numpy as np
import yaml
from PIL import Image

# What a command would import first, so that each child begins where its work begins. No operation runs in this process:
# TensorFlow's threads would not come along.
import tfinpaint.runs.classification
import tfinpaint.runs.pretraining  # noqa: F401
from tfinpaint.checkpoint import find
from tfinpaint.classify import main as classify
from tfinpaint.layout import HEADER, MODEL_WEIGHTS, OPTIMIZER_STATE
from tfinpaint.pretrain import main as pretrain
from tfinpaint.runs.progress import RunProgress
from tfinpaint.storage import atomic
from tfinpaint.storage.atomic import find_damage

COMMANDS = {"pretrain": pretrain, "classify": classify}
INTERVAL_STEPS = 4
NUM_EPOCHS = 10
STEP_SECONDS = 0.05  # that each step takes at least: most kills are to meet training, not the start of the process
TIMES = ("seconds", "images_per_second")  # in the metrics: no two runs have the same
PATIENCE_SECONDS = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of all commands together (default 200)")
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, help="keep everything there (default: a temporary folder)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        reports = [
            torture(task, folder / task, options.kills // len(options.commands), random.Random(options.seed))  # noqa: S311
            for task in options.commands
        ]
    for report in reports:
        print(report)
    return 0 if all(report.holds for report in reports) else 1


@dataclass
class Report:
    """What one command has come to.

    Attributes:
        kills, in_saves, runs: of them, those that met a checkpoint being written, and runs from start to end.
        lost: steps done again after each kill that met no checkpoint being written.
        lost_in_saves: the same, where a checkpoint was being written.
        unrecoverable: what kept the run from going on.
        unequal: what differed at an end.
    """

    task: str
    kills: int = 0
    in_saves: int = 0
    runs: int = 0
    lost: list[int] = field(default_factory=list)
    lost_in_saves: list[int] = field(default_factory=list)
    unrecoverable: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Nothing is lost but steps, and of these no more than is promised."""
        few = max(self.lost, default=0) <= INTERVAL_STEPS
        # The checkpoint before the one that was being written is an interval older.
        few &= max(self.lost_in_saves, default=0) <= 2 * INTERVAL_STEPS
        return few and self.runs > 0 and not self.unrecoverable and not self.unequal

    def __str__(self) -> str:
        lines = [
            f"{self.task}: {self.kills} kills, {self.in_saves} of them while a checkpoint was being written; "
            f"{self.runs} runs to their end",
            f"  steps lost, one checkpoint every {INTERVAL_STEPS}: at most {max(self.lost, default=0)}; "
            f"while one was being written {max(self.lost_in_saves, default=0)}",
            f"  unrecoverable: {len(self.unrecoverable)}  {'; '.join(self.unrecoverable[:3])}",
            f"  runs that differ from the undisturbed one: {len(self.unequal)}  {'; '.join(self.unequal[:3])}",
        ]
        return "\n".join(lines)


def torture(task: str, folder: Path, kills: int, moments: random.Random) -> Report:
    """Kill a command this often; run after run is resumed to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    config = write_config(task, folder)
    arguments = ["--config", str(config)]
    undisturbed = folder / "undisturbed"
    shutil.rmtree(undisturbed, ignore_errors=True)
    began = time.monotonic()
    child = Child(task, [*arguments, "--workdir", str(undisturbed)], folder / "undisturbed.log")
    if child.wait() != 0:
        raise SystemExit(f"{task} fails undisturbed: see {folder / 'undisturbed.log'}")
    duration = time.monotonic() - began
    wanted = fingerprints(undisturbed)
    report = Report(task)
    while report.kills < kills or not report.runs:
        number = report.runs + 1
        run = folder / f"run_{number}"
        shutil.rmtree(run, ignore_errors=True)
        if not to_the_end(report, run, arguments, kills, duration, moments):
            return report
        report.runs += 1
        found = fingerprints(run)
        report.unequal += [f"run {number}: {name}" for name in wanted if found.get(name) != wanted[name]]
        print(f"  {task}: {report.kills} of {kills} kills, {report.runs} runs to their end", flush=True)
    return report


def to_the_end(
    report: Report, run: Path, arguments: Sequence[str], kills: int, duration: float, moments: random.Random
) -> bool:
    """Start, kill and resume one run until it ends; False where it cannot be resumed."""
    arguments = [*arguments, "--workdir", str(run), "--resume"]
    while True:
        leftovers = being_written(run)
        child = Child(report.task, arguments, run.with_suffix(".log"))
        if report.kills < kills:
            # Less than half a run from its start, and perhaps until something is being written.
            delay = moments.uniform(0, 0.45 * duration)
            saving = moments.random() < 1 / 3
            child.let_live(delay, (lambda known=leftovers: being_written(run) - known) if saving else None)
            if child.kill():
                report.kills += 1
                note_loss(report, run, child.steps(), bool(being_written(run) - leftovers))
                continue
        code = child.wait()
        if code != 0:
            report.unrecoverable.append(f"exit code {code} after {report.kills} kills, see {run.with_suffix('.log')}")
        return code == 0


def being_written(run: Path) -> set[tuple[int, int]]:
    """The folders that are not whole, by inode and by when they last changed: inodes are used again."""
    found = set()
    for path in (run / "model_checkpoints").glob(f".model_checkpoint_*{atomic.WRITING}"):
        with contextlib.suppress(FileNotFoundError):
            found.add((path.stat().st_ino, path.stat().st_mtime_ns))
    return found


def note_loss(report: Report, run: Path, steps: int, interrupted: bool) -> None:
    """How many of the steps that the killed process had reached are not in the newest checkpoint."""
    report.in_saves += interrupted
    found = find.list_checkpoints(run / "model_checkpoints")
    if damaged := [f"{path.name}: {reason}" for path in found if (reason := find_damage(path))]:
        report.unrecoverable += damaged
    kept = json.loads((found[-1] / HEADER).read_text())["step"] if found else 0
    (report.lost_in_saves if interrupted else report.lost).append(max(0, steps - kept))


class Child:
    """A command in a process of its own, forked so that its imports are done."""

    def __init__(self, task: str, arguments: Sequence[str], log: Path) -> None:
        self._shared = mmap.mmap(-1, 8)  # the steps that the child has done
        self._code: int | None = None
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            self._live(COMMANDS[task], arguments, log)

    def _live(self, command: Callable[[Sequence[str]], int], arguments: Sequence[str], log: Path) -> None:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        counting = RunProgress.step

        def step(progress: RunProgress, epoch: int, read_loss: Callable[[], float]) -> None:
            counting(progress, epoch, read_loss)
            time.sleep(STEP_SECONDS)
            self._shared[:] = struct.pack("q", progress._done)

        RunProgress.step = step
        code = 1
        try:
            code = command(arguments)
        finally:
            sys.stdout.flush()
            logging.shutdown()
            os._exit(code)

    def let_live(self, seconds: float, until: Callable[[], object] | None) -> None:
        """Wait this long, and then for `until`; less where the process ends before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._ended():
            time.sleep(0.01)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while until and not until() and not self._ended() and time.monotonic() < deadline:
            time.sleep(0.0005)

    def kill(self) -> bool:
        """SIGKILL; False where the process had ended by itself."""
        if self._ended():
            return False
        os.kill(self._pid, signal.SIGKILL)
        self.wait()
        return True

    def wait(self) -> int:
        """The exit code; negative: the signal that ended the process."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._code

    def steps(self) -> int:
        """Steps since the start of the run; those before this process were done by others."""
        return struct.unpack("q", self._shared[:])[0]

    def _ended(self) -> bool:
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code is not None


def fingerprints(run: Path) -> dict[str, str]:
    """SHA-256 of every weight and optimizer variable of the newest checkpoint, and of the metrics but for times."""
    newest = find.list_checkpoints(run / "model_checkpoints")[-1]
    found = {"newest": newest.name}
    with h5py.File(newest / MODEL_WEIGHTS) as file:
        file.visititems(lambda name, item: found.update({name: _sha(item[()])}) if hasattr(item, "shape") else None)
    with np.load(newest / OPTIMIZER_STATE, allow_pickle=False) as file:
        found |= {f"optimizer {name}": _sha(file[name]) for name in file.files}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in record.items() if name not in TIMES} for record in records]
    return {**found, "metrics": hashlib.sha256(json.dumps(metrics).encode()).hexdigest()}


def _sha(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def write_config(task: str, folder: Path) -> Path:
    """A small run with everything that could be forgotten: batch norms, dropout, moments, a schedule, random steps."""
    data = folder / "data"
    for name, count in (("training", 40), ("testing", 8)):
        write_images(data / name, count)
    body = [
        {"class_name": "Conv2D", "config": {"filters": 8, "kernel_size": 3, "padding": "same"}},
        {"class_name": "BatchNormalization"},
        {"class_name": "ReLU"},
        {"class_name": "Dropout", "config": {"rate": 0.25}},
    ]
    config = {
        "num_epochs": NUM_EPOCHS,
        "deterministic": True,
        "figures_interval": 100,
        "precision": "float32",
        "checkpoints": {"interval_steps": INTERVAL_STEPS},
        "data": {
            "input_path": str(data / "training"),
            "test_input_path": str(data / "testing"),
            "batch_size": 8,
            "test_batch_size": 8,
            "transforms": [{"resize": [16, 16]}, {"random_horizontal_flip": 0.5}],
        },
        "optimizer": {
            "type": "AdamW",
            "learning_rate": 0.01,
            "weight_decay": 0.01,
            "lr_scheduler": {"type": "Cosine", "warmup_epochs": 1},
        },
        "model": {"batchnorm_batches": 0},  # moving averages: they remember every batch since the start
    }
    if task == "pretrain":
        config["data"] |= {"type": "images"}
        config["data"]["transforms"] += [{"random_patches": {"number": 2, "size": 4}}]
        head = [{"class_name": "Conv2D", "config": {"filters": 3, "kernel_size": 1, "activation": "sigmoid"}}]
    else:
        config["data"] |= {"target_type": "labels"}
        head = [
            {"class_name": "GlobalAveragePooling2D"},
            {"class_name": "Dense", "config": {"units": 2, "activation": "softmax"}},
        ]
    entrance = {"class_name": "InputLayer", "config": {"batch_shape": [None, 16, 16, 3]}}
    config["layers"] = [entrance, *body, *body, *head]
    path = folder / f"{task}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def write_images(folder: Path, count: int) -> None:
    generator = np.random.default_rng(count)
    for kind, colour in (("cold", (40, 90, 200)), ("warm", (220, 120, 30))):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count // 2):
            pixels = np.clip(np.array(colour) + generator.normal(0, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{number:03}.png")


if __name__ == "__main__":
    sys.exit(main())
