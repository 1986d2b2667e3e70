"""What the end of a run says about its checkpoints is what the commands then take."""

import json
from pathlib import Path

import yaml

from tfinpaint.checkpoint.find import find_reported, find_weights
from tfinpaint.runs.chosen_checkpoint import describe_checkpoints


def write_run(run: Path, progress: dict, validation: float | None = None) -> Path:
    """A run with checkpoints of the epochs 2, 3 and 4; the newest knows which were the best."""
    for epoch in (2, 3, 4):
        folder = run / "model_checkpoints" / f"model_checkpoint_{epoch}"
        folder.mkdir(parents=True)
        (folder / "progress.json").write_text(json.dumps(progress))
        (folder / "model.weights.h5").touch()
    data = {"validation_fraction": validation} if validation else {}
    (run / "config.resolved.yaml").write_text(yaml.safe_dump({"workdir": str(run), "data": data}))
    return run


def losses(phase: str) -> list[dict]:
    return [{"phase": phase, "epoch": 3, "loss": 0.25}, {"phase": "train", "epoch": 2, "probe_stage5": 0.75}]


def test_the_best_by_loss_is_for_encoders_and_the_newest_for_predictions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run", {"best_epoch": 3, "records": losses("test")})
    assert describe_checkpoints(run) == [
        "Checkpoints: model_checkpoint_4 is the newest, model_checkpoint_3 the best (lowest loss on held-out images, 0.25)",
        "classify, probe and features take model_checkpoint_3, predict takes model_checkpoint_4; to choose, name run/best "
        "or a checkpoint folder",
    ]  # fmt: skip
    assert find_weights(run).path.name == "model_checkpoint_3"
    assert find_reported(run).path.name == "model_checkpoint_4"


def test_the_value_of_the_best_is_the_one_that_the_log_shows_where_views_are_compared(tmp_path):
    """The loss by which it is chosen has half of the reconstruction, which the log and the report show whole."""
    records = [
        {"phase": "test", "epoch": 3, "loss": 0.25, "reconstruction_loss": 0.5},
        {"phase": "train", "epoch": 3, "loss": 4.0, "reconstruction_loss": 0.6, "agreement_loss": 3.7},
    ]
    for kept, shown in ((records, "reconstruction 0.5000"), (records[:1], "0.25")):
        run = write_run(tmp_path / shown, {"best_epoch": 3, "records": kept})
        assert describe_checkpoints(run)[0].endswith(f"the best (lowest loss on held-out images, {shown})")
        assert find_reported(run / "best").note.endswith(f"lowest loss on held-out images ({shown})")


def test_validation_images_choose_for_predictions_and_a_probe_for_encoders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "validated", {"best_epoch": 3, "records": losses("validation")}, 0.2)
    assert describe_checkpoints(run)[1].startswith(
        "classify, probe, features and predict take model_checkpoint_3; to choose, name validated/best or "
    )
    run = write_run(tmp_path / "probed", {"best_probe_epoch": 2, "best_epoch": 3, "records": losses("test")})
    facts, users = describe_checkpoints(run)
    assert facts.endswith("model_checkpoint_2 the best (highest accuracy of the probe, 0.75)")
    assert users.startswith("classify, probe and features take model_checkpoint_2, predict takes model_chec")
    assert users.endswith("; to choose, name probed/best_probe, probed/best or a checkpoint folder")


def test_without_a_choice_there_is_one_line(tmp_path):
    run = write_run(tmp_path / "run", {"best_epoch": 4, "records": []})
    assert describe_checkpoints(run) == [
        "Checkpoints: model_checkpoint_4 is the newest and the best (lowest loss on held-out images)"
    ]
    assert describe_checkpoints(write_run(tmp_path / "none", {})) == ["Checkpoints: model_checkpoint_4 is the newest"]
    assert describe_checkpoints(tmp_path) == []
