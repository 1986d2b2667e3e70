"""The section of a report about how its results came about: date, command, data, and the runs behind them."""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfinpaint.report.cells import Code
from tfinpaint.report.html import Section


def now() -> str:
    """Return the present date and time of the local clock, with its offset from UTC, as ISO 8601 has it."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def command_line() -> str:
    """Return the command that this process was started with, as it is typed.

    `python -m tfinpaint.NAME` is given as `tfinpaint NAME`, which is the same.
    """
    program = Path(sys.argv[0])
    name = program.name
    if program.parent.name == "tfinpaint":
        name = "tfinpaint" if program.stem == "__main__" else f"tfinpaint {program.stem}"
    return shlex.join([*name.split(), *sys.argv[1:]])


def about(facts: Mapping[str, Any], *, finished: str, command: str) -> Section:
    """Return the section.

    Args:
        facts: further rows, name -> cell; those without a value are left out.
        finished: from `now`.
        command: from `command_line`.
    """
    date, _, time = finished.partition("T")
    rows = {"date": f"{date} {time[:5]} (UTC{time[8:]})", "command": Code(command), **facts}
    return Section("About this page", table=[["", ""], *([name, cell] for name, cell in rows.items() if cell)])
