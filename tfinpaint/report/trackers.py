"""Where the metrics of a run are shown beside its folder: TensorBoard, MLflow, Weights & Biases.

A tracker is a small interface that rank 0 alone uses. MLflow and Weights & Biases know a run by a name of their own,
which `trackers.json` in the run folder keeps, so that a resumed run continues there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from tfinpaint.config.diff import as_values, flat_values
from tfinpaint.config.schema import Config
from tfinpaint.errors import UserError, first_line
from tfinpaint.layout import TRACKERS
from tfinpaint.report.tensorboard import EventWriter
from tfinpaint.storage.atomic import write_json
from tfinpaint.storage.safe_json import read_json

log = logging.getLogger(__name__)

Ending = Literal["finished", "stopped", "failed"]


class Tracker(Protocol):
    """What a run tells a tracker, in this order.

    Attributes:
        knows_past: whether it has the records of the epochs before a resume already.
    """

    knows_past: bool

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a record of metrics.jsonl: the metrics of an epoch and a phase."""

    def add_picture(self, name: str, path: Path, epoch: int) -> None:
        """Add a PNG file; pictures of one kind share their name."""

    def flush(self) -> None:
        """Make what was added visible to others."""

    def finish(self, ending: Ending, report: Path | None) -> None:
        """End the run, and keep its report, where there is one."""


class External:
    """A tracker outside of the run folder. When it fails, training continues without it, after a warning."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.knows_past = tracker.knows_past
        self._name, self._tracker = name, tracker
        self._failed = False

    def add(self, record: Mapping[str, Any]) -> None:
        self._attempt(lambda: self._tracker.add(record))

    def add_picture(self, name: str, path: Path, epoch: int) -> None:
        self._attempt(lambda: self._tracker.add_picture(name, path, epoch))

    def flush(self) -> None:
        self._attempt(self._tracker.flush)

    def finish(self, ending: Ending, report: Path | None) -> None:
        self._attempt(lambda: self._tracker.finish(ending, report))

    def _attempt(self, do: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            do()
        except Exception as error:
            self._failed = True
            log.warning(f"{self._name}: {first_line(error)}; the run continues without it, and the run folder has all")


def open_trackers(config: Config, workdir: Path, *, resumed: bool) -> list[Tracker]:
    """Open the trackers that the configuration names. Rank 0 alone calls this, before training.

    Args:
        workdir: the run folder.
        resumed: continue the tracked runs that the folder knows, instead of beginning new ones.

    Raises:
        UserError: a tracker cannot be opened.
    """
    known = (read_json(workdir / TRACKERS) or {}) if resumed else {}
    given = {name: value for name, value in known.items() if isinstance(value, str)} if isinstance(known, dict) else {}
    opened: list[Tracker] = []
    for name in config.trackers:
        if name == "tensorboard":
            opened.append(EventWriter.begin(workdir))
            continue
        try:
            tracker = _open(name, workdir, flat_values(as_values(config)), given.get(name))
        except Exception as error:
            for each in opened:  # which would seem to run forever
                each.finish("failed", None)
            raise UserError(
                f"trackers: {name} cannot be opened: {first_line(error)}; fix that, or remove it from trackers"
            ) from error
        given[name] = tracker.run_id
        opened.append(External(name, tracker))
    if given:
        write_json(workdir / TRACKERS, given)
    return opened


def _open(name: str, workdir: Path, parameters: Mapping[str, Any], run_id: str | None) -> Any:
    """Return the tracker of MLflow or Weights & Biases, whose package is imported only here."""
    if name == "mlflow":
        from tfinpaint.report.mlflow_tracker import MLflowTracker

        return MLflowTracker(workdir, parameters, run_id)
    from tfinpaint.report.wandb_tracker import WandbTracker

    return WandbTracker(workdir, parameters, run_id)


def tracked_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics in a record of metrics.jsonl, named "phase/metric"."""
    return {
        f"{record['phase']}/{name}": float(value)
        for name, value in record.items()
        if name not in ("phase", "epoch") and isinstance(value, int | float) and not isinstance(value, bool)
    }


def shortened(values: Mapping[str, Any], most: int) -> dict[str, str]:
    """Return values as texts of at most `most` characters, such as the layers of a network."""
    texts: Sequence[tuple[str, str]] = [(name, str(value)) for name, value in values.items()]
    return {name: text if len(text) <= most else f"{text[: most - 1]}…" for name, text in texts}
