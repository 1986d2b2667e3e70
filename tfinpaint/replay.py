"""Examine the batch at which a run stopped because of NaN or Inf, and report where in the network they first occur.

usage: python -m tfinpaint.replay --workdir runs/demo/pretrain [--batch FILE] [--checkpoint FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.config.loader import load_config
from tfinpaint.config.schema import Config
from tfinpaint.distributed.environment import launched_rank
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError
from tfinpaint.layout import RESOLVED_CONFIG
from tfinpaint.system.wording import counted


def replay(workdir: Path, batch: Path | None, weights: Path | None) -> list[str]:
    """Run a saved batch forward and backward, without an update, and report what is not finite.

    With the weights of that time this repeats the step that stopped the run. With those of a checkpoint it shows
    whether the images alone cause the problem.

    Args:
        workdir: the run folder.
        batch: a file of its folder `nonfinite_batches`; None: the last.
        weights: a checkpoint folder of the run, or `best` in its folder; None: the newest, or the initial weights if
            there is none.

    Returns:
        The findings, a line each.

    Raises:
        UserError: The folder holds no run, no such batch or no such checkpoint, or the model does not fit them.
    """
    config = _read_config(workdir)
    start_single_rank(config.distributed)
    from tfinpaint.runs.examine import find_nonfinite, rebuild_trainer
    from tfinpaint.runs.nonfinite import find_nonfinite_batch, load_nonfinite_batch

    file = batch or find_nonfinite_batch(workdir)
    found = load_nonfinite_batch(file)
    trainer, name = rebuild_trainer(config, weights)
    head = f"{found.where}: {counted(len(found.images), 'image')}, with {name}; the run's loss was {found.loss:g}"
    return [head, *find_nonfinite(trainer, found, file)]


def _read_config(workdir: Path) -> Config:
    path = workdir / RESOLVED_CONFIG
    if not path.is_file():
        raise UserError(f"{workdir}: not a run folder; expected {path.name} in it")
    return load_config(path, workdir=workdir)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("replay")
        parser.add_argument("--workdir", type=Path, required=True, metavar="FOLDER", help="run folder")
        parser.add_argument(
            "--batch", type=Path, metavar="FILE", help="file of its folder nonfinite_batches (default: the last)"
        )
        parser.add_argument(
            "--checkpoint", type=Path, metavar="FOLDER", help="checkpoint folder, or RUN/best (default: the newest)"
        )
        parsed = parser.parse_args(arguments)
        if launched_rank():
            return  # rank 0 does all the work
        print("\n".join(replay(parsed.workdir, parsed.batch, parsed.checkpoint)))

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
