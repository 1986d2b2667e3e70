"""Write a trained classifier or encoder for other programs, and check that it computes what the run does.

usage: python -m tfinpaint.export runs/demo/pretrained --format keras --output exported
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.checkpoint.find import find_reported
from tfinpaint.cli.arguments import add_run_argument, make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.cli.encoder_options import require_single_process
from tfinpaint.config.sections import Distributed
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError
from tfinpaint.exporting.kinds import FORMATS, check_libraries
from tfinpaint.project.choice import predicting_run
from tfinpaint.storage.write_errors import explain_os_error

FILE_SUFFIXES = (".keras", ".onnx", ".h5", ".pb")


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parsed = _parser().parse_args(arguments)
        require_single_process("export")
        _check(parsed)
        parsed.run = predicting_run(parsed.run)
        find_reported(parsed.run)  # refuses what is missing before TensorFlow is loaded
        start_single_rank(Distributed())
        from tfinpaint.exporting.run import export_run

        output = parsed.output[0]
        try:
            print("\n".join(export_run(parsed.run, parsed.format[0], output)))
        except OSError as error:
            raise UserError(f"--output {output}: cannot be written: {explain_os_error(error)}") from None

    return run_command(command)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("export")
    add_run_argument(parser)
    parser.add_argument(
        "--format", action="append", required=True, choices=FORMATS,
        help="keras, savedmodel or onnx: the classifier, which takes photos of any size; encoder: the network without "
        "its head, of a classifier or a pretraining, as a Keras file",
    )  # fmt: skip
    parser.add_argument(
        "--output", action="append", type=Path, required=True, metavar="FOLDER",
        help="folder to make, for the model, its classes and MODEL_CARD.md",
    )  # fmt: skip
    return parser


def _check(parsed: argparse.Namespace) -> None:
    """Refuse several formats or outputs, and an output that is there or is named like a file."""
    for name in ("format", "output"):
        if len(given := getattr(parsed, name)) > 1:
            raise UserError(
                f"--{name}: is given {len(given)} times; one export has one {name}, so run the command once for each"
            )
    check_libraries(parsed.format[0])
    output = parsed.output[0]
    if output.suffix in FILE_SUFFIXES:
        raise UserError(
            f"--output {output}: is named like a file; expected a folder, such as {output.with_suffix('')}, which will "
            "hold the model and its card"
        )
    if output.exists():
        raise UserError(f"--output {output}: is there already; name another folder, or remove this one yourself")


if __name__ == "__main__":
    sys.exit(main())
