"""Track a run with Weights & Biases: offline, in files beside the run folder, unless WANDB_MODE says otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb

from tfinpaint.report.trackers import tracked_metrics

if TYPE_CHECKING:
    from tfinpaint.report.trackers import Ending


class WandbTracker:
    """A run of Weights & Biases.

    Attributes:
        run_id: its name of the run.
    """

    def __init__(self, workdir: Path, parameters: Mapping[str, Any], run_id: str | None) -> None:
        """Begin a run with these parameters, or continue that with the identifier.

        Neither code nor output nor the use of the machine is collected; the names of the installed packages are.
        """
        self.knows_past = run_id is not None
        quiet = wandb.Settings(console="off", silent=True, save_code=False, disable_git=True, x_disable_stats=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "tfinpaint"), name=workdir.name, id=run_id,
            resume="allow" if run_id else None, dir=os.environ.get("WANDB_DIR") or str(workdir.parent),
            mode=os.environ.get("WANDB_MODE", "offline"), config=dict(parameters), reinit="create_new", settings=quiet,
        )  # fmt: skip
        self.run_id = self._run.id
        self._run.define_metric("*", step_metric="epoch")
        self._step = 0  # the newest epoch; what has an earlier step would be dropped

    def add(self, record: Mapping[str, Any]) -> None:
        """Add the metrics of an epoch and a phase."""
        self._log(record["epoch"], tracked_metrics(record))

    def add_picture(self, name: str, path: Path, epoch: int) -> None:
        """Add a PNG file."""
        self._log(epoch, {name: wandb.Image(str(path))})

    def _log(self, epoch: int, values: Mapping[str, Any]) -> None:
        self._step = epoch if epoch >= self._step else self._step + 1
        self._run.log({"epoch": epoch, **values}, step=self._step)

    def flush(self) -> None:
        """Do nothing: its own process writes everything."""

    def finish(self, ending: Ending, report: Path | None) -> None:
        """Add the report as an artifact, and end the run."""
        if report is not None:
            artifact = wandb.Artifact(f"report-{self.run_id}", type="report")
            artifact.add_file(str(report))
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=int(ending == "failed"))
