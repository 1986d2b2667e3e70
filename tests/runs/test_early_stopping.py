"""Validation images, early stopping, and the best epoch, with which a classifier is tested once."""

import json
import shutil
from pathlib import Path

import pytest
from commandline import records, refuse, succeed
from conftest import outcome, write_small, write_training_and_testing

from tfinpaint.checkpoint.header import SavedProgress
from tfinpaint.config.schema import Config
from tfinpaint.runs.early_stopping import EarlyStopping
from tfinpaint.runs.run import Resumed, Run
from tfinpaint.train.totals import EpochResult

pytestmark = pytest.mark.usefixtures("undrawn_figures")


def result(loss: float) -> EpochResult:
    return EpochResult({"loss": loss}, 1, 1.0, 1.0)


def follow(losses: list[float], patience: int | None, before: tuple[dict, ...] = ()) -> tuple[list[bool], int]:
    """Whether training is over after each epoch, and the best epoch."""
    values = {"data": {"validation_fraction": 0.5}, "early_stopping": {"patience": patience} if patience else None}
    config = Config.model_validate(values)
    resumed = Resumed(Path(), None, SavedProgress(records=before)) if before else None
    stopping = EarlyStopping(Run(config, "classifier", resumed=resumed))
    over = []
    for epoch, loss in enumerate(losses, start=2 if before else 1):
        stopping.epoch_end(epoch, result(0.0), result(loss))
        over.append(stopping.is_over())
    return over, stopping.best


@pytest.mark.parametrize(
    ("losses", "patience", "over", "best"),
    [
        ([3.0, 2.0, 2.5, 2.1], 2, [False, False, False, True], 2),
        ([3.0, 2.0, 2.5, 1.9], 2, [False, False, False, False], 4),
        ([3.0, 3.0], 1, [False, True], 1),  # as low is not lower
        ([3.0, 4.0, 5.0], None, [False, False, False], 1),
    ],
)
def test_training_ends_after_some_epochs_without_a_lower_loss(losses, patience, over, best):
    assert follow(losses, patience) == (over, best)


def test_epochs_before_a_resume_count():
    first = {"phase": "validation", "epoch": 1, "loss": 1.0, "seconds": 1.0, "images_per_second": 1.0}
    assert follow([2.0, 2.0], 2, ({**first, "phase": "train", "loss": 0.1}, first)) == ([False, True], 1)


CHANGES = {
    "num_epochs": 8,
    "early_stopping": {"patience": 2},
    "optimizer": {"type": "SGD", "learning_rate": 3.0},  # so large that the loss rises again
    "checkpoints": {"interval": 100, "interval_steps": 3, "keep": 50},
    "data__validation_fraction": 0.25,
}


def write(folder: Path, data: Path, **changes: object) -> Path:
    config = {**CHANGES, **changes}
    nested = config.pop("data__validation_fraction")
    path = write_small(folder, data, **config)
    text = path.read_text()
    assert "  batch_size: 4\n" in text
    path.write_text(text.replace("  batch_size: 4\n", f"  batch_size: 4\n  validation_fraction: {nested}\n"))
    return path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """(folder with data and run) of a run that ended early."""
    folder = tmp_path_factory.mktemp("stopped")
    succeed("classify", "--config", write(folder, write_training_and_testing(folder)))
    return folder


def by_phase(run: Path) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for record in records(run):
        found.setdefault(record["phase"], []).append(record)
    return found


def test_the_best_epoch_is_saved_restored_and_tested_once(stopped, tmp_path):
    run = stopped / "run"
    found, summary = by_phase(run), json.loads((run / "summary.json").read_text())
    losses = [record["loss"] for record in found["validation"]]
    best = losses.index(min(losses)) + 1
    assert [record["epoch"] for record in found["test"]] == [best]
    assert len(found["train"]) == len(losses) == best + 2 < 8
    assert (summary["best_epoch"], summary["epochs"], summary["validation_images"]) == (best, best + 2, 6)
    assert summary["best_validation_loss"] == summary["validation_loss"] == min(losses)
    assert summary["labels"] == 24
    assert (run / "model_checkpoints" / f"model_checkpoint_{best}").is_dir()  # although the interval is 100 epochs
    # The figures of the test are those of the checkpoint of the best epoch.
    load = ("--set", f"checkpoints.load={run / 'best'}", "--set", "data.input_path=null")
    succeed("classify", "--config", stopped / "c.yaml", *load, "--workdir", tmp_path / "tested")
    (tested,) = records(tmp_path / "tested")
    assert tested["loss"] == pytest.approx(found["test"][0]["loss"], rel=1e-6)
    assert summary["test_accuracy"] == tested["accuracy"]


@pytest.mark.stress
def test_a_run_that_ended_early_is_not_continued_and_one_that_was_cut_off_ends_alike(stopped, tmp_path):
    run = Path(shutil.copytree(stopped / "run", tmp_path / "run"))
    output = succeed("classify", "--resume", "--workdir", run)
    assert "The model is that of epoch" in output
    assert outcome(run) == outcome(stopped / "run")
    last = max(record["epoch"] for record in records(run) if record["phase"] == "train")
    for path in (run / "model_checkpoints").iterdir():
        if path.name.startswith(f"model_checkpoint_{last}") or path.name.startswith(f"model_checkpoint_{last - 1}"):
            shutil.rmtree(path)
    succeed("classify", "--resume", "--workdir", run)
    assert outcome(run) == outcome(stopped / "run")


def test_validation_images_are_not_trained_on_and_the_same_on_every_start(stopped):
    digest = {json.loads(path.read_text())["data"] for path in (stopped / "run").rglob("progress.json")}
    assert len(digest) == 1
    progress = json.loads(next((stopped / "run").rglob("progress.json")).read_text())
    assert progress["images"] == 18


def test_what_validation_needs_is_said(stopped, tmp_path):
    config = write(tmp_path, stopped / "data")
    for change, message in {
        "data.validation_fraction=0": "early_stopping needs validation images: set data.validation_fraction",
        "checkpoints.save=null": "restores the best epoch from its checkpoint, but checkpoints.save is null",
    }.items():
        assert message in refuse("classify", "--config", config, "--set", change)
    single = tmp_path / "single"
    for name in ("cold", "warm"):
        (single / name).mkdir(parents=True)
        shutil.copy(stopped / "data" / "training" / name / "000.png", single / name)
    error = refuse("classify", "--config", config, "--set", f"data.input_path={single}")
    assert "no class has two images, so that none can be kept out for validation" in error
