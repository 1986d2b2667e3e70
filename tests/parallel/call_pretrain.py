"""Call `tfinpaint.pretrain` twice on every rank; rank 0 prints the losses, and what the other rank was given."""

import json
from collections.abc import Sequence

import tfinpaint
from tfinpaint.distributed.launch import join_once


def main(arguments: Sequence[str]) -> int:
    config, first, second = arguments
    found = [tfinpaint.pretrain(config, workdir=folder, verbose=False) for folder in (first, second)]
    world = join_once(found[0].config.distributed)
    given = world.all_gather([[result.values("loss"), str(result.checkpoint)] for result in found])
    if world.is_rank0:
        print(json.dumps(given))
    return 0
