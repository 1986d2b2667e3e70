"""The command that continues a run, which is printed where a run stops."""

from pathlib import Path

import pytest

from tfinpaint.cli.options import resume_command


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
    ],
)
def test_the_command_starts_as_many_ranks(monkeypatch, tmp_path, environment, command):
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert resume_command("classify", tmp_path / "runs" / "my run") == command
    assert resume_command("classify", Path("runs/my run")) == command
