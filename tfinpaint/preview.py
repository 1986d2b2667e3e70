"""Look at what the network will be given, before any training: original, mask, input and target.

usage: python -m tfinpaint.preview --config configs/demo/pretrain.yaml [--set data.batch_size=8] [--output preview.png]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfinpaint.cli import arguments as command_line
from tfinpaint.cli import command as cli
from tfinpaint.cli.arguments import parse_arguments
from tfinpaint.cli.command import run_command
from tfinpaint.config.schema import Config, ConfigError
from tfinpaint.distributed.environment import launched_rank
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError

if TYPE_CHECKING:
    from tfinpaint.data.listing.listing import Listing
    from tfinpaint.data.tasks import Task

MASKS_DRAWN, MASKS_AT_ONCE = 256, 16
MOST_SHOWN = 100  # matplotlib draws no figure of more than 2^16 pixels a side
COLUMNS = {"originals": "original", "mask": "mask", "inputs": "input", "targets": "target", "weights": "scored"}


def preview(config: Config, output: Path, images: int) -> list[str]:
    """Write the picture of a few training images, evenly spread over the folder, as epoch 0 of training draws them.

    Exactly so where no image is bad: only the chosen ones are read, and training numbers its images without the bad
    ones.

    Args:
        config: of `pretrain`, checked, with images to train on.
        output: the PNG file to write.
        images: how many to show, at most.

    Returns:
        What is worth knowing about the data, a line each.

    Raises:
        UserError: there are no images, or too many bad ones, or not their targets; or the output lies among the images.
    """
    from tfinpaint.data.listing import listing as sources
    from tfinpaint.report.figures import draw_grid

    data = config.data
    assert data.input_path  # it was checked
    _check_output(config, output)
    listing = sources.list_images(data.input_path)
    separate = data.target_path not in (None, data.input_path if config.mask else None)
    targets = sources.pair_by_name(listing, data.target_path) if separate and data.target_path else None
    lines = [_counted(listing, targets)]
    start_single_rank(config.distributed)  # now: nothing is slow before it
    task = _task(config, separate)
    batch, skipped = _draw_batch(config, task, listing, targets, images)
    try:
        draw_grid(columns(batch), "training images, epoch 0", output)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {error.strerror or error}") from None
    height, width, channels = config.input_shape
    lines += [*skipped, f"Input of the network: {width} x {height} pixels, {channels} channel{'s' * (channels != 1)}"]
    if config.mask:
        lines.append(_erased(config, min(MASKS_DRAWN, len(listing))))
    return [*lines, f"Scored by {config.loss.function}: {_scored(config)}"]


def columns(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of the picture, name -> images, so far as a task's batch has them.

    Args:
        batch: "inputs" and "targets", perhaps "originals", "mask" and "weights", each [batch, height, width, channels]
            (targets that are masks [batch, height, width]).
    """
    return {shown: batch[name] for name, shown in COLUMNS.items() if name in batch}


def spread(total: int, count: int) -> range:
    """At most `count` indices below `total`, from the first on, with equal distances that are as large as can be."""
    count = min(count, total)
    distance = (total - 1) // (count - 1) if count > 1 else total
    return range(0, count * distance, distance)


def _check_output(config: Config, output: Path) -> None:
    """The picture must not end up among the images: it would be trained on, or replace one of them."""
    try:
        is_folder, place = output.is_dir(), output.resolve()
    except OSError as error:
        raise UserError(f"--output {output}: {error.strerror}") from None
    if is_folder:
        raise UserError(f"--output {output}: is a folder; name the picture to write")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output {output}: the preview is a PNG file; name it {output.stem or 'preview'}.png")
    for key in ("input_path", "target_path", "test_input_path", "test_target_path"):
        folder = getattr(config.data, key)
        if folder and place.is_relative_to(folder.resolve()):
            raise UserError(f"--output {output} lies in data.{key} {folder}, among the images; name another place")


def _counted(listing: Listing, targets: Listing | None) -> str:
    images = f"{len(listing)} image{'s' * (len(listing) != 1)}"
    pairs = f" with targets of the same names in {targets.root}" if targets else ""
    skipped = f"; {listing.skipped.line()}" if listing.skipped.line() else ""
    return f"{listing.root}: {images}{pairs}{skipped}"


def _task(config: Config, separate: bool) -> Task:
    from tfinpaint.data import tasks

    if config.mask:
        return tasks.inpainting(config, separate=separate, augment=True)
    return tasks.image_to_image(config, targets=separate, augment=True)


def _draw_batch(
    config: Config, task: Task, listing: Listing, targets: Listing | None, images: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """(a batch of examples spread over the listing, a line for each bad image that was left out)."""
    from tfinpaint.data import pipeline
    from tfinpaint.data.examples import Images, RankShare

    bad: list[str] = []
    while found := _unreadable(task, listing, targets, spread(len(listing), images)):
        bad += found.values()
        if len(bad) > config.data.max_bad_images:
            head = f"{len(bad)} unusable among the images to show, data.max_bad_images allows"
            raise UserError("\n".join([f"{head} {config.data.max_bad_images}; mend or remove them:", *bad]))
        good = np.delete(np.arange(len(listing)), sorted(found))
        if not len(good):
            raise UserError(f"{listing.root}: no readable image is left")
        listing, targets = listing.select(good), targets.select(good) if targets else None
    shown = spread(len(listing), images)
    # A shard takes images at equal distances, and they keep the numbers, and so the masks, that they have in training.
    shard, until_last = RankShare(0, shown.step), range(shown[-1] + 1)
    inputs = Images.open(listing.select(until_last), shard, task.images, preload=False)
    partners = None
    if targets and task.targets:
        partners = Images.open(targets.select(until_last), shard, task.targets, preload=False)
    batches = pipeline.evaluation_batches(
        inputs, partners, batch_size=len(shown) * shown.step, seed=config.seed, prepare=task.prepare
    )
    return next(batches.as_numpy_iterator()), [f"Skipping unusable image {line}" for line in bad]


def _unreadable(task: Task, listing: Listing, targets: Listing | None, indices: Sequence[int]) -> dict[int, str]:
    """Index -> file and reason, of the images among these that cannot be used or whose targets cannot."""
    from tfinpaint.data.listing.listing import check_images

    sides = [(listing, task.images)] + ([(targets, task.targets)] if targets and task.targets else [])
    return {
        index: f"{files.place(index)}: {reason}"
        for files, chain in sides
        for index, reason in check_images(files, indices, chain.reading).bad.items()
    }


def erased_shares(config: Config, count: int) -> np.ndarray:
    """float [count]: what the mask erases of each of the first images in epoch 0, as a share of the image."""
    import tensorflow as tf

    from tfinpaint.config.transforms import shape_after
    from tfinpaint.data import masks
    from tfinpaint.data.transforms import Keys

    height, width, _ = shape_after(config.data.transforms, config.input_channels)
    assert config.mask
    assert height
    assert width
    shares = []
    for examples in tf.data.Dataset.range(count).batch(MASKS_AT_ONCE):
        keys = Keys(config.seed, tf.constant(0, tf.int64), examples)
        mask = masks.draw_mask(config.mask, keys, height=height, width=width)
        shares.append(tf.reduce_mean(mask, axis=[1, 2, 3]).numpy())
    return np.concatenate(shares)


def _erased(config: Config, count: int) -> str:
    shares = 100 * erased_shares(config, count)
    least, mean, most = (f"{share:.1f}" for share in (shares.min(), shares.mean(), shares.max()))
    assert config.mask
    if least == most:
        return f"Mask {config.mask.kind}: erases {mean} % of each image"
    return f"Mask {config.mask.kind}: erases {mean} % of an image on average, {least} to {most} % ({count} masks drawn)"


def _scored(config: Config) -> str:
    """What of the network's output is compared with the target."""
    loss = config.loss
    if not config.mask:
        return "the whole image"
    what = {
        "patches": "what was erased and the black around it, the whole canvas",
        "image": "the whole image",
        "masked": "what was erased and nothing else",
    }[loss.target]
    if loss.overlap:
        pixels = f"{loss.overlap} pixel{'s' * (loss.overlap != 1)}"
        what += f"; {pixels} around the hole by {loss.overlap_weight:g} times the weight"
    return what


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = cli.make_parser("preview")
        command_line.add_config_options(parser, "YAML or JSON file, of pretrain")
        parser.add_argument(
            "--output", type=Path, default=Path("preview.png"), help="PNG file, written over if it is there"
        )
        parser.add_argument("--images", type=_count, default=6, help=f"how many to show, at most {MOST_SHOWN}")
        parsed = parse_arguments(parser, arguments)
        if launched_rank():
            return  # one process draws; under a launcher the others have nothing to do
        if parsed.config is None:
            raise UserError("--config FILE is missing, such as --config configs/demo/pretrain.yaml")
        config = command_line.load_checked(parsed.config, parsed.overrides, "pretrain", 1)
        if config.data.input_path is None:
            raise ConfigError(f"{parsed.config}: data.input_path is missing: there are no training images to show")
        lines = preview(config, parsed.output, parsed.images)
        print("\n".join([*lines, f"Preview: {parsed.output}"]))

    return run_command(command)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_SHOWN:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 1 to {MOST_SHOWN}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
