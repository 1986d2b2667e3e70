"""Write the command reference, docs/commands.md, from the parsers of the commands; a test checks that it is up to date.

usage: python scripts/command_reference.py
"""

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the commands beside this file, whatever is installed

from tfinpaint.__main__ import module_of
from tfinpaint.cli.arguments import Parser
from tfinpaint.cli.purposes import EXAMPLES, PURPOSES

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands

A command is started as `tfinpaint COMMAND`, or, under a launcher of your own, as `python -m tfinpaint.COMMAND`. This
page has what `tfinpaint COMMAND --help` prints; `python scripts/command_reference.py` writes it. The keys of a
configuration are described on [a page of their own](configuration.md), and messages on the page
[troubleshooting](troubleshooting.md).

| exit code | meaning |
|---|---|
| 0 | success, also of a run that was asked to stop by a signal other than Ctrl-C and is saved |
| 1 | an unexpected error, with a traceback |
| 2 | an error that you can correct, in one line |
| 3 | another rank has failed |
| 130 | stopped by Ctrl-C |
"""


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser that a command makes when it is asked for its help; nothing is run or printed."""
    asked: list[argparse.ArgumentParser] = []
    with patch.object(Parser, "print_help", lambda parser, file=None: asked.append(parser)):
        try:
            importlib.import_module(module_of(command)).main(["--help"])
        except SystemExit:
            return asked[0]
    raise AssertionError(f"{command} --help does not end with its help")


def reference() -> str:
    """Return the page: a section for each command."""
    return "\n".join([HEAD, *(line for command in PURPOSES for line in _section(command))]) + "\n"


def _section(command: str) -> Iterator[str]:
    parser = parser_of(command)
    example, following = EXAMPLES[command]
    yield from (f"## {command}", "", PURPOSES[command], "")
    for each in _actions_of(parser) or [parser]:
        yield from _table(each)
    yield from ("For example:", "", "```bash", example, "```", "", f"Next: {following}.", "")


def _actions_of(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of a command that begins with the name of an action, such as `config check`."""
    return [
        choice
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for choice in action.choices.values()
    ]


def _table(parser: argparse.ArgumentParser) -> Iterator[str]:
    shown = [each for each in parser._actions if each.help != argparse.SUPPRESS and each.dest != "help"]
    rows = [f"| `{_invocation(each).replace('|', ' or ')}` | {_meaning(parser, each)} |" for each in shown]
    positional = [_invocation(each) for each in shown if not each.option_strings]
    has_options = len(positional) < len(shown)
    yield from ("    " + " ".join([parser.prog, *["[OPTIONS]"] * has_options, *positional]), "")
    if rows:
        yield from ("| argument | meaning |", "|---|---|", *rows, "")


def _invocation(action: argparse.Action) -> str:
    """Return how an argument is written, such as `--csv FILE` or `PHOTO...`."""
    values = action.metavar or (action.choices and " or ".join(map(str, action.choices))) or action.dest.upper()
    many = {"?": f"[{values}]", "*": f"[{values}...]", "+": f"{values}...", 0: ""}
    return " ".join([*action.option_strings, many.get(action.nargs, str(values))]).strip()


def _meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    meaning = " ".join((action.help or "").split()) % {**vars(action), "prog": parser.prog}
    required = " (required)" if action.option_strings and action.required else ""
    return meaning.replace("<", "&lt;").replace("|", r"\|") + required


if __name__ == "__main__":
    PAGE.write_text(reference())
