"""Draw what the network will be trained on, before any training: original, mask, input and target.

usage: python -m tfinpaint.preview --config configs/demo/pretrain.yaml [--set data.batch_size=8] [--output preview.png]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfinpaint.cli.arguments import add_config_options, make_parser, parse_arguments, whole_number
from tfinpaint.cli.command import run_command
from tfinpaint.cli.options import load_checked
from tfinpaint.config.schema import Config, ConfigError
from tfinpaint.distributed.environment import launched_rank
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError
from tfinpaint.system.wording import counted

MASKS_DRAWN = 256
MOST_SHOWN = 100  # matplotlib draws no figure of more than 2^16 pixels a side
COLUMNS = {"originals": "original", "mask": "mask", "inputs": "input", "targets": "target", "weights": "weight"}


def preview(config: Config, output: Path, count: int) -> list[str]:
    """Draw a few training images, evenly spread over the folder, as they are in the first epoch of training.

    Args:
        config: of `pretrain`, checked, with images to train on.
        output: the PNG file to write.
        count: how many images to show, at most.

    Returns:
        Lines about the data, for the terminal.

    Raises:
        UserError: there are no images, too many bad ones, or no targets; or `output` lies among the images.
    """
    from tfinpaint.data.listing.pairing import list_pairs

    data = config.data
    assert data.input_path  # it was checked
    _check_output(config, output)
    listing, targets = list_pairs(data.input_path, data.target_path, has_mask=config.mask is not None)
    start_single_rank(config.distributed)  # imports TensorFlow, after everything that can be refused without it
    from tfinpaint.data.preview_batch import draw_batch
    from tfinpaint.report.figures import draw_grid

    batch, excluded = draw_batch(config, listing, targets, count)
    try:
        draw_grid(columns(batch), "training images, epoch 1", output, _note(config, batch))
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {error.strerror or error}") from None
    pairs = f" with targets of the same names in {targets.root}" if targets else ""
    files = f"; {listing.excluded.summary()}" if listing.excluded.summary() else ""
    height, width, channels = config.input_shape
    lines = [
        f"{listing.root}: {counted(len(listing), 'image')}{pairs}{files}",
        *excluded,
        f"Input of the network: {width} x {height} pixels, {counted(channels, 'channel')}",
    ]
    if config.mask:
        lines.append(_describe_mask(config, min(MASKS_DRAWN, len(listing))))
    if config.reconstructs:
        lines.append(f"{config.loss.function} loss on {_describe_scored(config)}")
    if agreement := config.loss.agreement:
        lines.append(f"{agreement.type} loss of two views of each image, of which the first is shown")
    return lines


def columns(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of the picture, name -> images, as far as the batch has them.

    Weights that are those of the mask, of the erased pixels alone, have no column of their own.

    Args:
        batch: "inputs" and "targets", perhaps "originals", "mask" and "weights", each [batch, height, width, channels]
            (label maps as targets: [batch, height, width]).
    """
    found = {shown: batch[name] for name, shown in COLUMNS.items() if name in batch}
    if "mask" in batch and "weights" in batch and np.array_equal(batch["mask"], batch["weights"]):
        del found["weight"]
    return found


def _note(config: Config, batch: Mapping[str, np.ndarray]) -> str:
    """Return what explains the picture, where something in it would be taken for a mistake; "" elsewhere."""
    found, size = [], config.loss.normalize_patches
    whole = int((batch["mask"].max(axis=(1, 2, 3)) <= 0).sum()) if "mask" in batch else 0
    if whole:
        rows = "One row has" if whole == 1 else f"{whole} rows have"
        found.append(
            f"{rows} no hole. This is meant: the mask leaves some training images whole; test images always have a "
            "hole."
        )
    if size and "targets" in batch:
        found.append(
            f"The target is normalised in cells of {size} x {size} pixels (loss.normalize_patches), so that it is no "
            "photo."
        )
    if "weight" in columns(batch):
        found.append("Weight: how much a pixel counts in the loss.")
    return " ".join(found)


def _check_output(config: Config, output: Path) -> None:
    """Raise UserError if the picture would be written among the images, where it would be trained on."""
    try:
        is_folder, place = output.is_dir(), output.resolve()
    except OSError as error:
        raise UserError(f"--output {output}: {error.strerror}") from None
    if is_folder:
        raise UserError(f"--output {output}: is a folder; name a PNG file")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output {output}: the preview is a PNG file; name it {output.stem or 'preview'}.png")
    for key in ("input_path", "target_path", "test_input_path", "test_target_path"):
        folder = getattr(config.data, key)
        if folder and place.is_relative_to(folder.resolve()):
            raise UserError(f"--output {output} lies in data.{key} {folder}, among the images; name another folder")


def _describe_mask(config: Config, count: int) -> str:
    from tfinpaint.data.preview_batch import erased_fractions

    percents = 100 * erased_fractions(config, count)
    least, mean, most = (f"{percent:.1f}" for percent in (percents.min(), percents.mean(), percents.max()))
    assert config.mask
    if least == most:
        return f"Mask {config.mask.kind}: erases {mean} % of each image"
    return f"Mask {config.mask.kind}: erases {mean} % of an image on average, {least} to {most} % ({count} masks drawn)"


def _describe_scored(config: Config) -> str:
    """Return the pixels that the loss compares with the target."""
    loss = config.loss
    if not config.mask:
        return "the whole image"
    pixels = {
        "patches": "the erased pixels and the black canvas around them",
        "image": "the whole image",
        "masked": "the erased pixels only",
    }[loss.target]
    if loss.overlap:
        border = counted(loss.overlap, "pixel")
        pixels += f"; a border of {border} around the hole has {loss.overlap_weight:g} times the weight"
    return pixels


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("preview")
        add_config_options(parser, "YAML or JSON file, of pretrain")
        parser.add_argument(
            "--output",
            type=Path,
            default=Path("preview.png"),
            metavar="FILE",
            help="PNG file to write; an existing one is replaced (default: preview.png)",
        )
        parser.add_argument(
            "--images", type=whole_number(1, MOST_SHOWN), default=6, metavar="N",
            help=f"how many to show, at most {MOST_SHOWN} (default: 6)",
        )  # fmt: skip
        parsed = parse_arguments(parser, arguments)
        if launched_rank():
            return  # under a launcher, one process draws
        if parsed.config is None:
            raise UserError("--config FILE is missing, such as --config configs/demo/pretrain.yaml")
        config = load_checked(parsed.config, parsed.overrides, "pretrain", 1)
        if config.data.input_path is None:
            raise ConfigError(f"{parsed.config}: data.input_path is missing: there are no training images to show")
        lines = preview(config, parsed.output, parsed.images)
        print("\n".join([*lines, f"Preview: {parsed.output}"]))

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
