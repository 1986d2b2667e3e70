"""How far a run is: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tfinpaint import dist, measurements
from tfinpaint.data.progress import duration
from tfinpaint.train.loop import ReadLoss, Result

PLAIN_INTERVAL_SECONDS = 15.0
BAR_INTERVAL_SECONDS = 0.5  # reading the loss waits for the device: not at every step


class RunProgress:
    """Shows the steps of a run, the loss and the time left. Silent where `enabled` is false.

    Attributes:
        first_step, num_epochs, steps_per_epoch: the run's extent; `first_step` steps were done before.
    """

    def __init__(self, *, enabled: bool, first_step: int, num_epochs: int, steps_per_epoch: int) -> None:
        self._enabled = enabled
        self._num_epochs, self._steps = num_epochs, steps_per_epoch
        self._before = first_step
        self._total = max(0, num_epochs * steps_per_epoch - first_step)
        self._done = 0
        self._begin = self._printed = time.monotonic()
        self._bar: Progress | None = None
        # mpirun gives rank 0 a pseudo-terminal and then prefixes every line: no place for a bar.
        if enabled and sys.stdout.isatty() and not dist.launched():
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            )
            self._task = self._bar.add_task("starting", total=self._total)
            self._bar.start()

    def step(self, epoch: int, read_loss: ReadLoss) -> None:
        if not self._enabled:
            return
        self._done += 1
        now = time.monotonic()
        if self._bar:
            self._bar.advance(self._task)
            if now - self._printed > BAR_INTERVAL_SECONDS:
                self._printed = now
                text = f"epoch {epoch}/{self._num_epochs} loss {read_loss():.4f}"
                self._bar.update(self._task, description=text)
        elif now - self._printed > PLAIN_INTERVAL_SECONDS:
            step = (self._before + self._done - 1) % self._steps + 1
            place = f"epoch {epoch}/{self._num_epochs} step {step}/{self._steps}"
            self._print(f"  {place}  loss {read_loss():.4f}{self._left()}")

    def epoch_end(self, epoch: int, train: Result, test: Result | None) -> None:
        if not self._enabled:
            return
        parts = [f"epoch {epoch}/{self._num_epochs}", *_figures("", train)]
        if test:
            parts += _figures("test ", test)
        parts.append(f"{train.images_per_second:.1f} images/s{self._left()}")
        self._print("  ".join(parts))

    def close(self) -> None:
        if self._bar:
            self._bar.stop()

    def _left(self) -> str:
        if not self._done or self._done >= self._total:
            return ""
        seconds = (time.monotonic() - self._begin) / self._done * (self._total - self._done)
        return f"  {duration(seconds)} left"

    def _print(self, line: str) -> None:
        self._printed = time.monotonic()
        if self._bar:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, flush=True)


def _figures(prefix: str, result: Result) -> list[str]:
    """All but the many measurements, of which one is enough to follow a run by."""
    hidden = set(measurements.NAMES) - {measurements.HEADLINE}
    return [f"{prefix}{name} {value:.4f}" for name, value in result.values.items() if name not in hidden]
