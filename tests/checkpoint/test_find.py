"""The checkpoint that a path refers to, and the message if there is none."""

import json
from pathlib import Path

import pytest
import yaml

from tfinpaint.checkpoint.find import (
    BY_PROBE,
    BestCheckpoint,
    FoundCheckpoint,
    find_best,
    find_checkpoint,
    find_reported,
    find_weights,
    labels_of_choice,
)
from tfinpaint.checkpoint.recorded import recorded_kind
from tfinpaint.errors import UserError


def write_run(run: Path, *names: str, best: int | None = None, save: Path | str | None = "model_checkpoints") -> Path:
    """A run folder with empty checkpoints of these names, the newest of which knows the best epoch."""
    run.mkdir(parents=True, exist_ok=True)
    saved = run / save if save else None
    config = {"workdir": str(run), "checkpoints": {"save": str(saved) if saved else None}}
    (run / "config.resolved.yaml").write_text(yaml.safe_dump(config))
    for name in names:
        (saved / name).mkdir(parents=True)
        (saved / name / "model.weights.h5").touch()
    if best is not None:
        losses = [{"phase": "test", "epoch": best, "loss": 0.25}, {"phase": "train", "epoch": best, "loss": 7.0}]
        progress = {"best_epoch": best, "records": losses}
        (saved / names[-1] / "progress.json").write_text(json.dumps(progress))
    return run


EPOCHS = ("model_checkpoint_2", "model_checkpoint_9", "model_checkpoint_10")


def test_a_run_folder_stands_for_its_newest_checkpoint_of_an_epoch(tmp_path):
    run = write_run(tmp_path / "run", *EPOCHS, "model_checkpoint_10_step_4")
    for path in (run, run / "model_checkpoints"):
        found = find_checkpoint(path)
        assert found.path == run / "model_checkpoints" / "model_checkpoint_10"
        assert found.note == f"Using model_checkpoint_10, the newest of {path}"
    for named in (found.path, found.path / "model.weights.h5", run / "model_checkpoints/model_checkpoint_10_step_4"):
        assert find_checkpoint(named) == FoundCheckpoint(named)
    within = write_run(tmp_path / "within", "model_checkpoint_0_step_4")
    note = find_checkpoint(within).note
    assert note.endswith(
        "; it was saved within an epoch, so its batch-norm statistics are not recalibrated for inference"
    )


def test_notes_name_runs_as_they_are_typed(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", *EPOCHS, best=9)
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(run).note.startswith("Using model_checkpoint_10, the newest of run; the best one ")
    assert find_checkpoint(run).note.endswith("name run/best to use it")
    assert find_checkpoint(run / "best").note.startswith("Using model_checkpoint_9, the best of run: ")
    spaced = write_run(tmp_path / "my run", *EPOCHS, best=9)
    assert find_checkpoint(spaced).note.endswith("name 'my run/best' to use it")
    (tmp_path / "my run.yaml").touch()
    with pytest.raises(UserError, match=r"my run.yaml: is a configuration; name its run: 'my run'$"):
        find_checkpoint(tmp_path / "my run.yaml")


def test_the_checkpoints_of_a_run_may_lie_elsewhere(tmp_path):
    run = write_run(tmp_path / "run", *EPOCHS, save=tmp_path / "large disk" / "saved", best=9)
    assert find_checkpoint(run).path == tmp_path / "large disk" / "saved" / "model_checkpoint_10"
    assert find_checkpoint(run / "best").path == tmp_path / "large disk" / "saved" / "model_checkpoint_9"
    below = write_run(tmp_path / "below", *EPOCHS, save="deep/er")
    moved = below.rename(tmp_path / "moved")  # its configuration names the folder of before
    assert find_checkpoint(moved).path == moved / "deep" / "er" / "model_checkpoint_10"
    (moved / "config.resolved.yaml").write_text("workdir: [")  # what a power cut may leave
    (moved / "deep" / "er").rename(moved / "model_checkpoints")
    assert find_checkpoint(moved).path == moved / "model_checkpoints" / "model_checkpoint_10"


@pytest.mark.parametrize("end", ["best", "model_checkpoints/best"])
def test_best_is_the_one_of_the_lowest_loss_on_held_out_images(tmp_path, end):
    run = write_run(tmp_path / "run", *EPOCHS, best=9)
    found = find_checkpoint(run / end)
    assert found.path == run / "model_checkpoints" / "model_checkpoint_9"
    of = run if end == "best" else run / "model_checkpoints"
    assert found.note == f"Using model_checkpoint_9, the best of {of}: lowest loss on held-out images (0.25)"
    assert find_best(run / "model_checkpoints") == BestCheckpoint(found.path, 9, 0.25)
    assert f"the best one (lowest loss on held-out images) is model_checkpoint_9; name {run}/best to use it" in (
        find_checkpoint(run).note
    )
    # The newest that can be read knows it; what is not readable, and records of strangers, are passed over.
    damaged = run / "model_checkpoints" / "model_checkpoint_11"
    damaged.mkdir()
    for content in ("", "[]", '{"best_epoch": 9, "records": [1, {"phase": "test", "epoch": 9, "loss": "low"}]}'):
        (damaged / "progress.json").write_text(content)
        assert find_checkpoint(run / end).path == found.path
    assert find_best(run / "model_checkpoints").value is None
    (damaged / "progress.json").write_text('{"best_epoch": "../../model_checkpoint_2"}')
    assert find_best(run / "model_checkpoints") is None


def test_best_probe_is_the_one_of_the_highest_accuracy_of_the_probe(tmp_path):
    run = write_run(tmp_path / "run", *EPOCHS)
    accuracies = [{"phase": "train", "epoch": epoch, "loss": 1.0, "probe_stage5": 0.75} for epoch in (9, 10)]
    progress = {"best_epoch": 2, "best_probe_epoch": 9, "records": accuracies}
    (run / "model_checkpoints" / "model_checkpoint_10" / "progress.json").write_text(json.dumps(progress))
    found = find_checkpoint(run / "best_probe")
    assert found.path == run / "model_checkpoints" / "model_checkpoint_9"
    assert found.note == f"Using model_checkpoint_9, the best of {run}: highest accuracy of the probe (0.75)"
    assert find_best(run / "model_checkpoints", BY_PROBE) == BestCheckpoint(found.path, 9, 0.75)
    assert find_checkpoint(run / "best").path == run / "model_checkpoints" / "model_checkpoint_2"
    assert find_checkpoint(run).note.endswith(
        f"model_checkpoint_2; name {run}/best to use it; the best one (highest accuracy of the probe) is "
        f"model_checkpoint_9; name {run}/best_probe to use it"
    )
    with pytest.raises(UserError, match=r"the best one is unknown, because none was saved with a probe"):
        find_checkpoint(write_run(tmp_path / "other", *EPOCHS, best=9) / "best_probe")


def test_a_checkpoint_tells_by_how_many_labelled_images_it_is_the_best(tmp_path):
    run = write_run(tmp_path / "run", *EPOCHS)
    saved = [run / "model_checkpoints" / name for name in EPOCHS]
    for folder, best in zip(saved, (2, 9, 9), strict=True):  # each is the best so far, but for the last one
        progress = {"best_probe_epoch": best, "config": {"probe": {"every": 1, "images": 800}}}
        (folder / "progress.json").write_text(json.dumps(progress))
    assert [labels_of_choice(folder) for folder in saved] == [0, 800, 0]
    assert labels_of_choice(saved[1] / "model.weights.h5") == 800
    assert labels_of_choice(write_run(tmp_path / "other", *EPOCHS, best=9) / "model_checkpoints" / EPOCHS[1]) == 0
    (saved[1] / "progress.json").write_text('{"config": {"probe": []}}')
    assert labels_of_choice(saved[1]) == 0


def test_a_file_or_folder_that_is_called_best_is_taken_as_it_is(tmp_path):
    run = write_run(tmp_path / "run", *EPOCHS, best=9)
    assert find_checkpoint(write_run(tmp_path / "best", *EPOCHS)).path.parents[1] == tmp_path / "best"
    (run / "best").mkdir()
    (run / "best" / "encoder.weights.h5").touch()
    assert find_checkpoint(run / "best") == FoundCheckpoint(run / "best")


def test_a_folder_that_is_no_run_names_the_runs_in_it(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(
        UserError, match="photos: not a checkpoint of tfinpaint; expected a run folder with checkpoints"
    ):
        find_checkpoint(tmp_path / "photos")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "project.json").touch()
    with pytest.raises(UserError, match=r"it is a project that has not run yet; type: tfinpaint run .*/project$"):
        find_weights(tmp_path / "project", "checkpoints.load")
    for name in ("pretrain", "classify"):
        write_run(tmp_path / "project" / name, *EPOCHS)
    expected = f"name a run in it: {tmp_path}/project/classify, {tmp_path}/project/pretrain"
    with pytest.raises(UserError) as refused:
        find_weights(tmp_path / "project", "checkpoints.load")
    assert str(refused.value) == f"checkpoints.load: {tmp_path}/project: not a checkpoint of tfinpaint; {expected}"


def test_without_held_out_images_no_checkpoint_is_the_best(tmp_path):
    run = write_run(tmp_path / "run", *EPOCHS)
    with pytest.raises(UserError, match=r"run/best: the best one is unknown, because none was saved with a loss"):
        find_checkpoint(run / "best")
    write_run(tmp_path / "gone", "model_checkpoint_3", best=2)
    with pytest.raises(UserError, match=r"gone/best: .*; .* holds model_checkpoint_3"):
        find_checkpoint(tmp_path / "gone" / "best")


def test_a_missing_checkpoint_lists_those_that_are_there(tmp_path):
    run = write_run(tmp_path / "runs" / "a", *EPOCHS)
    saved = run / "model_checkpoints"
    for missing in (saved / "model_checkpoint_4", saved / "model_checkpoint_4.pt" / "x", run / "model_checkpoint_4"):
        with pytest.raises(UserError) as raised:
            find_checkpoint(missing, "checkpoints.load")
        listed = "model_checkpoint_2, model_checkpoint_9, model_checkpoint_10"
        assert str(raised.value) == f"checkpoints.load: no such checkpoint: {missing}; {saved} holds {listed}"
    elsewhere = write_run(tmp_path / "runs" / "b", *(f"model_checkpoint_{n}" for n in range(1, 9)), save=tmp_path / "s")
    with pytest.raises(UserError, match=r"/s holds 3 more and model_checkpoint_4, .*_8$"):
        find_checkpoint(elsewhere / "model_checkpoints" / "model_checkpoint_9")
    for gone in ("runs/c", "runs/c/model_checkpoints/model_checkpoint_100", "runs/c/best"):
        with pytest.raises(UserError, match=r"; there is no folder .*/runs/c; run folders beside it: a, b$"):
            find_checkpoint(tmp_path / gone)
    with pytest.raises(UserError, match=rf"; there is no folder {tmp_path}/nowhere$"):
        find_checkpoint(tmp_path / "nowhere" / "model_checkpoints" / "best")
    with pytest.raises(UserError, match=rf"x.h5; {tmp_path} holds nothing of that name$"):
        find_checkpoint(tmp_path / "x.h5")
    empty = write_run(tmp_path / "runs" / "empty")
    for path in (empty, empty / "best"):
        with pytest.raises(UserError, match=r".*/empty/model_checkpoints holds none$"):
            find_checkpoint(path)
    with pytest.raises(UserError, match=r"no such checkpoint: .*: File name too long"):
        find_checkpoint(tmp_path / ("x" * 300))


def test_rmldnns_name_stands_for_the_folder_or_the_newest_before(tmp_path):
    saved = write_run(tmp_path / "run", *EPOCHS) / "model_checkpoints"
    assert find_checkpoint(saved / "model_checkpoint_9.pt") == FoundCheckpoint(saved / "model_checkpoint_9")
    found = find_checkpoint(saved / "model_checkpoint_8.pt")
    assert found.path == saved / "model_checkpoint_2"
    assert found.note == "model_checkpoint_8 does not exist; using model_checkpoint_2, the newest one before it"
    with pytest.raises(UserError, match=r"no such checkpoint: .*_1\.pt; .* holds model_checkpoint_2"):
        find_checkpoint(saved / "model_checkpoint_1.pt")
    (saved / "model_checkpoint_8.pt").write_bytes(b"PK libtorch")  # its own file: that is there, and no other's turn
    assert find_checkpoint(saved / "model_checkpoint_8.pt").path == saved / "model_checkpoint_8.pt"


def test_for_its_weights_a_run_means_its_best_checkpoint_or_else_the_newest(tmp_path):
    names = [f"model_checkpoint_{epoch}" for epoch in (1, 2, 3)]
    assert find_weights(write_run(tmp_path / "unknown", *names)).path.name == "model_checkpoint_3"
    found = find_weights(write_run(tmp_path / "known", *names, best=2))
    assert found.path.name == "model_checkpoint_2"
    assert "the best of" in found.note
    assert find_weights(tmp_path / "known" / "model_checkpoints" / names[0]).path.name == "model_checkpoint_1"
    with pytest.raises(UserError, match=r"^checkpoints\.load: no such checkpoint: "):
        find_weights(tmp_path / "nowhere", "checkpoints.load")


def test_a_report_describes_the_newest_checkpoint_unless_validation_images_have_chosen(tmp_path):
    run = write_run(tmp_path / "run", *EPOCHS, best=2)
    assert find_reported(run).path.name == "model_checkpoint_10"
    config = yaml.safe_load((run / "config.resolved.yaml").read_text())
    for fraction, name in ((0.0, "model_checkpoint_10"), (0.25, "model_checkpoint_2")):
        (run / "config.resolved.yaml").write_text(yaml.safe_dump({**config, "data": {"validation_fraction": fraction}}))
        assert find_reported(run).path.name == name
    named = run / "model_checkpoints" / "model_checkpoint_9"
    assert find_reported(named) == FoundCheckpoint(named)
    with pytest.raises(UserError, match="no such checkpoint"):
        find_reported(tmp_path / "other")


def test_the_kind_of_a_checkpoint_stands_in_its_header(tmp_path):
    assert recorded_kind(tmp_path) is None
    for text, kind in (('{"kind": "classifier"}', "classifier"), ("[1]", None), ("{", None), ('{"kind": 1}', None)):
        (tmp_path / "checkpoint.json").write_text(text)
        assert recorded_kind(tmp_path) == kind


def test_a_checkpoint_that_has_lost_a_file_is_named_with_the_one_before_it(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", *EPOCHS)
    monkeypatch.chdir(tmp_path)
    newest = Path("run/model_checkpoints/model_checkpoint_10")
    (newest / "model.weights.h5").unlink()
    said = (
        f"{newest}: model.weights.h5 is missing; the checkpoint before it is run/model_checkpoints/model_checkpoint_9; "
        "bring the file back, or use that one"
    )
    for find, path in ((find_reported, run), (find_checkpoint, newest)):
        with pytest.raises(UserError) as refused:
            find(path)
        assert str(refused.value) == said
    with pytest.raises(UserError, match=r"model.weights.h5 and encoder.weights.h5 are missing; the checkpoint before"):
        find_weights(run)
    (newest / "encoder.weights.h5").touch()  # enough for the features of the encoder
    assert find_weights(run).path == run / "model_checkpoints" / newest.name
    with pytest.raises(UserError, match=r"_2: encoder.weights.h5 is missing; there is no checkpoint before it; bring"):
        find_checkpoint(run / "model_checkpoints" / "model_checkpoint_2", "", ("encoder.weights.h5",))
