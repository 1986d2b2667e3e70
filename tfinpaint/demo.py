"""Show in a few minutes what pretraining by inpainting is good for, on handwritten digits that come with scikit-learn.

A ResNet18 learns to restore a quarter of each digit, without labels. A classifier that starts from it gets two labels
of each digit, and so does the same classifier that starts from random weights.

usage: tfinpaint demo
       tfinpaint demo --ranks 2
"""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.cli.encoder_options import require_single_process
from tfinpaint.cli.options import load_resolved, saved_so_far
from tfinpaint.cli.tables import print_table, table_width
from tfinpaint.config.checks import Command
from tfinpaint.config.recipes import FOLDER as CONFIGS
from tfinpaint.config.recipes import write_recipes
from tfinpaint.config.schema import Config
from tfinpaint.data.ingest.copy import prepare
from tfinpaint.distributed.start_ranks import read_placement
from tfinpaint.errors import UserError
from tfinpaint.layout import SUMMARY
from tfinpaint.sweeping.processes import continued_by, run_training, training_command

log = logging.getLogger(__name__)

FOLDER = Path("runs", "demo")
REPORT = FOLDER / "report.html"
FROM_SCRATCH = ("checkpoints.load=null", "model.head_init=random", "optimizer.learning_rate=1e-3")

_END = """
What was done: A network learnt to restore erased parts of 1,618 digits, without their labels. A classifier
began with its encoder and was trained with 20 labels. The sentences above compare it with the same
classifier from random weights, on 179 digits that no network was trained on.

Look at it:    {report} (open it in a browser: restored digits, accuracies, confusion matrices)
               {folder}/pretrain/figures/restorations.png
Type next:     tfinpaint predict {folder}/pretrained {folder}/data/testing/7
               tfinpaint init my_photos        your own images, in one folder for each class
               tfinpaint run runs/my_photos    all of this with them"""


@dataclass(frozen=True)
class Stage:
    """One training of the demo.

    Attributes:
        config: name of its configuration in configs/demo.
        run: its run folder.
        overrides: what differs from the configuration, as for --set.
    """

    title: str
    task: Command
    config: str
    run: Path
    overrides: tuple[str, ...] = ()

    def command(self, overrides: Sequence[str], ranks: int) -> Sequence[str]:
        """Return the command that begins or continues it; its own overrides count more than the given ones."""
        sets = _set_options((*overrides, *self.overrides))
        started = ["--ranks", str(ranks)] if ranks > 1 else []
        options = ("--workdir", str(self.run), *sets, *started, "--resume")
        return training_command(self.task, CONFIGS / "demo" / self.config, *options)

    def resolved(self, overrides: Sequence[str]) -> Config:
        """Return the configuration of the run.

        Raises:
            UserError: The file cannot be read.
        """
        return load_resolved(CONFIGS / "demo" / self.config, (*overrides, *self.overrides), self.task, self.run)


def _set_options(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


STAGES = (
    Stage(
        "Pretraining without labels: a quarter of each digit is erased, and the network learns to restore it",
        *("pretrain", "pretrain.yaml", FOLDER / "pretrain"),
    ),
    Stage(
        "A classifier that starts from the pretrained encoder: 20 labels, two of each digit",
        *("classify", "classify.yaml", FOLDER / "pretrained"),
    ),
    Stage(
        "The same classifier from random weights, with a learning rate chosen for it",
        *("classify", "classify.yaml", FOLDER / "from_scratch", FROM_SCRATCH),
    ),
)


def demo(overrides: Sequence[str], ranks: int) -> None:
    """Run what is left of the demo in the working directory, and print its result.

    Args:
        overrides: what differs in the configurations of all trainings, as for --set.
        ranks: number of processes that pretrain as one.

    Raises:
        UserError: A file cannot be written, or a training has failed.
        StoppedError, SystemExit: A training was asked to stop; it has said how to continue, or the error says it.
    """
    begin = time.monotonic()
    if written := write_recipes():
        log.info(f"Wrote {len(written)} configurations into {CONFIGS}; {CONFIGS}/demo has those of the demo")
    log.info(_title("Preparing scikit-learn's handwritten digits", begin))
    _prepare(FOLDER / "data")
    for stage in STAGES:
        log.info(_title(stage.title, begin))
        _train(stage, overrides, ranks if stage.task == "pretrain" else 1)
    log.info(_title("The result", begin))
    _compare()
    print(_END.format(report=REPORT, folder=FOLDER))


def _title(text: str, begin: float) -> str:
    return f"\n== {text} ({time.monotonic() - begin:.0f} s so far)"


def _prepare(data: Path) -> None:
    if data.is_dir():
        log.info(f"Done before, in {data}")
    else:
        log.info("\n".join(prepare(Path("digits"), data).lines()))


def _train(stage: Stage, overrides: Sequence[str], ranks: int) -> None:
    is_finished = (stage.run / SUMMARY).exists
    if is_finished():
        log.info(f"Done before, in {stage.run}; to start again, remove {FOLDER}")
    else:
        run_training(
            stage.title.partition(":")[0], stage.command(overrides, ranks), ranks, is_finished,
            lambda: saved_so_far(stage.task, stage.resolved(overrides)),
        )  # fmt: skip


def _compare() -> None:
    """Write the report, and print its tables and sentences."""
    from tfinpaint.report.comparison import write_comparison  # loads matplotlib

    try:
        compared = write_comparison([stage.run for stage in STAGES], REPORT)
    except OSError as error:
        raise UserError(f"{REPORT}: cannot be written: {error.strerror}") from None
    for title, table in compared.tables.items():
        print_table(title, table, table_width(), "runs")
    print("\n".join(compared.sentences))


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("demo")
        parser.add_argument(
            "--ranks", type=int, metavar="N", help="pretrain on N processes that act as one, as pretrain does"
        )
        parser.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
            help="override a key in the configurations of all trainings, such as --set steps_per_epoch=2 for a quick "
            "try; may be repeated",
        )  # fmt: skip
        parsed = parser.parse_args(arguments)
        require_single_process("demo")
        placement = read_placement(parsed.ranks, None)
        ranks = placement.ranks if placement else 1
        several = ["--ranks", str(ranks)] if ranks > 1 else []
        with continued_by(shlex.join(["tfinpaint", "demo", *several, *_set_options(parsed.overrides)])):
            demo(parsed.overrides, ranks)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
