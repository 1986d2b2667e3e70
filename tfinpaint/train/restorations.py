"""How well a run restores erased images: what formulas reach on the same holes, and pictures to judge by."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfinpaint import baselines, measurements
from tfinpaint.data.pipeline import Batch
from tfinpaint.files import write_bytes
from tfinpaint.measurements import HEADLINE
from tfinpaint.report import animation, figures
from tfinpaint.report.metrics import (
    FIGURES,
    MOST_PICTURES,
    RESTORATIONS,
    SEGMENTATION,
    MetricsLog,
    by_epoch,
    epoch_file,
    is_kept,
)
from tfinpaint.train.dataset import DataSet
from tfinpaint.train.loop import Trainer
from tfinpaint.train.run import Run

log = logging.getLogger(__name__)

MOST_PIXELS = 2**24  # that the baselines are given: seconds to minutes, for biharmonic inpainting takes 0.01 s for an
# image of 64 pixels and up to 6 s for one of 512
MOST_SHOWN_PIXELS = 2**16  # of an image of which a figure shows the baselines: there it takes a second at most
FRAMES = "animation"
CURVES = ("hole_psnr_db", "hole_ssim")
Scores = Mapping[str, Mapping[str, float]]  # baseline -> measurement -> value, named as in `baselines`, `measurements`


@dataclass(frozen=True)
class Baselines:
    """What restorations without training reach on the held-out images and their fixed masks.

    Attributes:
        scores: means over the images.
        images: number of them.
    """

    scores: Scores
    images: int


def score_baselines(run: Run, data: DataSet) -> Baselines:
    """Measure every baseline that is affordable for images of this size, each rank on its share of the images.

    Of more images than have MOST_PIXELS together, some are taken, evenly spread; the same on any number of ranks.
    """
    height, width, _ = run.config.target_shape
    assert height
    assert width
    most = max(1, MOST_PIXELS // (height * width))
    run.world.doing("computing the classical baselines")
    distance = -(-len(data) // most) | 1  # odd, so that two, four or eight ranks have equal shares of these images
    log.info(f"Computing classical inpainting baselines on {-(-len(data) // distance)} held-out images")
    names = baselines.affordable(height, width)
    for name in set(baselines.BASELINES) - set(names):
        log.info(f"The baseline {readable(name)} is left out: it would take minutes for {width} x {height} pixels")
    totals = {(name, measured): 0.0 for name in names for measured in measurements.NAMES}
    numbers, counted = iter(data.images.shard.indices(len(data))), 0
    for whole in data.evaluation_batches():
        chosen = np.array([next(numbers) % distance == 0 for _ in range(len(whole["mask"]))])
        if not chosen.any():
            continue
        batch = {name: tf.boolean_mask(whole[name], chosen) for name in ("originals", "mask")}
        originals, masks = (part.numpy() for part in batch.values())
        for name, restored in baselines.restore_all(originals, masks, run.world.threads).items():
            for measured, values in measurements.measure(batch, restored).items():
                totals[name, measured] += float(np.sum(values, dtype=np.float64))
        counted += int(chosen.sum())
    *sums, images = run.world.sum_array(np.array([*totals.values(), counted]))
    means = {key: float(total / images) for key, total in zip(totals, sums, strict=True)}
    psnr = ", ".join(f"{readable(name)} {means[name, HEADLINE]:.2f} dB" for name in names)
    log.info(f"PSNR of the baselines in the hole: {psnr}")
    scores = {name: {one: means[name, one] for one in measurements.NAMES} for name in names}
    return Baselines(scores, int(images))


def readable(baseline: str) -> str:
    return baseline.replace("_", " ")


def figures_of(network: Mapping[str, float], scored: Baselines) -> dict[str, Any]:
    """What a summary says of the measurements.

    Args:
        network: its last evaluation.
    """
    measured = {name: network[name] for name in measurements.NAMES}
    return {
        f"test_{HEADLINE}": measured[HEADLINE],
        f"best_baseline_{HEADLINE}": max(values[HEADLINE] for values in scored.scores.values()),
        "baseline_images": scored.images,
        "measurements": {"network": measured, **scored.scores},
    }


def measurements_table(columns: Scores) -> list[list[Any]]:
    """A row for each measurement, a column for the network and each baseline."""
    head = ["", *(readable(name) for name in columns)]
    return [
        head,
        *([measurements.LABELS[name], *(values[name] for values in columns.values())] for name in measurements.NAMES),
    ]


def shown_baselines(originals: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Restore images for a figure: those of more than MOST_SHOWN_PIXELS at a reduced size, which the names tell.

    Args:
        originals: float [images, height, width, channels], 0 to 1.
        masks: [images, height, width, 1], above 0 in the hole.

    Returns:
        Heading of a column -> restored images.
    """
    height, width = originals.shape[1:3]
    factor = math.ceil(math.sqrt(height * width / MOST_SHOWN_PIXELS))
    if factor == 1:
        return {readable(name): images for name, images in baselines.restore_all(originals, masks).items()}
    most = -(-max(height, width) // factor)
    small, holes = (figures.shrunk(array.astype(np.float32), most) for array in (originals, masks))
    size = f"{small.shape[2]} x {small.shape[1]}"
    log.info(f"The figures show the baselines at {size} pixels: the images have {width} x {height}")
    return {f"{readable(name)}\nat {size}": images for name, images in baselines.restore_all(small, holes).items()}


@dataclass
class Pictures:
    """The pictures of a run, of a few images that stay the same. Rank 0 has them drawn.

    Attributes:
        sample: a batch of these images.
        title: what they are.
    """

    run: Run
    trainer: Trainer
    sample: Batch
    title: str
    _arrays: dict[str, np.ndarray] = field(init=False)
    _baselines: dict[str, np.ndarray] = field(init=False, default_factory=dict)
    _animated: int = field(init=False, default=0)  # frames of the animation that was made last

    def __post_init__(self) -> None:
        self._arrays = {name: tensor.numpy() for name, tensor in self.sample.items()}
        if self._restores:
            self._baselines = shown_baselines(self._arrays["originals"], self._arrays["mask"])

    @property
    def _restores(self) -> bool:
        return self.run.config.measures_pixels

    def add_frame(self, epoch: int) -> None:
        """Keep how the first image is restored after this epoch: erased, restored and original side by side."""
        if not self._restores or not is_kept(epoch, self.run.config.num_epochs, animation.MOST_FRAMES):
            return
        first = {name: tensor[:1] for name, tensor in self.sample.items()}
        composite = self._composite(self.trainer.predict(first["inputs"]))
        original, mask = self._arrays["originals"][0], self._arrays["mask"][0]
        frame = np.concatenate([original * (1 - mask), composite[0], original], axis=1)
        animation.add_frame(self._folder / FRAMES, epoch, frame)

    def draw(self, metrics: MetricsLog, scored: Baselines | None) -> None:
        """Draw the images, the curves and the animation anew.

        Args:
            scored: None where nothing was measured.
        """
        epoch = metrics.records[-1]["epoch"] if metrics.records else 0
        path = self._folder / f"{RESTORATIONS}.png"
        with figures.attempted(path):
            self._draw_images(epoch, path, metrics)
        self._animate(is_last=epoch >= self.run.config.num_epochs)
        if not self.run.config.data.input_path:
            return  # an evaluation is a single point
        self._curve(metrics, "loss", f"{self.run.config.loss.function} loss", None)
        for name, label in SEGMENTATION.items() if self.run.config.data.target_is_mask else ():
            self._curve(metrics, name, label, None)
        for name in CURVES if scored else ():
            self._curve(metrics, name, measurements.LABELS[name], scored)

    def _animate(self, *, is_last: bool) -> None:
        """Make the animation anew where it would have half as many frames more: it takes seconds to make."""
        frames = len(by_epoch(self._folder / FRAMES))
        if is_last or frames >= 1.5 * self._animated:
            self._animated = frames
            path = self._folder / f"{FRAMES}.gif"
            with figures.attempted(path):
                animation.write_animation(self._folder / FRAMES, path)

    def _draw_images(self, epoch: int, path: Path, metrics: MetricsLog) -> None:
        at_epoch = f", epoch {epoch}" if self.run.config.data.input_path else ""
        figures.grid(self._columns(), f"{self.title}{at_epoch}", path)
        config = self.run.config
        number, total = (-(-epochs // config.figures_interval) for epochs in (epoch, config.num_epochs))
        if is_kept(number, total, MOST_PICTURES):
            kept = epoch_file(self._folder / RESTORATIONS, epoch)
            write_bytes(kept, path.read_bytes())
            metrics.add_picture(RESTORATIONS, kept, epoch)

    def _curve(self, metrics: MetricsLog, name: str, label: str, scored: Baselines | None) -> None:
        levels = {readable(each): values[name] for each, values in scored.scores.items()} if scored else None
        path = self._folder / f"{name}.png"
        with figures.attempted(path):
            figures.curve(metrics.records, name, label, path, levels)

    @property
    def _folder(self) -> Path:
        return self.run.folder / FIGURES

    def _columns(self) -> dict[str, np.ndarray]:
        """Name -> images, one for each example, of a grid."""
        arrays, outputs = self._arrays, self.trainer.predict(self.sample["inputs"])
        if self._restores:
            shown = {"original": arrays["originals"], "input": arrays["inputs"], "output": outputs}
            return {**shown, "composite": self._composite(outputs), **self._baselines}
        if self.run.config.data.target_is_mask and outputs.shape[-1] > 1:
            outputs = outputs.argmax(axis=-1)
        targets = {"target": arrays["targets"]} if "targets" in arrays else {}
        return {"input": arrays["inputs"], **targets, "output": outputs}

    def _composite(self, outputs: np.ndarray) -> np.ndarray:
        """The originals with the outputs in their holes; for one image or for all."""
        originals, mask = self._arrays["originals"][: len(outputs)], self._arrays["mask"][: len(outputs)]
        return np.where(mask > 0, outputs, originals)
