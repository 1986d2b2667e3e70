"""Track a run with MLflow, by its client alone: the active run of a notebook or another program stays as it is."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Metric, Param

from tfinpaint.report.trackers import shortened, tracked_metrics

if TYPE_CHECKING:
    from tfinpaint.report.trackers import Ending

URI, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"  # environment variables of MLflow
STORE = "mlruns"  # beside the run folder, unless URI names another place
MOST_CHARACTERS = 500  # of a parameter
MOST_PARAMETERS = 100  # of a request
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MLflowTracker:
    """A run of MLflow.

    Attributes:
        run_id: MLflow's name of the run.
    """

    def __init__(self, workdir: Path, parameters: Mapping[str, Any], run_id: str | None) -> None:
        """Begin a run with these parameters, or continue that with the identifier, whose parameters stay."""
        uri = os.environ.get(URI, "")
        if not uri:
            uri = (workdir.parent / STORE).resolve().as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else newer versions want a database
        self._client = mlflow.MlflowClient(uri)
        self.knows_past = run_id is not None
        if run_id is not None:
            self.run_id = run_id
            self._client.update_run(run_id, status="RUNNING")
            return
        name = os.environ.get(EXPERIMENT, "tfinpaint")
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self.run_id = self._client.create_run(number, run_name=workdir.name).info.run_id
        texts = list(shortened(parameters, MOST_CHARACTERS).items())
        for first in range(0, len(texts), MOST_PARAMETERS):
            some = [Param(*each) for each in texts[first : first + MOST_PARAMETERS]]
            self._client.log_batch(self.run_id, params=some)

    def add(self, record: Mapping[str, Any]) -> None:
        """Add the metrics of an epoch and a phase, with the epoch as the step."""
        now = int(1000 * time.time())
        found = [Metric(name, value, now, record["epoch"]) for name, value in tracked_metrics(record).items()]
        self._client.log_batch(self.run_id, metrics=found)

    def add_picture(self, name: str, path: Path, epoch: int) -> None:
        """Add a PNG file to the artifacts, in the folder `name`."""
        self._client.log_artifact(self.run_id, str(path), name)

    def flush(self) -> None:
        """Do nothing: everything is written at once."""

    def finish(self, ending: Ending, report: Path | None) -> None:
        """Add the report to the artifacts, and end the run."""
        if report is not None:
            self._client.log_artifact(self.run_id, str(report))
        self._client.set_terminated(self.run_id, _STATUS[ending])
