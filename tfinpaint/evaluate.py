"""Measure what a run has trained on any folder of images: accuracy, classes and calibration, or restored images.

usage: python -m tfinpaint.evaluate runs/demo/pretrained --data new_images
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.checkpoint.find import find_reported, run_folder_of
from tfinpaint.cli.arguments import add_run_argument, make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.cli.encoder_options import make_output_folder, require_single_process
from tfinpaint.cli.tables import print_table, table_width
from tfinpaint.config.loader import read_values
from tfinpaint.config.sections import Distributed
from tfinpaint.distributed.launch import join_ranks
from tfinpaint.errors import UserError
from tfinpaint.layout import EVALUATIONS, RESOLVED_CONFIG, SUMMARY
from tfinpaint.project.choice import predicting_run
from tfinpaint.system.paths import display_path


def evaluate(options: argparse.Namespace) -> None:
    """Evaluate the run that the options name, print the result, and say where the report is.

    Raises:
        UserError: The run or the images cannot be used, or the output cannot be written.
    """
    options.run = predicting_run(options.run)
    data, found = options.data.resolve(), find_reported(options.run)
    if not data.is_dir():
        raise UserError(f"--data {options.data}: no such folder; expected a folder of images")
    world = join_ranks(Distributed())
    from tfinpaint.runs.folder_evaluation import NETWORK_FILE, evaluate_folder

    run = run_folder_of(options.run) or Path()
    output = (options.output or run / EVALUATIONS / data.name).resolve()
    _check_output(output, options, data)
    made = [each for each in (output, *output.parents) if not each.exists()]
    make_output_folder(output, options.output or output)
    try:
        is_unfinished = not (output / SUMMARY).exists()
        result = evaluate_folder(found, data, output, options.overwrite or is_unfinished, world)
    except (UserError, OSError):
        if output in made:
            (output / NETWORK_FILE).unlink(missing_ok=True)
        for folder in made:
            with contextlib.suppress(OSError):  # something was written into it
                folder.rmdir()
        raise
    print("\n".join(result.sentences))
    for title, table in result.tables.items():
        print_table(title, table, table_width(), "rows")
    print(f"All figures: {display_path(output / SUMMARY)}")


def _check_output(output: Path, options: argparse.Namespace, data: Path) -> None:
    """Refuse a folder among the images, one that holds a training, and unasked one that holds a finished evaluation."""
    if output.is_relative_to(data):
        raise UserError(f"--output {output}: lies in {options.data}, among the images; name another folder")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: is a file; name a folder")
    if not (output / RESOLVED_CONFIG).exists():
        return
    section = read_values(output / RESOLVED_CONFIG).get("data")
    if not isinstance(section, dict) or section.get("input_path") is not None:
        raise UserError(f"--output {output}: holds the run of a training; name another folder")
    if not options.overwrite and (output / SUMMARY).exists():
        raise UserError(f"{output}: holds an evaluation already; add --overwrite, or name another folder by --output")


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("evaluate")
        add_run_argument(parser)
        parser.add_argument(
            "--data", type=Path, required=True, metavar="DIR",
            help="classifier: folder of class folders with names of its classes; inpainter: any folder of images",
        )  # fmt: skip
        parser.add_argument(
            "--output", type=Path, metavar="FOLDER",
            help="folder for report and figures; default: evaluations/ in the run folder, and the name of DIR in it",
        )  # fmt: skip
        parser.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation in that folder")
        parsed = parser.parse_args(arguments)
        require_single_process("evaluate")
        evaluate(parsed)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
