"""Pretrain an encoder without labels: erase random patches of each image and learn to restore them.

usage: horovodrun -np 2 python -m tfinpaint.pretrain --config configs/demo/pretrain.yaml
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tfinpaint import cli, dist

if TYPE_CHECKING:
    from tensorflow.data import Dataset

    from tfinpaint.data.pipeline import Batch, Images
    from tfinpaint.report.metrics import MetricsLog
    from tfinpaint.train.loop import Trainer
    from tfinpaint.train.run import Run

SHOWN_IMAGES = 6


def pretrain(options: cli.Options, world: dist.World) -> None:
    """Pretrain as the configuration says; every rank calls this."""
    from tfinpaint.data import pipeline, sources
    from tfinpaint.models import losses, trainable
    from tfinpaint.train import run as runs
    from tfinpaint.train.callbacks import train
    from tfinpaint.train.optimizers import build_optimizer

    config, data, patches = options.config, options.config.data, options.config.patches
    assert data.input_path is not None  # the configuration was checked
    assert patches is not None
    run = runs.open_run(config, world, "inpainter", resume=options.resume, overwrite=options.overwrite)

    images = runs.open_images(run, sources.list_images(data.input_path), data.batch_size)
    test = runs.open_images(run, sources.list_images(data.test_input_path), 1) if data.test_input_path else None
    erase = functools.partial(
        pipeline.inpainting,
        seed=config.seed,
        number=patches.number,
        size=patches.size,
        height=images.height,
        width=images.width,
    )
    held_out_erase = erase(flip_probability=0.0)
    steps = runs.steps_per_epoch(run, images)

    def batches_from(step: int) -> Dataset:
        prepare = erase(flip_probability=config.flip_probability)
        return pipeline.train_batches(
            images, batch_size=data.batch_size, seed=config.seed, first_step=step, prepare=prepare
        )

    test_batches = (
        pipeline.evaluation_batches(test, batch_size=data.test_batch_size, prepare=held_out_erase) if test else None
    )

    runs.check_same_run(run, steps)
    model = runs.build_model(runs.describe(run, steps=steps))
    trainable.set_trainable(model, config.model.trainable)
    if config.checkpoints.load and not run.resumed:
        runs.load_by_name(run, config.checkpoints.load, model)
    optimizer = build_optimizer(config.optimizer, steps, config.num_epochs)
    trainer = runs.make_trainer(run, model, optimizer, losses.BY_NAME[config.loss.function])

    sample = _sample(test or images, held_out_erase) if world.is_first else {}
    metrics = train(
        run, trainer, batches_from, test_batches, steps=steps, draw=lambda metrics: _draw(run, trainer, sample, metrics)
    )
    if world.is_first:
        _report(run, trainer, metrics)


def _sample(images: Images, erase: Callable[[Batch], Batch]) -> Batch:
    """A few images spread over the listing, with fixed patches, to show how restoration comes on."""
    from tfinpaint.data import pipeline

    total = len(images.listing)
    chosen = [total * i // SHOWN_IMAGES for i in range(min(SHOWN_IMAGES, total))]
    few = pipeline.Images.open(images.listing.select(chosen), pipeline.Shard(), (images.height, images.width), True)
    return next(iter(pipeline.evaluation_batches(few, batch_size=len(chosen), prepare=erase)))


def _draw(run: Run, trainer: Trainer, sample: Batch, metrics: MetricsLog) -> None:
    from tfinpaint.report import figures

    epoch = metrics.records[-1]["epoch"]
    inputs, targets, mask = (sample[key].numpy() for key in ("inputs", "targets", "mask"))
    restored = trainer.model(sample["inputs"], training=False).numpy()
    composite = inputs * (1 - mask) + restored * mask
    folder = run.folder / "figures"
    held_out = "held-out images" if run.config.data.test_input_path else "training images"
    figures.restorations(
        inputs + targets, inputs, restored, composite, f"{held_out}, epoch {epoch}", folder / "restorations.png"
    )
    figures.curve(metrics.records, "loss", f"{run.config.loss.function} loss", folder / "loss.png")


def _report(run: Run, trainer: Trainer, metrics: MetricsLog) -> None:
    from tfinpaint.report.page import Section
    from tfinpaint.train import run as runs

    last = {record["phase"]: record for record in metrics.records}
    figures = {"pretrain_loss": last["train"]["loss"]}
    if "test" in last:
        figures["test_loss"] = last["test"]["loss"]
    summary = runs.write_summary(run, trainer.model, metrics, figures)
    folder = run.folder / "figures"
    sections = [
        Section("Restored images", figures=[folder / "restorations.png"]),
        Section("Curves", figures=[folder / "loss.png"]),
    ]
    runs.write_report(run, "Pretraining by inpainting", summary, sections)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        options = cli.parse("pretrain", __doc__.splitlines()[0], arguments)
        pretrain(options, dist.start(**options.config.distributed.model_dump()))

    return cli.guard(command)


if __name__ == "__main__":
    sys.exit(main())
