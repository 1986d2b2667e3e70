"""Train a classifier of images in class folders, from a pretrained encoder or from scratch.

usage: tfinpaint classify --ranks 2 --config configs/demo/classify.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfinpaint.cli.command import run_command
from tfinpaint.cli.options import Options, explaining_ends, parse_options
from tfinpaint.distributed.start_ranks import start_ranks
from tfinpaint.runs.elastic import run_elastic

if TYPE_CHECKING:
    from tfinpaint.distributed.world import World


def classify(options: Options, world: World) -> None:
    """Train and test a classifier, or only test one, as the configuration says. Every rank calls this."""
    from tfinpaint.runs.classification import run_classification  # imports TensorFlow, which the ranks have set up

    run_classification(options, world)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        options = parse_options("classify", arguments)
        if options.placement:
            given = sys.argv[1:] if arguments is None else arguments
            with explaining_ends(options):
                start_ranks(options.placement, [sys.executable, "-m", "tfinpaint.classify", *given])
        else:
            with explaining_ends(options):
                run_elastic(classify, options)

    return run_command(command, needs_output=False)


if __name__ == "__main__":
    sys.exit(main())
