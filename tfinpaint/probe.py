"""Judge an encoder's features by simple classifiers on few labels, beside random encoders, raw pixels and HOG.

usage: python -m tfinpaint.probe runs/demo/pretrain --data runs/demo/data/training --test runs/demo/data/testing
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.cli.arguments import make_parser, percentage, whole_number
from tfinpaint.cli.command import run_command
from tfinpaint.cli.encoder_options import add_encoder_options, require_single_process
from tfinpaint.cli.tables import print_table, table_width
from tfinpaint.interface.probing import MOST_REPEATS, SHARES, run_probe


def probe(options: argparse.Namespace) -> None:
    """Probe the encoder that the options name; print and write what was found.

    Raises:
        UserError: The encoder or the images cannot be used, or the output cannot be written.
    """
    from tfinpaint.report.about import command_line

    found = run_probe(
        options.encoder, options.data, options.test, shares=options.shares, repeats=options.repeats,
        compare=options.compare, size=options.size, imagenet=options.imagenet, output=options.output,
        command=command_line(),
    )  # fmt: skip
    from tfinpaint.probing.report import accuracy_tables

    print("\n".join(found.sentences))
    for title, table in accuracy_tables(found.rows).items():
        print_table(title, table, table_width(), "rows")
    print(f"Report (open it in a browser): {found.report}")


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("probe")
        add_encoder_options(parser)
        parser.add_argument(
            "--data", type=Path, required=True, metavar="FOLDER", help="folder of class folders with images"
        )
        parser.add_argument(
            "--test",
            type=Path,
            metavar="FOLDER",
            help="folder of test images with the same classes; default: a fifth of each class",
        )
        parser.add_argument(
            "--shares", type=percentage, nargs="+", default=list(SHARES), metavar="PERCENT",
            help="shares of the labels in percent (default: 1 10 100)",
        )  # fmt: skip
        parser.add_argument(
            "--repeats",
            type=whole_number(1, MOST_REPEATS),
            default=3,
            help="draws of labels for each share below 100 percent (default: 3)",
            metavar="N",
        )
        parser.add_argument(
            "--compare", type=Path, nargs="+", default=[], metavar="WEIGHTS",
            help="further runs or weight files, a row each",
        )  # fmt: skip
        parser.add_argument(
            "--output", type=Path, metavar="FOLDER",
            help="folder for the report; default: probe/ in the run folder, for other weights in the working directory",
        )  # fmt: skip
        parsed = parser.parse_args(arguments)
        require_single_process("probe")
        probe(parsed)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
