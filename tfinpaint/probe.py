"""Judge an encoder's features by simple classifiers on few labels, beside random encoders, raw pixels and HOG.

usage: python -m tfinpaint.probe runs/demo/pretrain --data runs/demo/data/training --test runs/demo/data/testing
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.cli.encoder_options import add_encoder_options, make_output_folder, require_single_process
from tfinpaint.cli.tables import print_table, terminal_width
from tfinpaint.config.sections import Distributed
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError
from tfinpaint.layout import PROBE, REPORT

log = logging.getLogger(__name__)

SHARES = (1.0, 10.0, 100.0)
MOST_REPEATS = 100


def probe(options: argparse.Namespace) -> None:
    """Probe the encoder that the options name; print and write what was found.

    Raises:
        UserError: The encoder or the images cannot be used, or the output cannot be written.
    """
    start_single_rank(Distributed())
    from tfinpaint.probing.encoder import load_encoder, run_folder_of
    from tfinpaint.probing.images import open_labelled
    from tfinpaint.probing.page import write_report
    from tfinpaint.probing.report import accuracy_tables
    from tfinpaint.probing.study import study

    if len({options.encoder, *options.compare}) <= len(options.compare):
        raise UserError("--compare: names an encoder twice")
    folder = options.output or (run_folder_of(options.encoder) or Path()) / PROBE
    _check_output(folder, options.data, options.test)
    size = (options.size, options.size) if options.size else None
    source = load_encoder(options.encoder, size, imagenet=options.imagenet)
    others = [
        load_encoder(path, source.shape[:2], imagenet=options.imagenet, required=False) for path in options.compare
    ]
    if options.imagenet and not any(each.is_keras for each in (source, *others)):
        raise UserError("--imagenet: is for weight files that Keras has saved; none of the encoders is one")
    for note in [note for each in (source, *others) for note in each.notes]:
        log.info(note)
    images = open_labelled(options.data, options.test)
    make_output_folder(folder, folder)
    found = study(source, others, images, [share / 100 for share in options.shares], options.repeats)
    try:
        write_report(folder, source, found)
    except OSError as error:
        raise UserError(f"{folder}: the report cannot be written: {error.strerror or error}") from None
    print("\n".join(found.sentences))
    for title, table in accuracy_tables(found.rows).items():
        print_table(title, table, terminal_width(), "rows")
    print(f"Report (open it in a browser): {folder / REPORT}")


def _check_output(folder: Path, *among: Path | None) -> None:
    """Raise UserError if the output would be a file, or lie among the images, where its figures would be images too."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder}: is a file; name a folder")
    for images in among:
        if images is not None and folder.resolve().is_relative_to(images.resolve()):
            raise UserError(f"--output {folder}: lies in {images}, among the images; name another folder")


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
            "--shares", type=_share, nargs="+", default=list(SHARES), metavar="PERCENT",
            help="shares of the labels in percent (default: 1 10 100)",
        )  # fmt: skip
        parser.add_argument(
            "--repeats",
            type=_repeats,
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


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 100:
        raise argparse.ArgumentTypeError(f"{text}: expected a percentage above 0, at most 100")
    return share


def _repeats(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_REPEATS:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 1 to {MOST_REPEATS}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
