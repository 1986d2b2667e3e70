"""The options and checks of the commands that use an encoder's features."""

from __future__ import annotations

import argparse
from pathlib import Path

from tfinpaint.cli.arguments import whole_number
from tfinpaint.config.encoders import LEAST_SIDE
from tfinpaint.config.transforms import MAX_SIDE
from tfinpaint.distributed.environment import launched_size
from tfinpaint.errors import UserError
from tfinpaint.storage.write_errors import explain_os_error, why_not_writable


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name an encoder and tell how images are prepared for it."""
    parser.add_argument(
        "encoder", type=Path, metavar="RUN|WEIGHTS",
        help="run folder (its best checkpoint, else the newest), checkpoint folder, encoder.weights.h5, or a file of "
        "ResNet50 that Keras has saved (.weights.h5, .keras, .h5)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=whole_number(LEAST_SIDE, MAX_SIDE), metavar="PIXELS",
        help="side of the images that a weight file receives; runs know theirs",
    )  # fmt: skip
    parser.add_argument(
        "--imagenet", action="store_true",
        help="weight files of Keras receive what keras.applications.resnet.preprocess_input makes, as Keras' ImageNet "
        "weights need: BGR, 0 to 255, minus the mean colour; default: RGB from 0 to 1",
    )  # fmt: skip


def require_single_process(command: str) -> None:
    """Raise UserError if a launcher has started several processes."""
    if (size := launched_size()) > 1:
        raise UserError(
            f"tfinpaint {command} runs in one process, and a launcher has started {size}; start it without mpirun, "
            "horovodrun or srun"
        )


def make_output_folder(folder: Path, output: Path) -> None:
    """Make the folder that an output will be written into, before anything takes time.

    Args:
        output: that the user has named, for the message.

    Raises:
        UserError: The folder cannot be made, or nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {explain_os_error(error)}") from None
    if reason := why_not_writable(folder):
        raise UserError(f"--output {output}: cannot be written: {reason}")
