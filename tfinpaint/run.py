"""Run all stages of a project that `init` has made: prepare, pretrain, classify, from scratch, compare.

usage: tfinpaint run runs/my_photos
       tfinpaint run runs/my_photos --ranks 2
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.cli.encoder_options import require_single_process
from tfinpaint.distributed.start_ranks import read_placement
from tfinpaint.project.run import run_project


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("run")
        parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder that `tfinpaint init` has made")
        parser.add_argument(
            "--ranks", type=int, metavar="N", help="train on N processes that act as one, as pretrain and classify do"
        )
        parsed = parser.parse_args(arguments)
        require_single_process("run")
        placement = read_placement(parsed.ranks, None)
        print("\n".join(run_project(parsed.folder, placement.ranks if placement else 1)))

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
