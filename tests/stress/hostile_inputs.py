"""Give every command what a stranger could send: archives, images, configurations, networks, checkpoints, records.

Each input goes to the command that it belongs to, in a process of its own, beside the same command on good input. It
must be refused (or, one bad image among good ones, left out) in words that name the file; nothing may be run or written
elsewhere, and no more than 1.3 times the memory be taken.

usage: python tests/stress/hostile_inputs.py FOLDER [--only WORD ...]    prints a table; ends with 1 where one gets through
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from good_inputs import NORMAL, Arguments, Good, Make, write_good
from hostile_archives import ARCHIVES, LEFT_OUT
from hostile_checkpoints import RESUMED, resumed
from hostile_configurations import CONFIGS, NETWORKS, configuration, network_file
from hostile_images import IMAGES, endless, image_for_predict, image_for_prepare, pipe, pipe_for
from hostile_keras_files import KERAS_FILES, LEGACY
from hostile_records import RECORDS
from hostile_weights import CHECKPOINTS, flipped, raw_weights

MEMORY_FACTOR = 1.3
TIMEOUT_SECONDS = 120
PROCESSES = 2


@dataclass(frozen=True)
class Case:
    """An input.

    Attributes:
        command: of tfinpaint.
        named: what the message must name.
        ends: exit codes that are right; 0 where the rest of the input is used.
        normal: which good run its memory is compared with.
    """

    name: str
    command: str
    normal: str
    make: Make
    named: str
    ends: tuple[int, ...] = (2,)


@dataclass
class Result:
    name: str
    command: str
    code: int
    peak_mb: float
    text: str
    problems: list[str] = field(default_factory=list)

    def message(self, named: str) -> str:
        lines = [line for line in self.text.splitlines() if line.startswith("error:") or named in line]
        return lines[0] if lines else (self.text.splitlines() or [""])[-1]


def cases() -> Iterator[Case]:
    for name, make in ARCHIVES.items():
        yield Case(f"archive: {name}", "prepare", "prepare", make, "x.zip")
    for name, make in LEFT_OUT.items():
        yield Case(f"archive: {name}", "prepare", "prepare", make, "x.png", (0,))
    yield Case("folder: pipe", "prepare", "prepare", pipe, "x.png", (0,))
    for command in ("preview", "pretrain", "classify"):
        yield Case(f"images: pipe, {command}", command, command, pipe_for(command), "a/0.png")
    yield Case("folder: endless device", "prepare", "prepare", endless, "x.png", (0,))
    for name, contents in IMAGES.items():
        yield Case(f"image: {name}", "prepare", "prepare", image_for_prepare(contents), "x.png", (0,))
        yield Case(f"photo: {name}", "predict", "predict", image_for_predict(contents), "x.png")
    for name, text in CONFIGS.items():
        yield Case(f"configuration: {name}", "preview", "preview", configuration(text), "x.yaml")
    for name, document in NETWORKS.items():
        yield Case(f"network: {name}", "pretrain", "pretrain", network_file(document), "x.json")
    for name, make in CHECKPOINTS.items():
        yield Case(f"checkpoint: {name}", "predict", "predict", make, "x.")
    for seed in range(4):  # what is hit may be a weight, which no one can tell
        yield Case(f"checkpoint: bits flipped, {seed}", "predict", "predict", raw_weights(flipped(seed)), "", (0, 2))
    for name, make in LEGACY.items():
        yield Case(f"Keras 2 weights: {name}", "classify", "classify", make, "x.h5")
    for name, (make, ends) in KERAS_FILES.items():
        yield Case(f"Keras file: {name}", "classify", "classify", make, "x.keras", (ends,))
    for name, (file, write) in RESUMED.items():
        yield Case(f"resumed: {name}", "pretrain", "pretrain", resumed(file, write), file)
    for name, (make, named) in RECORDS.items():
        yield Case(f"records: {name}", "prepare", "verify", make, named)


def start(good: Good, command: str, arguments: Arguments, out: Path) -> int:
    """Run a command in a process of its own, which has all modules loaded already. Returns its number."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(TIMEOUT_SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (2**35, 2**35))
        with (out / ".text").open("w") as text:
            os.dup2(text.fileno(), 1)
            os.dup2(text.fileno(), 2)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        os.chdir(out)
        os.environ["XDG_CACHE_HOME"] = str(out / ".cache")
        os.environ["PATH"] = f"{good.root / 'bin'}:{os.environ['PATH']}"
        code = importlib.import_module(f"tfinpaint.{command}").main([str(each) for each in arguments])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(pid: int, name: str, command: str, out: Path) -> Result:
    _, status, usage = os.wait4(pid, 0)
    text = (out / ".text").read_text(errors="replace")
    return Result(name, command, os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024, text)


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file but those in folders that commands may write to."""
    found = {}
    for folder, subfolders, files in os.walk(root):
        if Path(folder) == root / "out":
            subfolders.clear()
            continue
        for file in files:
            status = (Path(folder) / file).lstat()
            found[str(Path(folder, file).relative_to(root))] = (status.st_size, status.st_mtime_ns)
    return found


def judge(result: Result, case: Case, normal: Result, good: Good) -> None:
    if result.code not in case.ends:
        result.problems.append(f"ended with {result.code}")
    if "Traceback" in result.text:
        result.problems.append("traceback")
    if case.named not in result.text or not result.text.strip():
        result.problems.append(f"does not name {case.named}")
    if result.peak_mb > MEMORY_FACTOR * normal.peak_mb:
        result.problems.append(f"{result.peak_mb / normal.peak_mb:.1f} times the memory")
    for canary in good.canaries.iterdir():
        result.problems.append(f"code was run: {canary.name}")
        canary.unlink()  # it counts once, with two processes perhaps for the one beside


def run(root: Path, words: Sequence[str]) -> tuple[dict[str, Result], list[tuple[Case, Result]], list[str]]:
    """(good runs, every case with its result, files that were written where nothing may be written)."""
    for command in ("prepare", "predict", "pretrain", "classify", "preview"):
        importlib.import_module(f"tfinpaint.{command}")
    importlib.import_module("tensorflow")
    for module in (
        "data.ingest.copy",
        "data.records.writer",
        "runs.session",
        "runs.predictions",
        "runs.pictures",
        "report.html",
    ):
        importlib.import_module(f"tfinpaint.{module}")
    root.mkdir(parents=True)
    good = write_good(root / "good")
    normal: dict[str, Result] = {}
    chosen = [case for case in cases() if any(word in case.name for word in words)]
    needed = {case.normal for case in chosen}
    if needed & {"predict", "classify", "verify"}:  # they read the checkpoint and the records of the other good runs
        needed = NORMAL.keys()
    for name in [name for name in NORMAL if name in needed]:
        command, make = NORMAL[name]
        out = root / "out" / f"good {name}"
        out.mkdir(parents=True)
        normal[name] = finish(start(good, command, make(good, out, out), out), name, command, out)
        if normal[name].code:
            raise SystemExit(f"{name} on good input ended with {normal[name].code}: {normal[name].text}")
    arguments, folders = {}, {}
    for number, case in enumerate(chosen):
        folder, folders[case] = root / "in" / f"{number:03}", root / "out" / f"{number:03}"
        folder.mkdir(parents=True)
        folders[case].mkdir()
        arguments[case] = case.make(good, folder, folders[case])
    before = snapshot(root)
    results, running = [], []
    for case in chosen:
        running.append((case, start(good, case.command, arguments[case], folders[case])))
        if len(running) == PROCESSES:
            results.append(end(running.pop(0), folders, normal, good))
    results += [end(each, folders, normal, good) for each in running]
    after = snapshot(root)
    return normal, results, sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def end(
    running: tuple[Case, int], folders: dict[Case, Path], normal: dict[str, Result], good: Good
) -> tuple[Case, Result]:
    case, pid = running
    result = finish(pid, case.name, case.command, folders[case])
    judge(result, case, normal[case.normal], good)
    return case, result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the inputs are made; must not exist")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="inputs whose name has one of these in it"
    )
    parsed = parser.parse_args()
    normal, results, written = run(parsed.folder.resolve(), parsed.only)
    for name, good in normal.items():
        print(f"{'        good input: ' + name:54} {good.command:9} {good.code:3} {good.peak_mb:6.0f} MB")
    for case, result in results:
        times = result.peak_mb / normal[case.normal].peak_mb
        verdict = f"FAILED  ({'; '.join(result.problems)}) " if result.problems else "ok      "
        print(
            f"{verdict}{case.name:46} {case.command:9} {result.code:3} {result.peak_mb:6.0f} MB {times:5.2f}  "
            f"{ascii(result.message(case.named))[1:160]}"
        )
    failed = [result for _, result in results if result.problems]
    elsewhere = ", ".join(written) or "nothing"
    print(f"{len(results)} inputs, {len(failed)} not as they should be; written elsewhere: {elsewhere}")
    return 1 if failed or written else 0


if __name__ == "__main__":
    sys.exit(main())
