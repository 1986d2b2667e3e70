"""The command that continues a run, which is printed where a run stops."""

import errno
import os
from pathlib import Path

import pytest

from tfinpaint.cli.options import Options, explaining_ends, resume_command, saved_so_far
from tfinpaint.config.schema import Config
from tfinpaint.distributed.start_ranks import Placement
from tfinpaint.errors import UserError
from tfinpaint.runs.nonfinite import how_to_continue
from tfinpaint.system.paths import display_path


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({}, "tfinpaint classify --resume --workdir 'runs/my run'"),
        (
            {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
            "tfinpaint classify --ranks 2 --resume --workdir 'runs/my run'",
        ),
        (
            {"HOROVOD_SIZE": "8", "HOROVOD_LOCAL_SIZE": "4"},
            "(launcher and its options as before) python -m tfinpaint.classify --resume --workdir 'runs/my run'",
        ),
        (
            {"HOROVOD_SIZE": "8", "HOROVOD_LOCAL_SIZE": "4", "TFINPAINT_HOSTS": "node1:4,node2:4"},
            "tfinpaint classify --hosts node1:4,node2:4 --resume --workdir 'runs/my run'",
        ),
    ],
)
def test_the_command_starts_as_many_ranks(monkeypatch, tmp_path, environment, command):
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert resume_command("classify", tmp_path / "runs" / "my run") == command
    assert resume_command("classify", Path("runs/my run")) == command


def test_a_process_that_has_started_ranks_names_their_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here, elsewhere = Placement(3, "localhost:3", is_local=True), Placement(4, "node1:2,node2:2", is_local=False)
    assert resume_command("classify", Path("run"), here) == "tfinpaint classify --ranks 3 --resume --workdir run"
    assert resume_command("classify", Path("run"), elsewhere).startswith(
        "tfinpaint classify --hosts node1:2,node2:2 --"
    )


def test_a_stage_is_resumed_by_the_command_of_all_stages(tmp_path, monkeypatch):
    monkeypatch.setenv("TFINPAINT_CONTINUED_BY", "tfinpaint run pets")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert resume_command("classify", tmp_path) == "tfinpaint run pets"
    config = Config.model_validate({"workdir": str(tmp_path), "data": {"input_path": "images"}})
    again = "nothing has been saved yet; start the run again with: tfinpaint run pets"
    assert saved_so_far("classify", config) == again
    (tmp_path / "config.resolved.yaml").touch()
    assert saved_so_far("classify", config) == again
    lowered = f"remove {display_path(tmp_path)}, and start again with: tfinpaint run pets"
    assert how_to_continue("classify", config) == lowered


def test_an_evaluation_that_is_interrupted_is_started_again_since_only_trainings_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"workdir": str(tmp_path / "run"), "data": {"test_input_path": "images"}}
    evaluation = Config.model_validate(values)
    again = "nothing has been saved yet; the same command starts the run again"
    assert saved_so_far("classify", evaluation) == again
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.resolved.yaml").touch()
    again = "nothing has been saved; the same command with --overwrite starts the evaluation again"
    assert saved_so_far("classify", evaluation) == again
    training = Config.model_validate({**values, "data": {"input_path": "images"}})
    assert saved_so_far("classify", training).endswith(
        "start the run again with: tfinpaint classify --resume --workdir run"
    )


def test_an_error_of_a_disk_is_told_with_what_continues_the_command_that_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.resolved.yaml").touch()
    checkpoint = tmp_path / "run" / "model_checkpoints" / "model_checkpoint_3"
    checkpoint.mkdir(parents=True)

    def told(**data: str) -> str:
        values = {"workdir": str(tmp_path / "run"), "checkpoints": {"save": str(checkpoint.parent)}, "data": data}
        options = Options(Config.model_validate(values), resume=False, overwrite=False, task="classify")
        with pytest.raises(UserError) as raised, explaining_ends(options):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")
        return str(raised.value)

    full = "x: No space left on device; free some space; "
    newest = f"{full}the newest checkpoint is run/model_checkpoints/model_checkpoint_3; resume with: "
    assert told(input_path="images") == f"{newest}tfinpaint classify --resume --workdir run"
    again = f"{full}nothing has been saved; the same command with --overwrite starts the evaluation again"
    assert told(test_input_path="images") == again
    monkeypatch.setenv("TFINPAINT_CONTINUED_BY", "tfinpaint run pets")
    assert told(input_path="images") == f"{newest}tfinpaint run pets"
