"""Pretrain an encoder without labels: erase a part of each image and learn to restore it.

Where `data.target_path` names other images, the network learns to produce those instead: image to image.

usage: tfinpaint pretrain --ranks 2 --config configs/demo/pretrain.yaml
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfinpaint.cli.command import run_command
from tfinpaint.cli.options import Options, explaining_interrupts, parse_options
from tfinpaint.distributed.start_ranks import start_ranks
from tfinpaint.runs.elastic import run_elastic

if TYPE_CHECKING:
    from tfinpaint.distributed.world import World

log = logging.getLogger(__name__)

SHOWN_IMAGES = 6


def pretrain(options: Options, world: World) -> None:
    """Pretrain, or evaluate a pretrained network, as the configuration says. Every rank calls this."""
    from tfinpaint.inpainting.metrics import measure_restoration
    from tfinpaint.models.losses import accuracy, dice_coefficient
    from tfinpaint.runs.baseline_scores import score_baselines
    from tfinpaint.runs.online_probe import open_online_probe
    from tfinpaint.runs.pictures import Pictures
    from tfinpaint.runs.pretraining import open_pretraining_images, report_pretraining
    from tfinpaint.runs.run import open_run
    from tfinpaint.runs.session import begin_session, build_run_model, run_session

    with open_run(options, world, "inpainter") as (run, folder):
        config = run.config
        model = build_run_model(run, world)
        training, held_out = open_pretraining_images(run, world, folder.path, model)
        session = begin_session(
            run, folder, world, model, training, held_out,
            metrics={"accuracy": accuracy, "dice": dice_coefficient} if config.data.target_is_mask else None,
            measure=measure_restoration if config.measures_pixels else None,
        )  # fmt: skip
        if config.mask and not config.measures_pixels:
            log.info(f"Image metrics are not computed: {config.unmeasured}")
        probe = open_online_probe(run, world, folder.path, model) if config.probe and run.trains else None
        probed = probe.random if probe else None
        baselines = score_baselines(config, world, held_out) if held_out and config.measures_pixels else None
        pictures = None
        if world.is_rank0:
            shown, title = (held_out, "test images") if held_out else (training, "training images")
            assert shown is not None  # the configuration was checked
            pictures = Pictures(
                config, folder.path, session.trainer, shown.sample(SHOWN_IMAGES), title, baselines, probed
            )
        metrics = run_session(
            session, pictures.draw if pictures else None, pictures.add_frame if pictures else None, probe
        )
        if world.is_rank0:
            report_pretraining(session, metrics, baselines, probed)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        options = parse_options("pretrain", arguments)
        if options.placement:
            given = sys.argv[1:] if arguments is None else arguments
            start_ranks(options.placement, [sys.executable, "-m", "tfinpaint.pretrain", *given])
        else:
            with explaining_interrupts(options):
                run_elastic(pretrain, options)

    return run_command(command, needs_output=False)


if __name__ == "__main__":
    sys.exit(main())
