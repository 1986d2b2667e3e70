"""Measure what every figure and table costs at sizes that few runs have: 1,000 classes, 10,000 epochs, 100 runs.

Each is made in a process of its own. Memory is the growth of the process's peak over what its imports take.

usage: python scripts/bench/figures.py [NAME...]
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tfinpaint import compare
from tfinpaint.inpainting.metrics import METRICS
from tfinpaint.report import animation, confusion
from tfinpaint.report.comparison import MOST_PICTURE_BYTES
from tfinpaint.report.confusion import draw_confusion, write_confusion_tables
from tfinpaint.report.figures import draw_curve, draw_grid
from tfinpaint.report.html import Section, write_page
from tfinpaint.report.metrics_log import MetricsLog
from tfinpaint.report.verdict import classifier_verdict
from tfinpaint.runs.pictures import shown_baselines

CLASSES, EPOCHS, RUNS, IMAGES, SIDE = 1000, 10_000, 100, 50_000, 2048
GENERATOR = np.random.default_rng(0)


def test_images() -> confusion.Confusion:
    """Fifty thousand images of a thousand classes with long names, a fifth of them wrong."""
    names = [f"{number} of many, $x_{number}$ " + "long " * 38 for number in range(CLASSES)]
    true = GENERATOR.integers(0, CLASSES, IMAGES)
    predicted = np.where(GENERATOR.random(IMAGES) < 0.8, true, GENERATOR.integers(0, CLASSES, IMAGES))
    return confusion.Confusion.of(names, [np.column_stack([true, predicted, np.ones_like(true)])])


def records() -> list[dict]:
    common = {"images_per_second": 1.0, "seconds": 1.0, "world_size": 1}
    return [
        {"phase": phase, "epoch": epoch, "loss": 1 / epoch, **dict.fromkeys(METRICS, 1.0), **common}
        for epoch in range(1, EPOCHS + 1)
        for phase in ("train", "test")
    ]


def photos(count: int, side: int) -> np.ndarray:
    return GENERATOR.random((count, side, side, 3), np.float32)


def confusion_figure(folder: Path) -> None:
    draw_confusion(test_images(), folder / "x.png")


def confusion_tables(folder: Path) -> None:
    counts = test_images()
    write_confusion_tables(counts, folder)
    tables = confusion.pairs_table(counts), confusion.classes_table(counts, confusion.MOST_CLASSES_SHOWN)
    write_page(folder / "report.html", "Classification", [Section("x", table=table) for table in tables])


def curve(folder: Path) -> None:
    draw_curve(records(), "loss", "loss", folder / "x.png", {"mean colour": 0.5})


def metrics_resumed(folder: Path) -> None:
    """What a run pays once that continues after so many epochs: metrics.jsonl and TensorBoard are written again."""
    MetricsLog(folder, folder / "log.txt", enabled=True, first_epoch=EPOCHS, records=records())


def metrics_one_more(folder: Path) -> None:
    """The same, and a hundred further epochs."""
    log = MetricsLog(folder, folder / "log.txt", enabled=True, first_epoch=EPOCHS, records=records())
    for epoch in range(EPOCHS, EPOCHS + 100):
        log.add({**ONE_RECORD, "epoch": epoch})


ONE_RECORD = {"phase": "train", "loss": 1.0, "images_per_second": 1.0, "seconds": 1.0, "world_size": 1}


def restorations(folder: Path) -> None:
    names = ("original", "input", "output", "composite")
    images = photos(6, SIDE)
    draw_grid(dict.fromkeys(names, images), "held-out images", folder / "x.png")


def baselines_beside_them(folder: Path) -> None:
    masks = np.zeros((6, SIDE, SIDE, 1), np.float32)
    masks[:, SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = 1
    shown_baselines(photos(6, SIDE), masks)


def animation_of_all_epochs(folder: Path) -> None:
    frame = np.concatenate([*photos(3, 512)], axis=1)
    for epoch in range(1, animation.MOST_FRAMES + 1):
        animation.add_frame(folder / "frames", epoch, frame)
    animation.write_animation(folder / "frames", folder / "x.gif")


def compare_runs(folder: Path) -> None:
    """A hundred runs of which each has a megabyte of pictures."""
    for number in range(RUNS):
        run = folder / f"run {number} with a long name {'x' * 150}"
        (run / "figures").mkdir(parents=True)
        (run / "figures" / "restorations.png").write_bytes(GENERATOR.bytes(2**20))
        summary = {"test_accuracy": number / RUNS, "label_fraction": number / RUNS, "labels": number, "test_images": 90}
        summary |= {"from_scratch": number % 2 == 0, "epochs": 10}
        (run / "summary.json").write_text(json.dumps(summary))
    compare.main(["--report", str(folder / "report.html"), *map(str, folder.glob("run*"))])
    assert (folder / "report.html").stat().st_size < 2 * MOST_PICTURE_BYTES
    classifier_verdict([])


ALL: tuple[Callable[[Path], None], ...] = (
    confusion_figure,
    confusion_tables,
    curve,
    metrics_resumed,
    metrics_one_more,
    restorations,
    baselines_beside_them,
    animation_of_all_epochs,
    compare_runs,
)


def measure(make: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        before, begin = peak_mb(), time.perf_counter()
        sys.stdout, shown = sys.stderr, sys.stdout
        make(Path(folder))
        seconds = time.perf_counter() - begin
        print(
            f"| {make.__name__.replace('_', ' ')} | {seconds:.1f} | {peak_mb() - before:.0f} |", file=shown, flush=True
        )


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    print("| | seconds | MB |\n|---|---|---|", flush=True)
    for make in ALL:
        if len(sys.argv) == 1 or make.__name__ in sys.argv[1:]:
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(make,))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
