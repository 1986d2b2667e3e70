"""The command that continues a run, which is printed where a run stops."""

from pathlib import Path

import pytest

from tfinpaint.cli.options import resume_command, saved_so_far
from tfinpaint.config.schema import Config


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
