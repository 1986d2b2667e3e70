"""Break one of several ranks on purpose, in every way and phase, and see that all the others end and say why.

usage: python tests/stress/fault_matrix.py [--ranks 2 3] [--launchers mpirun gloo bare] [--faults kill ...] [--phases ...]

Each case is a real run of `tfinpaint.pretrain` (two convolutions, 32 px, two epochs) in which the last rank (with --first,
and for a full disk, the first) breaks in epoch 2. It holds where every surviving rank is gone within the time-out with
an exit code other than 0, and their output names rank and cause. The launcher "bare" starts the ranks itself and ends
none of them, as a batch system may; mpirun and horovodrun --gloo kill what is left of a job that has lost a rank, so
there only their own exit code can be seen. The full disk is a small tmpfs, for which root is needed. Prints a line per
case, then the count.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FAULTS = ("kill", "stop", "exception", "nan", "disk", "hang")
PHASES = {"training": "epoch 2, step 2", "evaluation": "epoch 2, evaluation", "saving": "epoch 2, saving"}
LAUNCHERS = ("mpirun", "gloo", "bare")
HEARTBEAT_TIMEOUT_S, STALL_TIMEOUT_S = 6, 10
START_S = 240  # for imports and tracing, on cores that others may use too
END_S = max(HEARTBEAT_TIMEOUT_S, 2 * STALL_TIMEOUT_S) + 20  # from the fault to the end of the last survivor

SAID = {  # by the survivors; where all end for the same reason, by whoever is first
    "kill": r"stops: rank {rank} \(\S+\) died in epoch 2",
    "stop": r"stops: rank {rank} \(\S+\) has not responded for .* last seen in epoch 2",
    "exception": r"stops: rank {rank} \(\S+\) failed in epoch 2.*: RuntimeError: injected fault",
    "nan": r"(gradients|loss on the images|weights) of rank {rank} .*not finite",
    "hang": r"stops: all ranks wait for rank {rank} \(\S+\), in epoch 2",
    "disk": r"(No space left on device|MiB are free)",
}
# Launchers that end the others at once may leave them no time to speak.
LAUNCHER_SAID = {
    "kill": r"exited on\s+signal 9|exit code = -9|exit code -9|status code -9",
    "exception": "injected fault",
}
DISK_MIB = 160


def inject(fault: str, phase: str, arguments: list[str]) -> int:
    """Run pretrain in this rank, which breaks if it is the one to break."""
    from tfinpaint.distributed import world as dist
    from tfinpaint.distributed.environment import launched_rank
    from tfinpaint.pretrain import main as pretrain
    from tfinpaint.train.trainer import Trainer

    report = Path(os.environ["FAULT_REPORT"])
    broken = launched_rank() == int(os.environ["FAULT_RANK"])
    (report / f"pid.{launched_rank()}").write_text(str(os.getpid()))
    trainers: list[Trainer] = []
    poisoned = False
    said, construct, step, test = dist.World.report_task, Trainer.__init__, Trainer.train_steps, Trainer.evaluate

    def doing(world: dist.World, what: str) -> None:
        nonlocal poisoned
        said(world, what)
        if not broken or PHASES[phase] not in what or (report / "when").exists():
            return
        (report / "when.partial").write_text(repr(time.time()))
        (report / "when.partial").rename(report / "when")
        time.sleep(1.5)  # the others hear where this rank is
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault == "hang":
            time.sleep(3600)
        elif fault == "exception":
            raise RuntimeError("injected fault")
        elif fault == "disk":
            fill(Path(arguments[arguments.index("--workdir") + 1]))
        elif phase == "saving":
            weight = trainers[0].model.trainable_variables[0]
            weight.assign(weight * float("nan"))
        else:
            poisoned = True

    def poison(batches):
        for batch in batches:
            # The targets: nan in inputs alone would end at the first ReLU, whose kernel makes a 0 of it.
            yield {**batch, "targets": batch["targets"] * float("nan")} if poisoned else batch

    def init(self, *args, **kwargs):
        trainers.append(self)
        construct(self, *args, **kwargs)

    dist.World.report_task, Trainer.__init__ = doing, init
    Trainer.train_steps = lambda self, batches, *args, **kwargs: step(self, poison(batches), *args, **kwargs)
    Trainer.evaluate = lambda self, batches, *args, **kwargs: test(self, poison(batches), *args, **kwargs)
    return pretrain(arguments)


def fill(folder: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def make_images(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for side, count in (("training", 24), ("testing", 7)):
        (folder / side).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / side / f"{i}.png")


def configuration(images: Path) -> str:
    """JSON, which is YAML."""
    output = {"filters": 3, "kernel_size": 3, "padding": "same", "activation": "sigmoid"}
    return json.dumps(
        {
            "num_epochs": 2,
            "steps_per_epoch": 3,
            "figures_interval": 1,
            "precision": "float32",
            "layers": [
                {"class_name": "InputLayer", "config": {"batch_shape": [None, 32, 32, 3]}},
                {"class_name": "Conv2D", "config": {"filters": 4, "kernel_size": 3, "padding": "same"}},
                {"class_name": "BatchNormalization"},
                {"class_name": "ReLU"},
                {"class_name": "Conv2D", "config": output},
            ],
            "data": {
                "input_path": str(images / "training"),
                "test_input_path": str(images / "testing"),
                "batch_size": 12,
                "test_batch_size": 6,
                "transforms": [{"resize": [32, 32]}, {"center": {}}],
            },
            "distributed": {"heartbeat_timeout_s": HEARTBEAT_TIMEOUT_S, "stall_timeout_s": STALL_TIMEOUT_S},
        }
    )


class Job:
    """The ranks of one case, started in one of three ways."""

    def __init__(self, launcher: str, ranks: int, broken: int, command: list[str], report: Path) -> None:
        self.output = (report / "output").open("w+")
        environment = os.environ | {
            "FAULT_REPORT": str(report),
            "FAULT_RANK": str(broken),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        prefixes = {
            "mpirun": ["mpirun", "--oversubscribe", "--mca", "btl_tcp_if_include", "lo", "-np", str(ranks)],
            "gloo": ["horovodrun", "--gloo", "--network-interfaces", "lo", "-np", str(ranks)],
        }
        if launcher == "bare":
            places = self._rendezvous(ranks)
            self.processes = [self._start(command, environment | place) for place in places]
        else:
            self.processes = [self._start([*prefixes[launcher], *command], environment)]

    def _start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen:
        return subprocess.Popen(
            command, env=environment, stdout=self.output, stderr=self.output, start_new_session=True
        )

    def _rendezvous(self, ranks: int) -> list[dict[str, str]]:
        """What Horovod's Gloo launcher tells each rank; the server lives in this process."""
        from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
        from horovod.runner.gloo_run import create_slot_env_vars
        from horovod.runner.http.http_server import RendezvousServer

        plan = get_host_assignments(parse_hosts(f"localhost:{ranks}"), ranks)
        self.server = RendezvousServer(0)
        port = self.server.start()
        self.server.init(plan)
        common = {
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_GLOO_IFACE": "lo",
        }
        return [common | create_slot_env_vars(slot) for slot in plan]

    def wait(self, report: Path, broken: int, ranks: int) -> list[str]:
        """What is wrong about how it ended, after the fault; nothing is left running."""
        wrong = []
        if not _within(START_S, lambda: (report / "when").exists() or self._ended()):
            wrong.append("never got to the fault")
        elif not (report / "when").exists():
            wrong.append("ended before the fault")
        elif not _within(END_S, lambda: self._ended(but=broken)):
            wrong.append(f"survivors still run after {END_S} s")
        codes = [process.poll() for process in self.processes]
        survivors = [code for rank, code in enumerate(codes) if len(codes) == 1 or rank != broken]
        if any(code == 0 for code in survivors):
            wrong.append(f"exit codes {codes}")
        for rank in range(ranks):
            if not (report / f"pid.{rank}").exists():
                continue
            pid = int((report / f"pid.{rank}").read_text())
            if rank != broken and not _within(2, lambda pid=pid: not _runs(pid)):
                wrong.append(f"rank {rank} was left running")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        return wrong

    def _ended(self, but: int | None = None) -> bool:
        several = len(self.processes) > 1
        return all(p.poll() is not None for rank, p in enumerate(self.processes) if not several or rank != but)


def _runs(pid: int) -> bool:
    """True for a process that has not ended; one that waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _within(seconds: float, condition) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@contextlib.contextmanager
def small_disk(folder: Path):
    """A folder on a disk of its own, of a few MiB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run_case(
    launcher: str, ranks: int, fault: str, phase: str, folder: Path, images: Path, *, first: bool = False
) -> tuple[list[str], str, float]:
    """(what is wrong, the output, seconds from the fault to the end)."""
    report = folder / "report"
    report.mkdir(parents=True)
    (folder / "config.yaml").write_text(configuration(images))
    broken = 0 if first or fault == "disk" else ranks - 1
    with small_disk(folder / "run") if fault == "disk" else contextlib.nullcontext(folder / "run") as workdir:
        arguments = ["--config", str(folder / "config.yaml"), "--workdir", str(workdir)]
        command = [sys.executable, str(Path(__file__).resolve()), "--inject", fault, phase, *arguments]
        job = Job(launcher, ranks, broken, command, report)
        wrong = job.wait(report, broken, ranks)
        seconds = time.time() - float((report / "when").read_text()) if (report / "when").exists() else float("nan")
    output = (report / "output").read_text(errors="replace")
    said = SAID[fault].format(rank=broken)
    if launcher != "bare" and fault in LAUNCHER_SAID:
        said = f"{said}|{LAUNCHER_SAID[fault]}"
    if not re.search(said, output):
        wrong.append("the output does not name the cause")
    return wrong, output, seconds


def main() -> int:
    if sys.argv[1:2] == ["--inject"]:
        return inject(sys.argv[2], sys.argv[3], sys.argv[4:])
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--ranks", type=int, nargs="+", default=[2, 3])
    cli.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=LAUNCHERS)
    cli.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    cli.add_argument("--first", action="store_true", help="rank 0 breaks")
    cli.add_argument("--phases", nargs="+", choices=list(PHASES), default=list(PHASES))
    args = cli.parse_args()
    held = count = 0
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images"
        make_images(images)
        cases = itertools.product(args.launchers, args.ranks, args.faults, args.phases)
        for count, case in enumerate(cases, 1):
            launcher, ranks, fault, phase = case
            wrong, output, seconds = run_case(*case, Path(name) / str(count), images, first=args.first)
            held += not wrong
            verdict = "ok" if not wrong else "; ".join(wrong)
            print(f"{launcher:7} {ranks} ranks  {fault:9} in {phase:10} {seconds:5.1f} s  {verdict}", flush=True)
            if wrong:
                print(output[-4000:], flush=True)
    print(f"{held} of {count} cases hold")
    return int(held != count)


if __name__ == "__main__":
    sys.exit(main())
