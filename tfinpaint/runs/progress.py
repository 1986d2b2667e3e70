"""Show how far a run is: a progress bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tfinpaint.distributed.environment import was_launched
from tfinpaint.report.parts_of_loss import RECONSTRUCTION
from tfinpaint.runs.time_left import TimeLeft
from tfinpaint.system import streams
from tfinpaint.system.progress import duration

if TYPE_CHECKING:  # they load TensorFlow
    from tfinpaint.train.totals import EpochResult
    from tfinpaint.train.trainer import ReadLoss

PLAIN_INTERVAL_SECONDS = 15.0
BAR_INTERVAL_SECONDS = 0.5  # reading the loss waits for the device: not at every step
LINE_WIDTH = 80  # characters of the line of an epoch
COMPILING = "Compiling the training step (this can take a minute)..."


class RunProgress:
    """Shows the steps of a run, the loss and the time left; nothing where `enabled` is false.

    Args:
        first_step: number of steps that were done before.
        end_in_steps, probe_every, probe_seconds: as `TimeLeft` takes them.
        held_out: phase of the evaluations: "validation" or "test".
        hidden: names of results that are not shown.
        is_total: whether the loss in training has terms that evaluations lack; it is then named so, and lines compare
            the losses of the reconstruction.
    """

    def __init__(
        self,
        *,
        enabled: bool,
        first_step: int,
        num_epochs: int,
        steps_per_epoch: int,
        end_in_steps: float = 0.0,
        probe_every: int | None = None,
        probe_seconds: float = 0.0,
        held_out: str = "test",
        hidden: Collection[str] = (),
        is_total: bool = False,
    ) -> None:
        self._enabled, self._held_out, self._hidden = enabled, held_out, hidden
        self._loss = "total loss" if is_total else "loss"
        self._num_epochs, self._steps = num_epochs, steps_per_epoch
        self._done, self._total = first_step, num_epochs * steps_per_epoch
        self._time_left = TimeLeft(
            first_step=first_step, num_epochs=num_epochs, steps_per_epoch=steps_per_epoch,
            end_in_steps=end_in_steps, probe_every=probe_every, probe_seconds=probe_seconds,
        )  # fmt: skip
        self._printed = self._updated = time.monotonic()
        self._bar = _make_bar() if enabled else None
        if self._bar:
            self._task = self._bar.add_task("", total=self._total, completed=first_step, left="")

    def begin(self) -> None:
        """Print, before the first step, why nothing is shown yet."""
        if self._enabled and self._done < self._total:
            self._print(COMPILING)

    def step(self, epoch: int, read_loss: ReadLoss) -> None:
        """Count a step; show the loss and the time left now and then."""
        if not self._enabled:
            return
        now = time.monotonic()
        self._done += 1
        self._time_left.step(now)
        if self._bar:
            self._bar.update(self._task, completed=self._done)
            if now - self._updated > BAR_INTERVAL_SECONDS or not self._bar.live.is_started:
                self._update(epoch, read_loss())
        elif now - self._printed > PLAIN_INTERVAL_SECONDS:
            place = f"epoch {epoch}/{self._num_epochs} step {(self._done - 1) % self._steps + 1}/{self._steps}"
            self._print("  ".join([f"  {place}", f"{self._loss} {read_loss():.4f}", *self._left()]))

    def epoch_end(self, epoch: int, train: EpochResult, test: EpochResult | None) -> None:
        """Print the results of an epoch in one line; what does not fit into LINE_WIDTH is in the metrics of the run."""
        if not self._enabled:
            return
        head, speed = f"epoch {epoch}/{self._num_epochs}", f"{train.images_per_second:.1f} images/s"
        if self._bar:
            self._update(epoch, train.values["loss"])
        left, width = ([], self._bar.console.width) if self._bar else (self._left(), LINE_WIDTH)
        self._print(_fit(head, [*self._figures(train, test), *left, speed], min(width, LINE_WIDTH)))

    def close(self) -> None:
        """Leave the bar as it is and release the terminal."""
        if self._bar:
            self._bar.stop()

    def _figures(self, train: EpochResult, test: EpochResult | None) -> list[str]:
        """Return the results as text, such as "loss 0.5123, test 0.6021", in their order."""
        tested, shown = dict(test.values) if test else {}, {}
        if self._loss != "loss":
            tested.pop("loss", None)
        for name in [name for name in {**train.values, **tested} if name not in self._hidden]:
            label = {"loss": self._loss, RECONSTRUCTION: "reconstruction"}.get(name, name)
            figures = [f"{label} {_figure(name, train.values[name])}"] if name in train.values else []
            if name in tested:
                figures.append(f"{self._held_out} {'' if figures else label + ' '}{_figure(name, tested[name])}")
            shown[name] = ", ".join(figures)
        first = [RECONSTRUCTION] if self._loss != "loss" and RECONSTRUCTION in shown else []
        return [shown[name] for name in [*first, *(name for name in shown if name not in first)]]

    def _update(self, epoch: int, loss: float) -> None:
        assert self._bar
        self._updated = time.monotonic()
        text = f"epoch {epoch}/{self._num_epochs} {self._loss} {loss:.4f}"
        self._bar.update(self._task, description=text, left="".join(self._left()), refresh=True)
        self._bar.start()  # not before: there is nothing to show while the step is being compiled

    def _left(self) -> list[str]:
        """Return the time left as text, in a list that is empty at the end and as long as it is not known."""
        seconds = self._time_left.seconds(time.monotonic())
        return [] if seconds is None or self._done >= self._total else [f"{duration(seconds)} left"]

    def _print(self, text: str) -> None:
        self._printed = time.monotonic()
        print(text, flush=True)


def _make_bar() -> Progress | None:
    """Return a progress bar where standard output is a terminal that can show one."""
    # mpirun gives rank 0 a pseudo-terminal and then prefixes every line, which destroys a bar.
    if not sys.stdout.isatty() or (was_launched() and not streams.has_terminal()):
        return None
    console = Console(soft_wrap=True, highlight=False)  # long lines above the bar are broken by the terminal alone
    if not console.is_interactive:
        return None
    text, left = TextColumn("{task.description}"), TextColumn("{task.fields[left]}")
    columns = (text, BarColumn(None), MofNCompleteColumn(), left)
    # While it is shown, rich puts what is printed above it.
    return Progress(*columns, console=console, expand=True, redirect_stderr=sys.stderr.isatty())


def _fit(head: str, parts: Sequence[str], width: int) -> str:
    """Return a line of at most `width` characters: its head, and the parts in their order, without those too long."""
    line = head
    for part in parts:
        if len(line) + 2 + len(part) <= width:
            line += f"  {part}"
    return line


def _figure(name: str, value: float) -> str:
    return f"{value:.4f}" if name in ("loss", RECONSTRUCTION) else f"{value:.3f}"
