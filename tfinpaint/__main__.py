"""The console command: `tfinpaint COMMAND ...` is `python -m tfinpaint.COMMAND ...`."""

from __future__ import annotations

import difflib
import importlib
import os
import shutil
import sys
import textwrap

from tfinpaint.cli.purposes import PURPOSES
from tfinpaint.system import streams
from tfinpaint.system.subprocesses import CONTINUED_BY
from tfinpaint.version import __version__

# Names of similar commands of other programs.
_OTHER_NAMES = {
    "train": "pretrain",
    "fit": "pretrain",
    "finetune": "classify",
    "inpaint": "predict",
    "restore": "predict",
}
# The modules of commands that have another name than the command.
_MODULES = {"config": "config.__main__", "runs": "runs.__main__"}  # these are packages


def module_of(command: str) -> str:
    """Return the name of the module whose `main` is a command."""
    return f"tfinpaint.{_MODULES.get(command, command)}"


def main() -> int:
    """Run the command that the first argument names, and return its exit code."""
    command, *arguments = sys.argv[1:] or [""]
    if command == "help" and arguments[:1] and arguments[0] in PURPOSES:  # `tfinpaint help COMMAND`
        command, arguments = arguments[0], ["--help"]
    if command in PURPOSES:
        try:
            return importlib.import_module(module_of(command)).main(arguments)
        except KeyboardInterrupt:  # while its modules were imported
            again = os.environ.get(CONTINUED_BY)
            print(f"interrupted; continue with: {again}" if again else "interrupted", file=sys.stderr)
            return 130
    streams.make_lenient()
    if command in ("--version", "-V", "version"):
        print(f"tfinpaint {__version__}")
        return 0
    if command and command not in ("-h", "--help", "help"):
        print(f"error: {_unknown(command)}", file=sys.stderr)
        return 2
    print(_overview(shutil.get_terminal_size().columns))
    return 0 if command else 2


def _overview(width: int) -> str:
    """Return the list of all commands, in lines of at most so many characters."""
    lines = [
        textwrap.fill(purpose, width, initial_indent=f"  {name:10}", subsequent_indent=" " * 12)
        for name, purpose in PURPOSES.items()
    ]
    ending = "Each takes --help. tfinpaint --version prints the version."
    return "\n".join(["usage: tfinpaint COMMAND [options]", "", *lines, "", ending])


def _unknown(command: str) -> str:
    if command.startswith("-") and (near := difflib.get_close_matches(command, ("--version", "--help"), n=1)):
        return f"there is no option {command}; did you mean tfinpaint {near[0]}?"
    near = difflib.get_close_matches(command.lower(), [*PURPOSES, *_OTHER_NAMES], n=1, cutoff=0.6)
    if near and not command.startswith("-"):
        return f"there is no command {command}; did you mean tfinpaint {_OTHER_NAMES.get(near[0], near[0])}?"
    what = "no command in front of it" if command.startswith("-") or "." in command else "no such command"
    return f"{command}: {what}; there are {', '.join(PURPOSES)}, each as `tfinpaint COMMAND --help`"


if __name__ == "__main__":
    sys.exit(main())
