"""What a page says of its command."""

import json
import re
import sys

import pytest
from pages import COMMON, run_folder

from tfinpaint.report.about import about, command_line
from tfinpaint.report.cells import Code
from tfinpaint.report.run_page import write_run_page


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


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (
            {"tfinpaint": "0.2.0", "revision": "0123456789abcdef" + 24 * "0" + "-dirty", "Python": "3.11.2",
             "TensorFlow": "2.21.0", "Keras": "3.15.1", "Horovod": None, "seed": 0, "started": "2026-01-31"},
            "tfinpaint 0.2.0, revision 0123456789ab-dirty, Python 3.11.2, TensorFlow 2.21.0, Keras 3.15.1, seed 0",
        ),
        ({"tfinpaint": "0.2.0", "revision": None, "Horovod": "0.28.1", "seed": 7},
         "tfinpaint 0.2.0, Horovod 0.28.1, seed 7"),
        ([], None),
    ],
)  # fmt: skip
def test_a_page_names_the_versions_that_the_run_has_written(tmp_path, environment, told):
    figures, config = run_folder(tmp_path / "run", "pretrain")
    (figures.parent / "environment.json").write_text(json.dumps(environment))
    write_run_page(figures.parent, "Pretraining", config, COMMON, [])
    page = (figures.parent / "report.html").read_text()
    found = re.search(r"<td[^>]*>versions</td>\s*<td[^>]*>([^<]*)</td>", page)
    assert (found and found[1]) == told
