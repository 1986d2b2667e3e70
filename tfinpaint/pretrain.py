"""Pretrain an encoder without labels: erase a part of each image and learn to restore it.

Where `data.target_path` names other images, the network learns to produce those instead: image to image.

usage: tfinpaint pretrain --ranks 2 --config configs/demo/pretrain.yaml
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


def pretrain(options: Options, world: World) -> None:
    """Pretrain, or evaluate a pretrained network, as the configuration says. Every rank calls this."""
    from tfinpaint.runs.pretraining import run_pretraining  # imports TensorFlow, which the ranks have set up

    run_pretraining(options, world)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        options = parse_options("pretrain", arguments)
        if options.placement:
            given = sys.argv[1:] if arguments is None else arguments
            with explaining_ends(options):
                start_ranks(options.placement, [sys.executable, "-m", "tfinpaint.pretrain", *given])
        else:
            with explaining_ends(options):
                run_elastic(pretrain, options)

    return run_command(command, needs_output=False)


if __name__ == "__main__":
    sys.exit(main())
