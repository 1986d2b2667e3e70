"""The command reference in the docs is that of the parsers."""

import importlib.util

from pages_text import ROOT

from tfinpaint.cli.purposes import PURPOSES

SPEC = importlib.util.spec_from_file_location("command_reference", ROOT / "scripts" / "command_reference.py")
command_reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(command_reference)


def test_the_page_is_that_of_the_parsers():
    text = (ROOT / "docs" / "commands.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(PURPOSES)
    assert "| `--test-fraction FRACTION` | fraction of each class for testing/ (default: 0.1) |" in text
    assert command_reference.reference() == text, "run scripts/command_reference.py"
