"""Find out whether pretraining pays: accuracy over shares of the labels, pretrained and not, frozen and trained.

usage: python -m tfinpaint.sweep --config configs/natural_images_32px/classify.yaml --weights runs/mine/pretrain
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.checkpoint.find import find_weights
from tfinpaint.cli.arguments import add_config_options, make_parser, parse_arguments, percentage, whole_number
from tfinpaint.cli.command import run_command
from tfinpaint.cli.encoder_options import require_single_process
from tfinpaint.cli.options import load_checked
from tfinpaint.cli.tables import print_table, table_width
from tfinpaint.errors import UserError
from tfinpaint.layout import REPORT
from tfinpaint.sweeping.plan import LEAST_STEPS, SCRATCH_DECAYS, SCRATCH_RATES, Asked, make_plan
from tfinpaint.system.paths import display_path

log = logging.getLogger(__name__)

SHARES = (1.0, 5.0, 10.0, 20.0, 40.0, 100.0)
DRAWS = 3
MOST_DRAWS = 100


def sweep(options: argparse.Namespace) -> None:
    """Run the sweep that the options ask for, or say what would run.

    Raises:
        UserError: The configuration, the encoder or the images cannot be used, or a run has failed.
        StoppedError: The sweep was asked to stop.
    """
    if options.config is None:
        raise UserError("--config FILE is missing: a configuration of classify, such as configs/demo/classify.yaml")
    overrides = list(options.overrides)
    if options.weights is not None:
        weights = find_weights(options.weights)
        if weights.note:
            log.info(weights.note)
        overrides.append(f"checkpoints.load={weights.path}")
    config = load_checked(options.config, overrides, "classify", 1)
    assert config.workdir is not None
    folder = (options.workdir or config.workdir.with_name(f"{config.workdir.name}_sweep")).resolve()
    asked = Asked(
        tuple(share / 100 for share in options.shares), options.seeds, options.steps,
        options.rates and tuple(options.rates), tuple(options.scratch_rates), tuple(options.scratch_weight_decays),
    )  # fmt: skip
    plan = make_plan(folder, config, asked)

    from tfinpaint.sweeping.run import dry_run, run_sweep  # imports TensorFlow

    if options.dry_run:
        title, table, sentences = dry_run(plan, options.workers)
        print_table(title, table, table_width(), "shares")
        print("\n".join(sentences))
        return
    found = run_sweep(plan, asked, options.workers)
    print("\n".join(found.sentences))
    if found.rows:
        print_table("Test accuracy (mean ± deviation over the draws)", found.table, table_width(), "encoders")
    print(f"Report (open it in a browser): {display_path(folder / REPORT)}")


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("sweep")
        add_config_options(parser, "YAML or JSON file of classify, with training and test images")
        parser.add_argument(
            "--weights", type=Path, metavar="RUN|WEIGHTS",
            help="pretrained encoder: a run folder (its best checkpoint, else the newest), a checkpoint or a weight "
            "file; default: checkpoints.load",
        )  # fmt: skip
        parser.add_argument(
            "--shares", type=percentage, nargs="+", default=list(SHARES), metavar="PERCENT",
            help="shares of the labels in percent (default: 1 5 10 20 40 100)",
        )  # fmt: skip
        parser.add_argument(
            "--seeds", type=whole_number(1, MOST_DRAWS), default=DRAWS, metavar="N",
            help=f"draws of the labels at each share, each with other random weights (default: {DRAWS})",
        )  # fmt: skip
        parser.add_argument(
            "--steps", type=whole_number(1, 10**9), metavar="N",
            help="steps of a fine-tuning at every share; from scratch takes three times as many; default: those of the "
            f"configuration with all labels, at least {LEAST_STEPS}",
        )  # fmt: skip
        parser.add_argument(
            "--rates", type=_positive, nargs="+", metavar="RATE",
            help="learning rates of fine-tuning; default: that of the configuration times 0.3, 1 and 3",
        )  # fmt: skip
        parser.add_argument(
            "--scratch-rates", type=_positive, nargs="+", default=list(SCRATCH_RATES), metavar="RATE",
            help=f"learning rates from scratch, of AdamW (default: {' '.join(f'{rate:g}' for rate in SCRATCH_RATES)})",
        )  # fmt: skip
        parser.add_argument(
            "--scratch-weight-decays", type=_not_negative, nargs="+", default=list(SCRATCH_DECAYS), metavar="DECAY",
            help=f"weight decays from scratch (default: {' '.join(f'{decay:g}' for decay in SCRATCH_DECAYS)})",
        )  # fmt: skip
        parser.add_argument(
            "--workers", type=whole_number(1, 1024), metavar="N",
            help="runs at the same time; default: one for each GPU, or for two cores",
        )  # fmt: skip
        parser.add_argument(
            "--workdir", type=Path, metavar="FOLDER",
            help="folder of the sweep, which continues there; default: that of the configuration with _sweep behind it",
        )  # fmt: skip
        parser.add_argument("--dry-run", action="store_true", help="say what would run and how long it would take")
        parsed = parse_arguments(parser, arguments)
        require_single_process("sweep")
        sweep(parsed)

    return run_command(command)


def _positive(text: str) -> float:
    if not 0 < (number := _number(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return number


def _not_negative(text: str) -> float:
    if not 0 <= (number := _number(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a number, 0 or more")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


if __name__ == "__main__":
    sys.exit(main())
