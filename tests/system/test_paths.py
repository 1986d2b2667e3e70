"""Paths are shown relative to where one stands."""

import pytest

from tfinpaint.system.paths import display_path, shorten_paths


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("{here}/runs/a: no such folder", "runs/a: no such folder"),
        ("use {here}/.venv/bin/python, not '{here}/b c.yaml'", "use .venv/bin/python, not 'b c.yaml'"),
        ("{here}er/runs and /mnt{here}/runs", "{here}er/runs and /mnt{here}/runs"),
        ("{here}: is a folder", "{here}: is a folder"),
    ],
)
def test_paths_in_messages_are_relative_to_the_working_directory(monkeypatch, tmp_path, message, shown):
    monkeypatch.chdir(tmp_path)
    assert shorten_paths(message.format(here=tmp_path)) == shown.format(here=tmp_path)


def test_paths_stay_whole_in_the_root_and_where_the_working_directory_is_gone(monkeypatch, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert shorten_paths(f"{gone}/runs") == f"{gone}/runs"
    assert display_path(gone / "runs") == f"{gone}/runs"
    monkeypatch.chdir("/")
    assert shorten_paths("/runs/a") == "/runs/a"


def test_a_path_is_shown_in_its_shorter_form(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert display_path(tmp_path / "runs" / "a") == "runs/a"
