"""Compare finished runs: a table on the terminal, and one report of them all.

usage: python -m tfinpaint.compare --report runs/demo/report.html runs/demo/pretrain runs/demo/pretrained ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.cli.tables import print_table, table_width
from tfinpaint.errors import UserError
from tfinpaint.project.stages import runs_of

MOST_SENTENCES = 10  # on the terminal; the report has all


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("compare")
        parser.add_argument(
            "runs", type=Path, nargs="+", metavar="RUN", help="run folders, or a project for all its runs"
        )
        parser.add_argument(
            "--report", type=Path, default=Path("comparison.html"), metavar="FILE",
            help="page to write; an existing one is replaced (default: comparison.html)",
        )  # fmt: skip
        parsed = parser.parse_args(arguments)
        runs = [run for path in parsed.runs for run in runs_of(path)]
        from tfinpaint.report.comparison import write_comparison  # loads matplotlib

        try:
            compared = write_comparison(runs, parsed.report)
        except OSError as error:
            raise UserError(f"{parsed.report}: the report cannot be written: {error.strerror}") from None
        for title, table in compared.tables.items():
            print_table(title, table, table_width(), "runs")
        print("\n".join(compared.sentences[:MOST_SENTENCES]))
        print(f"Report (open it in a browser): {parsed.report}")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
