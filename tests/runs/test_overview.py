"""The list of runs: what their files tell, at 80 columns and as JSON, whatever state a folder is in."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tfinpaint.distributed.failures import HostsChangedError
from tfinpaint.errors import StoppedError, UserError
from tfinpaint.runs import __main__ as runs_command
from tfinpaint.runs import overview
from tfinpaint.runs.folder import RunFolder
from tfinpaint.runs.overview import describe_run, list_runs

MASK = {"random_patches": {"number": 4, "size": 8}}
TIME = 1_795_000_000  # 2026-11-18


def write_run(
    folder: Path,
    *,
    labels: bool = True,
    epochs: int = 3,
    summary: object = None,
    ending: object = None,
    **metrics: float,
) -> Path:
    """A run of 5 epochs, of which some are done, with metrics of its last test."""
    folder.mkdir(parents=True)
    steps = [{"resize": [32, 32]}, *([] if labels else [MASK])]
    data = {"input_path": "/data/pets/training", "target_type": "labels" if labels else "images", "transforms": steps}
    values = {"workdir": str(folder), "num_epochs": 5, "data": data}
    (folder / "config.resolved.yaml").write_text(yaml.safe_dump(values))
    records = [{"phase": "train", "epoch": epoch, "loss": 0.5} for epoch in range(1, epochs + 1)]
    records += [{"phase": "test", "epoch": epochs, **metrics}] if metrics else []
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for name, value in {"summary.json": summary, "ending.json": ending}.items():
        if value is not None:
            (folder / name).write_text(json.dumps(value))
    for path in folder.iterdir():
        os.utime(path, (TIME, TIME))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """Runs in every state, with what the list must not trip over."""
    root = tmp_path / "runs"
    best = write_run(root / "pets" / "pretrain", labels=False, epochs=5, summary={}, loss=0.2, hole_psnr_db=14.52)
    checkpoint = best / "model_checkpoints" / "model_checkpoint_4"
    checkpoint.mkdir(parents=True)
    (checkpoint / "progress.json").write_text('{"best_epoch": 4, "records": []}')
    write_run(root / "pets" / "classify", epochs=5, summary={}, loss=0.3, accuracy=0.9297)
    write_run(root / "pets" / "from_scratch", epochs=2, ending={"state": "stopped", "reason": "Stopped after epoch 2"})
    write_run(root / "pets" / "a_run_with_a_name_that_is_rather_long", epochs=1, loss=float("nan"))
    write_run(root / "failed", epochs=0, ending={"state": "failed", "reason": "the loss is not finite"})
    broken = write_run(root / "broken", summary={})
    (broken / "summary.json").write_text("{")
    os.utime(broken / "summary.json", (TIME, TIME))
    (root / "lost" / "model_checkpoints" / "model_checkpoint_1").mkdir(parents=True)
    (root / "lost" / "model_checkpoints" / "model_checkpoint_1" / "checkpoint.json").write_text('{"kind": "inpainter"}')
    os.utime(root / "lost", (TIME, TIME))
    sweep = root / "sweep"
    write_run(sweep / "cell" / "trained" / "a", epochs=5, summary={})
    (sweep / "plan.json").write_text("{}")
    (root / "loop").symlink_to(root)
    return root


def test_the_list_at_80_columns(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(runs_command, "table_width", lambda: 80)
    with (folder / "pets" / "classify" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert runs_command.main([]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == LISTED.splitlines()


LISTED = """\
run                   kind       date       data epochs result     best state
broken                classifier 2026-11-18 pets 3/5    loss 0.500 -    broken
failed                classifier 2026-11-18 pets 0/5    -          -    failed
lost                  inpainter  2026-11-18 -    -      -          -    broken
pets/a_run_with_a_    classifier 2026-11-18 pets 1/5    loss 0.500 -    stopped
name_that_is_rather_
long
pets/classify         classifier 2026-11-18 pets 5/5    acc. 0.930 -    running
pets/from_scratch     classifier 2026-11-18 pets 2/5    loss 0.500 -    stopped
pets/pretrain         inpainter  2026-11-18 pets 5/5    14.5 dB    4    finished
best: the epoch of the lowest loss on held-out images. tfinpaint predict RUN
takes the newest checkpoint (the best one where validation images have chosen
it), tfinpaint predict RUN/best the best one.
broken: broken: summary.json cannot be read
failed: failed: the loss is not finite
lost: broken: config.resolved.yaml is missing
pets/from_scratch: stopped: Stopped after epoch 2
"""


def test_the_list_as_json_has_paths_and_reasons(folder, capsys):
    assert runs_command.main([str(folder), "--json"]) == 0
    found = {run["run"].removeprefix(f"{folder}/"): run for run in json.loads(capsys.readouterr().out)}
    pretrain = found["pets/pretrain"]
    assert pretrain.pop("date").startswith("2026-11-1")
    assert pretrain == {
        "run": str(folder / "pets" / "pretrain"),
        "kind": "inpainter",
        "state": "finished",
        "reason": "",
        "data": "/data/pets/training",
        "epochs": 5,
        "num_epochs": 5,
        "figure": "test hole_psnr_db",
        "value": 14.52,
        "best_checkpoint": str(folder / "pets" / "pretrain" / "model_checkpoints" / "model_checkpoint_4"),
    }
    assert {name: run["state"] for name, run in found.items()} == {
        "broken": "broken",
        "failed": "failed",
        "lost": "broken",
        "pets/a_run_with_a_name_that_is_rather_long": "stopped",
        "pets/classify": "finished",
        "pets/from_scratch": "stopped",
        "pets/pretrain": "finished",
    }
    assert found["failed"]["reason"] == "the loss is not finite"
    assert (found["lost"]["kind"], found["lost"]["reason"]) == ("inpainter", "config.resolved.yaml is missing")
    # The newest value that is a number: that of training, where the last test is not finite.
    assert (found["pets/a_run_with_a_name_that_is_rather_long"]["value"]) == 0.5


def test_where_views_are_compared_the_figure_is_that_of_the_log(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "runs" / "a", labels=False, summary={}, loss=0.380, reconstruction_loss=0.7608)
    assert describe_run(run).figure == ("test loss", 0.380)  # another loss of several parts, which the log shows
    train = {"phase": "train", "epoch": 3, "loss": 4.1, "reconstruction_loss": 0.8, "agreement_loss": 3.7}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(train) + "\n")
    assert describe_run(run).figure == ("test reconstruction_loss", 0.7608)
    monkeypatch.chdir(tmp_path)
    assert runs_command.main([]) == 0
    assert "reconstr. 0.761" in capsys.readouterr().out


def test_a_finished_run_that_has_lost_its_weights_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("whole", "gone", "lost", "evaluation"):
        run = write_run(tmp_path / "runs" / name, summary={})
        values = yaml.safe_load((run / "config.resolved.yaml").read_text())
        values["checkpoints"] = {"save": str(run / "model_checkpoints")}
        if name == "evaluation":
            values["data"]["input_path"] = None
        (run / "config.resolved.yaml").write_text(yaml.safe_dump(values))
        if name in ("whole", "lost"):
            (run / "model_checkpoints" / "model_checkpoint_5").mkdir(parents=True)
    (tmp_path / "runs" / "whole" / "model_checkpoints" / "model_checkpoint_5" / "model.weights.h5").touch()
    assert runs_command.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "gone: finished: its checkpoints are gone",
        "lost: finished: model_checkpoint_5 has lost model.weights.h5",
    ]


def test_the_runs_of_a_sweep_are_listed_when_it_is_named(folder):
    assert [run.path for run in list_runs(folder / "sweep")] == [folder / "sweep" / "cell" / "trained" / "a"]
    assert [run.path for run in list_runs(folder / "failed")] == [folder / "failed"]


def test_files_that_cannot_be_used_end_nothing(tmp_path, monkeypatch):
    for name, contents in {
        "config.resolved.yaml": b"\xff\xfe: [",
        "metrics.jsonl": b'\n{"phase": "train", "epoch": "x"}\n[1]\n{"phase": ["test"], "epoch": 1}\n{"ph',
    }.items():
        run = write_run(tmp_path / name)
        (run / name).write_bytes(contents)
    assert describe_run(tmp_path / "config.resolved.yaml").reason == "config.resolved.yaml cannot be read"
    found = describe_run(tmp_path / "metrics.jsonl")
    assert (found.state, found.epochs, found.figure) == ("stopped", 0, None)
    large = write_run(tmp_path / "large", loss=10**400)  # no float holds it
    assert describe_run(large).figure == ("train loss", 0.5)
    monkeypatch.setattr(overview, "_changed", lambda folder: 1e12)
    assert describe_run(large).reason == "cannot be read: year 33658 is out of range"
    other = write_run(tmp_path / "folder")
    (other / "metrics.jsonl").unlink()
    (other / "metrics.jsonl").mkdir()
    assert (describe_run(other).state, describe_run(other).reason) == ("broken", "cannot be read: Is a directory")


def test_a_run_that_has_not_written_its_configuration_yet_is_starting(folder):
    with (folder / "lost" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = describe_run(folder / "lost")
        assert (found.state, found.reason) == ("starting", "")
    assert describe_run(folder / "lost").state == "broken"


def test_a_folder_that_is_not_there_or_has_no_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert runs_command.main([]) == 2
    assert capsys.readouterr().err == (
        "error: runs: no such folder; name the one that your runs are in: tfinpaint runs FOLDER\n"
    )
    assert runs_command.main(["."]) == 0
    assert capsys.readouterr().out == ".: no runs\n"


RESUME = f"everything is saved in {200 * 'a'}; resume with: tfinpaint pretrain --resume --workdir runs/gloo2"


def test_a_command_is_one_line_on_a_narrow_terminal_too(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "runs" / "a", ending={"state": "stopped", "reason": RESUME})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs_command, "table_width", lambda: 80)
    assert runs_command.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"a: stopped: {RESUME}"


def test_how_a_run_ends_is_noted_once_it_has_begun(tmp_path):
    from tfinpaint.cli.options import Options
    from tfinpaint.config.schema import Config

    config = Config.model_validate({"workdir": str(tmp_path / "run"), "data": {"target_type": "labels"}})
    options = Options(config, resume=False, overwrite=True, task="classify")

    def end_by(error: BaseException | None, *, begins: bool = True) -> None:
        with RunFolder(config) as folder:
            folder.open("classifier", options)
            if begins:
                folder.begin(None, [], communication={})
            if error:
                raise error

    cases = [
        (StoppedError("Stopped after epoch 2"), "stopped", "Stopped after epoch 2"),
        (StoppedError(RESUME), "stopped", RESUME),  # a command that is cut names another run
        (UserError(RESUME), "failed", RESUME),
        (ValueError("a\nb"), "failed", "a"),
        (ValueError(300 * "x"), "failed", 200 * "x"),
        (KeyboardInterrupt(), "stopped", "interrupted"),
    ]
    for error, state, reason in cases:
        with pytest.raises(type(error)):
            end_by(error)
        assert (describe_run(tmp_path / "run").state, describe_run(tmp_path / "run").reason) == (state, reason)
    with pytest.raises(ValueError, match="refused"):
        end_by(ValueError("refused"), begins=False)
    assert describe_run(tmp_path / "run").reason == "interrupted"
    with pytest.raises(HostsChangedError):
        end_by(HostsChangedError())  # an elastic run goes on with other ranks
    assert not (tmp_path / "run" / "ending.json").exists()
    end_by(None)
    assert not (tmp_path / "run" / "ending.json").exists()


def test_the_command_loads_no_tensorflow(tmp_path):
    code = "import sys; from tfinpaint.runs.__main__ import main; main(sys.argv[1:]); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == 0


def test_a_summary_with_a_text_in_place_of_a_number_is_broken(tmp_path):
    run = describe_run(write_run(tmp_path / "run", summary={"test_accuracy": "gut"}, accuracy=0.5))
    assert (run.state, run.reason) == ("broken", 'summary.json: test_accuracy is "gut", expected a number')
