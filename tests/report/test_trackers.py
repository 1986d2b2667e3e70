"""Trackers are told everything once and in order, also after a resume; those outside may fail without harm."""

import importlib.util
import json
import time
from pathlib import Path

import pytest
from conftest import write_config
from PIL import Image

from tfinpaint.cli.options import load_checked
from tfinpaint.config.checks import check_command
from tfinpaint.config.loader import load_config, load_values
from tfinpaint.config.schema import ConfigError
from tfinpaint.errors import UserError
from tfinpaint.report import trackers
from tfinpaint.report.metrics_log import MetricsLog
from tfinpaint.report.trackers import External, open_trackers, shortened, tracked_metrics

needs_mlflow = pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed")
needs_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="Weights & Biases is not installed")

PATIENCE_SECONDS = 60.0


def record(phase: str, epoch: int, **values: float) -> dict:
    return {"phase": phase, "epoch": epoch, **values, "images_per_second": 1.0, "seconds": 2.0, "world_size": 1}


class Recorder:
    """A tracker that keeps what it is told."""

    run_id = "a1"

    def __init__(self, knows_past: bool = False) -> None:
        self.knows_past, self.told = knows_past, []

    def add(self, record) -> None:
        self.told.append((record["phase"], record["epoch"], record["loss"]))

    def add_picture(self, name, path, epoch) -> None:
        self.told.append((name, epoch))

    def flush(self) -> None:
        self.told.append("flush")

    def finish(self, ending, report) -> None:
        self.told.append((ending, report))


def opened(folder: Path, *names: str, resumed: bool = False) -> list:
    (folder / "run").mkdir(exist_ok=True)
    return open_trackers(
        load_values({"workdir": folder / "run", "trackers": names}, {}), folder / "run", resumed=resumed
    )


def run_twice(folder: Path, name: str) -> None:
    """A run that is stopped after its first epoch, and resumed in another process's place."""
    workdir = folder / "run"
    log = MetricsLog(workdir, None, enabled=True, trackers=opened(folder, name))
    log.add(record("train", 1, loss=0.5))
    log.add(record("test", 1, loss=0.75, accuracy=0.25))
    log.finish("stopped", None)
    past = opened(folder, name, resumed=True)
    log = MetricsLog(workdir, None, enabled=True, first_epoch=2, records=log.records, trackers=past)
    log.add(record("train", 2, loss=0.25))
    Image.new("RGB", (8, 8)).save(workdir / "epoch_2.png")
    log.add_picture("restorations", workdir / "epoch_2.png", 2)
    (workdir / "report.html").write_text("<p>report")
    log.finish("finished", workdir / "report.html")


def test_every_tracker_is_told_all_in_order_and_the_past_where_it_does_not_know_it(tmp_path):
    new, old = Recorder(), Recorder(knows_past=True)
    log = MetricsLog(
        tmp_path, None, enabled=True, first_epoch=2, records=[record("train", 1, loss=0.5)], trackers=[new, old]
    )
    log.add(record("train", 2, loss=0.25))
    log.add_picture("restorations", tmp_path / "epoch_2.png", 2)
    log.finish("finished", tmp_path / "report.html")
    log.finish("failed", None)  # ended already
    told = ["flush", ("train", 2, 0.25), "flush", ("restorations", 2), "flush", ("finished", tmp_path / "report.html")]
    assert old.told == told
    assert new.told == [("train", 1, 0.5), *told]
    assert not (tmp_path / "tensorboard").exists()


def test_other_ranks_tell_no_tracker_anything(tmp_path):
    recorder = Recorder()
    log = MetricsLog(tmp_path, None, enabled=False, trackers=[recorder])
    log.add(record("train", 1, loss=0.5))
    log.add_picture("restorations", tmp_path / "none.png", 1)
    log.finish("finished", None)
    assert recorder.told == []


def test_a_resumed_run_continues_under_its_name_and_a_new_one_gets_another(tmp_path, monkeypatch):
    asked = []

    def pretended(name, workdir, parameters, run_id):
        asked.append((name, run_id, parameters["seed"]))
        return Recorder(run_id is not None)

    monkeypatch.setattr(trackers, "_open", pretended)
    opened(tmp_path, "mlflow")
    assert json.loads((tmp_path / "run" / "trackers.json").read_text()) == {"mlflow": "a1"}
    (continued,) = opened(tmp_path, "mlflow", resumed=True)
    assert continued.knows_past
    (other,) = opened(tmp_path, "mlflow")
    assert not other.knows_past
    assert asked == [("mlflow", None, 0), ("mlflow", "a1", 0), ("mlflow", None, 0)]


def test_one_that_fails_is_left_out_with_a_warning_and_one_that_cannot_be_opened_ends_the_run(
    tmp_path, caplog, monkeypatch
):
    class Broken(Recorder):
        def add(self, record) -> None:
            super().add(record)
            raise ConnectionError("no route to host")

    broken = Broken()
    outside = External("mlflow", broken)
    for epoch in (1, 2):
        outside.add(record("train", epoch, loss=0.5))
    outside.finish("finished", None)
    assert broken.told == [("train", 1, 0.5)]
    assert caplog.text.count("mlflow: no route to host; the run continues without it, and the run folder has all") == 1

    def refuse(*_: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(trackers, "_open", refuse)
    with pytest.raises(UserError, match="trackers: wandb cannot be opened: no route to host; fix that, or remove it"):
        opened(tmp_path, "wandb")


def test_those_that_are_open_are_ended_where_another_cannot_be_opened(tmp_path, monkeypatch):
    first = Recorder()

    def pretended(name: str, *_: object) -> Recorder:
        if name == "wandb":
            raise ConnectionError("no route to host")
        return first

    monkeypatch.setattr(trackers, "_open", pretended)
    with pytest.raises(UserError, match="trackers: wandb cannot be opened"):
        opened(tmp_path, "mlflow", "wandb")
    assert first.told == [("failed", None)]


def test_a_missing_package_is_named_before_anything_starts(images, tmp_path, monkeypatch):
    config = write_config(tmp_path / "c.yaml", "pretrain", images, encoder="tiny", trackers=["tensorboard", "mlflow"])
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else find(name))
    with pytest.raises(ConfigError) as raised:
        load_checked(config, [], "pretrain", 1)
    assert "trackers: mlflow cannot be imported by " in str(raised.value)
    assert "; pip install tfinpaint[mlflow], or remove it from trackers" in str(raised.value)
    with pytest.raises(ConfigError, match="trackers names tensorboard twice"):
        check_command(load_config(config, ["trackers=[tensorboard, tensorboard]"]), "pretrain", 1)


def test_metrics_are_named_by_their_phase_and_long_parameters_are_cut():
    assert tracked_metrics({"phase": "test", "epoch": 3, "loss": 1, "name": "x"}) == {"test/loss": 1.0}
    assert shortened({"a": [1, 2], "b": "x" * 9}, 8) == {"a": "[1, 2]", "b": "xxxxxxx…"}


@needs_mlflow
def test_mlflow_has_one_run_with_all_epochs_parameters_and_the_report(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_twice(tmp_path, "mlflow")
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("tfinpaint")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params["optimizer.type"]) == ("run", "FINISHED", "Adam")
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(each.step, each.value) for each in losses] == [(1, 0.5), (2, 0.25)]
    assert run.data.metrics["test/accuracy"] == 0.25
    assert {each.path for each in client.list_artifacts(run.info.run_id)} == {"report.html", "restorations"}


@needs_wandb
def test_weights_and_biases_writes_both_parts_of_a_run_offline_under_one_name(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    run_twice(tmp_path, "wandb")
    name = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]
    parts = sorted((tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(parts) == 2
    deadline = time.monotonic() + PATIENCE_SECONDS
    while b"report.html" not in parts[1].read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)  # its own process still writes
    first, second = (part.read_bytes() for part in parts)
    assert b"optimizer.learning_rate" in first
    assert b"test/accuracy" in first
    assert b"train/loss" in second
    assert b"report.html" in second
