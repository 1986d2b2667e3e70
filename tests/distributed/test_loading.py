"""The line before TensorFlow is loaded: only where somebody waits for it."""

import sys

import pytest

from tfinpaint.distributed import launch


@pytest.mark.parametrize(
    ("terminal", "continued", "rank", "loaded", "said"),
    [
        (True, False, 0, False, True),
        (False, True, 0, False, True),  # a stage of `run`, whose output may go into a file
        (False, False, 0, False, False),
        (True, False, 1, False, False),
        (True, True, 0, True, False),
    ],
)
def test_loading_is_announced_where_somebody_waits(monkeypatch, caplog, terminal, continued, rank, loaded, said):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(launch, "launched_rank", lambda: rank)
    if continued:
        monkeypatch.setenv("TFINPAINT_CONTINUED_BY", "tfinpaint run x")
    if loaded:
        monkeypatch.setitem(sys.modules, "tensorflow", object())
    else:
        monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    with caplog.at_level("INFO"):
        launch._announce_loading()
    assert caplog.messages == ["Loading TensorFlow (this can take a minute)..."] * said
