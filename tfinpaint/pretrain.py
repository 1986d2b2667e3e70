"""Pretrain an encoder without labels: erase random patches of each image and learn to restore them.

Where `data.target_path` names images of their own, the network learns those instead: image to image.

usage: horovodrun -np 2 python -m tfinpaint.pretrain --config configs/demo/pretrain.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfinpaint import cli, dist

if TYPE_CHECKING:
    import keras

    from tfinpaint.data.pipeline import Batch
    from tfinpaint.report.metrics import MetricsLog
    from tfinpaint.train.dataset import DataSet
    from tfinpaint.train.loop import Trainer
    from tfinpaint.train.run import Run

SHOWN_IMAGES = 6


def pretrain(options: cli.Options, world: dist.World) -> None:
    """Pretrain as the configuration says; every rank calls this."""
    from tfinpaint.models import trainable
    from tfinpaint.train import build, dataset
    from tfinpaint.train import run as runs
    from tfinpaint.train.callbacks import evaluate, train
    from tfinpaint.train.optimizers import build_optimizer
    from tfinpaint.train.predict import write_predictions

    config, data = options.config, options.config.data
    run = runs.open_run(config, world, "inpainter", resume=options.resume, overwrite=options.overwrite)
    model = build.build_model(build.describe(run, steps=0), run.network, run.network_name)
    training = held_out = None
    if data.input_path:
        trainable.set_trainable(model, config.model.trainable)
        training = open_images(run, model, data.input_path, data.target_path, training=True)
    if data.test_input_path:
        held_out = open_images(run, model, data.test_input_path, data.test_target_path, training=False)
    if config.checkpoints.load and not run.resumed:
        build.load_by_name(run, config.checkpoints.load, model, whole=training is None)

    scored = held_out.evaluation_batches() if held_out and held_out.has_targets else None
    shown = held_out or training
    assert shown is not None  # the configuration was checked
    sample = shown.sample(SHOWN_IMAGES) if world.is_first else {}

    steps = dataset.steps_per_epoch(run, training) if training else 0
    build.check_same_run(run, steps)
    optimizer = build_optimizer(config.optimizer, steps, config.num_epochs) if training else None
    trainer = build.make_trainer(run, model, optimizer, scored=scored is not None)

    def draw(metrics: MetricsLog) -> None:
        _draw(run, trainer, sample, metrics, cut=shown.targets is None)

    if training:
        metrics = train(run, trainer, training, scored, steps=steps, draw=draw)
    else:
        metrics = evaluate(run, trainer, scored, draw=draw)
    if held_out and data.test_output_path:
        write_predictions(run, trainer, held_out)
    if world.is_first:
        _report(run, trainer, metrics, len(held_out) if held_out else 0)


def open_images(run: Run, model: keras.Model, inputs: Path, targets: Path | None, *, training: bool) -> DataSet:
    """The images of one folder and what the model's outputs are compared with: patches of theirs, or their partners."""
    from tfinpaint.data import recipes, sources
    from tfinpaint.train import build, dataset

    config = run.config
    listing = sources.list_images(inputs)
    channels = model.output_shape[-1]
    classes = channels if config.data.target_is_mask and channels > 1 else None
    if config.patches:
        separate = targets not in (None, inputs)
        recipe = recipes.inpainting(config, separate=separate, augment=training)
    else:
        separate = targets is not None
        recipe = recipes.image_to_image(config, targets=separate, augment=training, classes=classes)
    if separate or config.patches:
        build.check_output_shape(run, model)
    partners = sources.pair_by_name(listing, targets) if separate and targets else None
    return dataset.open_data(run, recipe, listing, partners, minimum=config.data.batch_size if training else 1)


def _draw(run: Run, trainer: Trainer, sample: Batch, metrics: MetricsLog, *, cut: bool) -> None:
    """The pictures of the run. `cut`: the targets are cut from the inputs, so both make up the original."""
    from tfinpaint.report import figures

    data, folder = run.config.data, run.folder / "figures"
    arrays = {name: tensor.numpy() for name, tensor in sample.items()}
    outputs = trainer.predict(sample["inputs"])
    if data.target_is_mask and outputs.shape[-1] > 1:
        outputs = outputs.argmax(axis=-1)
    if "mask" in arrays and cut and not (data.input_transforms or data.target_transforms):
        mask, original = arrays["mask"], arrays["inputs"] + arrays["targets"]
        composite = arrays["inputs"] * (1 - mask) + outputs * mask
        columns = {"original": original, "erased": arrays["inputs"], "restored": outputs, "composite": composite}
    else:
        columns = {"input": arrays["inputs"], **({"target": arrays["targets"]} if "targets" in arrays else {})}
        columns["output"] = outputs
    images = "held-out images" if data.test_input_path else "training images"
    epoch = f", epoch {metrics.records[-1]['epoch']}" if data.input_path else ""
    figures.grid(columns, f"{images}{epoch}", folder / "restorations.png")
    if metrics.records:
        figures.curve(metrics.records, "loss", f"{run.config.loss.function} loss", folder / "loss.png")


def _report(run: Run, trainer: Trainer, metrics: MetricsLog, test_images: int) -> None:
    from tfinpaint.report.page import Section
    from tfinpaint.train import run as runs

    last = {record["phase"]: record for record in metrics.records}
    inpaints = run.config.patches is not None
    names = {"train": "pretrain_loss" if inpaints else "train_loss", "test": "test_loss"}
    figures = {name: last[phase]["loss"] for phase, name in names.items() if phase in last}
    if test_images:
        figures["test_images"] = test_images
    summary = runs.write_summary(run, trainer.model, metrics, figures)
    folder = run.folder / "figures"
    sections = [
        Section("Images", figures=[folder / "restorations.png"]),
        Section("Curves", figures=[folder / "loss.png"]),
    ]
    runs.write_report(run, "Pretraining by inpainting" if inpaints else "Image to image", summary, sections)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        options = cli.parse("pretrain", __doc__.splitlines()[0], arguments)
        pretrain(options, dist.start(**options.config.distributed.model_dump()))

    return cli.guard(command)


if __name__ == "__main__":
    sys.exit(main())
