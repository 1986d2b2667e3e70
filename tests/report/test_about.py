"""What a page says of its command."""

import sys

import pytest

from tfinpaint.report.about import about, command_line
from tfinpaint.report.cells import Code


@pytest.mark.parametrize(
    ("started", "shown"),
    [
        (["/x/tfinpaint/classify.py", "--config", "a b.yaml"], "tfinpaint classify --config 'a b.yaml'"),
        (["/x/tfinpaint/__main__.py", "compare", "runs/a"], "tfinpaint compare runs/a"),
        (["/x/bin/tfinpaint", "compare", "runs/a"], "tfinpaint compare runs/a"),
    ],
)
def test_the_command_is_given_as_it_is_typed(monkeypatch, started, shown):
    monkeypatch.setattr(sys, "argv", started)
    assert command_line() == shown


def test_facts_without_a_value_are_left_out():
    section = about({"test images": None, "run folder": "runs/a"}, finished="2026-01-31T16:05:09+01:00", command="x y")
    assert section.table[1:] == [
        ["date", "2026-01-31 16:05 (UTC+01:00)"], ["command", Code("x y")], ["run folder", "runs/a"],
    ]  # fmt: skip
