"""Train a classifier of images in class folders, from a pretrained encoder or from scratch.

usage: tfinpaint classify --ranks 2 --config configs/demo/classify.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from tfinpaint.cli.command import run_command
from tfinpaint.cli.options import Options, explaining_interrupts, parse_options
from tfinpaint.distributed.start_ranks import start_ranks
from tfinpaint.runs.elastic import run_elastic

if TYPE_CHECKING:
    from tfinpaint.distributed.world import World


def classify(options: Options, world: World) -> None:
    """Train and test a classifier, or only test one, as the configuration says. Every rank calls this."""
    from tfinpaint.models.losses import accuracy
    from tfinpaint.runs.classification import (
        draw_curves,
        open_classified_images,
        report_classification,
        with_class_weights,
    )
    from tfinpaint.runs.evaluation import evaluate_classifier
    from tfinpaint.runs.run import open_run
    from tfinpaint.runs.session import begin_session, build_run_model, run_session

    with open_run(options, world, "classifier") as (run, folder):
        images = open_classified_images(run, world, folder.path)
        known = images.training or images.held_out
        assert known is not None  # the configuration was checked
        classes = known.images.listing.classes
        run = with_class_weights(run, images.training)
        model = build_run_model(run, world, classes)
        session = begin_session(
            run, folder, world, model, images.training, images.held_out,
            validation=images.validation, classes=classes, metrics={"accuracy": accuracy},
        )  # fmt: skip
        metrics = run_session(session, partial(draw_curves, session) if world.is_rank0 else None)
        evaluation = evaluate_classifier(session)
        if world.is_rank0:
            report_classification(session, metrics, evaluation)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        options = parse_options("classify", arguments)
        if options.placement:
            given = sys.argv[1:] if arguments is None else arguments
            start_ranks(options.placement, [sys.executable, "-m", "tfinpaint.classify", *given])
        else:
            with explaining_interrupts(options):
                run_elastic(classify, options)

    return run_command(command, needs_output=False)


if __name__ == "__main__":
    sys.exit(main())
