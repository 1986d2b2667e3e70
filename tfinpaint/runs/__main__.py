"""List the runs in a folder.

usage: python -m tfinpaint.runs
       python -m tfinpaint.runs my_runs --json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tfinpaint.checkpoint.find import epoch_and_step
from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.cli.tables import print_listing, table_width
from tfinpaint.data.listing.walk import printable
from tfinpaint.report.parts_of_loss import RECONSTRUCTION
from tfinpaint.runs.overview import RunOverview, list_runs
from tfinpaint.system.paths import display_path

DEFAULT = Path("runs")
HEAD = ["run", "kind", "date", "data", "epochs", "result", "best", "state"]
BEST = (
    "best: the epoch of the lowest loss on held-out images. tfinpaint predict RUN takes the newest checkpoint (the "
    "best one where validation images have chosen it), tfinpaint predict RUN/best the best one."
)
SHORT = {"accuracy": "acc.", RECONSTRUCTION: "reconstr."}
WRAPPED = (0, 1, 3)  # run, kind and data
_PARTS = ("training", "testing", "validation")  # of a folder that `prepare` has made, which has the telling name


def _row(run: RunOverview, folder: Path) -> list[str]:
    """Return the cells of a run."""
    name = display_path(folder) if run.path == folder else run.path.relative_to(folder).as_posix()
    epochs = "" if run.epochs is None else f"{run.epochs}/{run.num_epochs or '?'}"
    best = str(epoch_and_step(run.best)[0]) if run.best else ""
    date = f"{run.date:%Y-%m-%d}" if run.date else ""
    cells = [name, run.kind or "", date, _short_data(run.data), epochs, _short_figure(run), best, run.state]
    return [printable(cell) or "-" for cell in cells]


def _short_data(data: str | None) -> str:
    """Return the name of the data set at a path."""
    if not data:
        return ""
    path = Path(data)
    path = path.parent if path.name in _PARTS else path
    return f"{path.parent.name}/{path.name}" if path.name == "data" else path.name


def _short_figure(run: RunOverview) -> str:
    """Return the main figure in a few characters."""
    if run.figure is None:
        return ""
    name, value = run.figure[0].split()[-1], run.figure[1]
    return f"{value:.1f} dB" if name == "hole_psnr_db" else f"{SHORT.get(name, name)} {value:.3f}"


def _as_json(run: RunOverview) -> dict[str, Any]:
    name, value = run.figure or (None, None)
    return {
        "run": str(run.path), "kind": run.kind, "state": run.state, "reason": run.reason,
        "date": run.date.isoformat(timespec="seconds") if run.date else None, "data": run.data,
        "epochs": run.epochs, "num_epochs": run.num_epochs, "figure": name, "value": value,
        "best_checkpoint": str(run.best) if run.best else None,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("runs")
        parser.add_argument(
            "folder", type=Path, nargs="?", default=DEFAULT, metavar="FOLDER",
            help="folder that is searched, with its subfolders; default: runs",
        )  # fmt: skip
        parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
        parsed = parser.parse_args(arguments)
        runs = list_runs(parsed.folder)
        if parsed.json:
            print(json.dumps([_as_json(run) for run in runs], indent=1))
        elif not runs:
            print(f"{parsed.folder}: no runs")
        else:
            _print(runs, parsed.folder)

    return run_command(command)


def _print(runs: Sequence[RunOverview], folder: Path) -> None:
    """Print the table, then why runs are broken, have failed or were stopped, and what finished ones have lost.

    The terminal breaks the lines of the latter, so that a command in them can be copied.
    """
    width = table_width()
    print_listing([HEAD, *(_row(run, folder) for run in runs)], width, WRAPPED)
    console = Console(width=width, highlight=False, soft_wrap=False)
    if any(run.best for run in runs):
        console.print(BEST)
    for run in runs:
        if run.reason:
            console.print(Text(f"{_row(run, folder)[0]}: {run.state}: {printable(run.reason)}"), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
