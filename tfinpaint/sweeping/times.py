"""How long a sweep will take: from the runs that are done, or from a few steps that are run to measure it."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfinpaint.layout import METRICS_LOG, SWEEP_TIMES
from tfinpaint.storage.atomic import write_json
from tfinpaint.storage.safe_json import read_json

MEASURED_STEPS = 4  # in each of two epochs, the second of which is timed


@dataclass(frozen=True)
class Speed:
    """What the duration of a job depends on.

    Attributes:
        start: seconds before and after its work.
        image: seconds for each image of training.
    """

    start: float
    image: float

    def seconds(self, works: Sequence[float]) -> float:
        """Return the seconds that jobs take one after another, for the work of each."""
        return sum(self.start + work * self.image for work in works)


def add_time(folder: Path, work: float, seconds: float, metrics: Path) -> None:
    """Note the duration of a finished training in the folder of a sweep, unless a part of it ran before.

    Args:
        work: images of its steps and evaluations.
        metrics: the records of its epochs.
    """
    within = sum(json.loads(line)["seconds"] for line in metrics.read_text("utf-8").splitlines())
    if within <= seconds:
        write_json(folder / SWEEP_TIMES, [*_read_times(folder), [work, seconds, within]])


def _read_times(folder: Path) -> list[list[float]]:
    """Return work, seconds, and seconds within epochs of each finished training."""
    found = read_json(folder / SWEEP_TIMES)
    try:
        return [[float(work), float(seconds), float(within)] for work, seconds, within in found]
    except (ValueError, TypeError):
        return []


def known_speed(folder: Path) -> Speed | None:
    """Return the median speed of the finished trainings of a sweep; None where none has finished."""
    if not (times := _read_times(folder)):
        return None
    starts = [seconds - within for _, seconds, within in times]
    return Speed(statistics.median(starts), statistics.median(within / work for work, _, within in times))


def measure_speed(run: Callable[[Path], None]) -> Speed:
    """Return the speed of a training of a few steps.

    Args:
        run: trains two epochs of MEASURED_STEPS steps in the run folder that it is given.
    """
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        run(Path(folder) / "run")
        seconds = time.monotonic() - began
        text = (Path(folder) / "run" / METRICS_LOG).read_text("utf-8")
    records = [json.loads(line) for line in text.splitlines()]
    return Speed(
        max(0.0, seconds - records[-1]["seconds"]), 1 / records[-1]["images_per_second"]
    )  # the first epoch traces and compiles what every training does
