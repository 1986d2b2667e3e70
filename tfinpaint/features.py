"""Write an encoder's features of images to a file, with their names and labels, for other programs.

usage: python -m tfinpaint.features runs/demo/pretrain runs/demo/data/testing --output features.npz
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.checkpoint.find import find_weights
from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.cli.encoder_options import add_encoder_options, make_output_folder, require_single_process
from tfinpaint.config.sections import Distributed
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError
from tfinpaint.probing.images import leave_out_unreadable, list_labelled_or_not
from tfinpaint.probing.tables import check_table, write_table
from tfinpaint.system.wording import counted

log = logging.getLogger(__name__)


def write_features(options: argparse.Namespace) -> list[str]:
    """Compute the features that the options ask for, and write them.

    Returns:
        Lines that say what was written.

    Raises:
        UserError: The encoder or the images cannot be used, or the output cannot be written.
    """
    find_weights(options.encoder)  # what is missing is refused before TensorFlow is loaded
    check_table(options.output)
    listing = list_labelled_or_not(options.images)
    start_single_rank(Distributed())
    from tfinpaint.probing.encoder import load_encoder
    from tfinpaint.probing.features import extract_features

    size = (options.size, options.size) if options.size else None
    source = load_encoder(options.encoder, size, imagenet=options.imagenet)
    if options.imagenet and not source.is_keras:
        raise UserError(f"--imagenet: is for weight files that Keras has saved; {options.encoder} is not one")
    for note in source.notes:
        log.info(note)
    listing, _ = leave_out_unreadable(listing)
    make_output_folder(options.output.parent, options.output)
    models = {source.name: (source.encoder, source.model)}
    features = extract_features(listing, source.preprocessing, models)[source.name]
    try:
        write_table(options.output, listing, features)
    except OSError as error:
        raise UserError(f"--output {options.output}: cannot be written: {error.strerror or error}") from None
    sizes = ", ".join(f"stage {stage}: {values.shape[1]}" for stage, values in features.items())
    labels = (
        f" with labels of {counted(len(listing.classes), 'class', 'classes')}" if listing.classes else " without labels"
    )
    return [f"Features of {counted(len(listing), 'image')}{labels} ({sizes} numbers per image): {options.output}"]


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("features")
        add_encoder_options(parser)
        parser.add_argument("images", type=Path, metavar="DIR", help="folder of images; class folders give the labels")
        parser.add_argument(
            "--output", type=Path, required=True, metavar="FILE",
            help="file to write: .npz (NumPy), .csv, or .parquet, which needs pyarrow; an existing one is replaced",
        )  # fmt: skip
        parsed = parser.parse_args(arguments)
        require_single_process("features")
        print("\n".join(write_features(parsed)))

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
