"""How well a run restores erased images: what formulas reach on the same holes, and pictures to judge by."""

from __future__ import annotations

import logging
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
from tfinpaint.report.metrics import FIGURES, RESTORATIONS, SEGMENTATION, MetricsLog, epoch_file
from tfinpaint.train.dataset import DataSet
from tfinpaint.train.loop import Trainer
from tfinpaint.train.run import Run

log = logging.getLogger(__name__)

MOST_PIXELS = 2**24  # that the baselines are given: seconds to minutes, for biharmonic inpainting takes 0.01 s for an
# image of 64 pixels and 3 s for one of 512
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
    """Measure every baseline, each rank on its share of the images.

    Of more images than have MOST_PIXELS together, some are taken, evenly spread; the same on any number of ranks.
    """
    height, width, _ = run.config.target_shape
    assert height
    assert width
    most = max(1, MOST_PIXELS // (height * width))
    run.world.doing("computing the classical baselines")
    distance = -(-len(data) // most) | 1  # odd, so that two, four or eight ranks have equal shares of these images
    log.info(f"Restoring {-(-len(data) // distance)} held-out images by formulas, to compare with")
    totals = {(name, measured): 0.0 for name in baselines.BASELINES for measured in measurements.NAMES}
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
    psnr = ", ".join(f"{readable(name)} {means[name, HEADLINE]:.2f} dB" for name in baselines.BASELINES)
    log.info(f"PSNR in the hole that formulas reach: {psnr}")
    scores = {name: {one: means[name, one] for one in measurements.NAMES} for name in baselines.BASELINES}
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

    def __post_init__(self) -> None:
        self._arrays = {name: tensor.numpy() for name, tensor in self.sample.items()}
        if self._restores:
            self._baselines = baselines.restore_all(self._arrays["originals"], self._arrays["mask"])

    @property
    def _restores(self) -> bool:
        return self.run.config.measures_pixels

    def add_frame(self, epoch: int) -> None:
        """Keep how the first image is restored after this epoch: erased, restored and original side by side."""
        if not self._restores:
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
        at_epoch = f", epoch {epoch}" if self.run.config.data.input_path else ""
        figures.grid(self._columns(), f"{self.title}{at_epoch}", path)
        kept = epoch_file(self._folder / RESTORATIONS, epoch)
        write_bytes(kept, path.read_bytes())
        metrics.add_picture(RESTORATIONS, kept, epoch)
        animation.write_animation(self._folder / FRAMES, self._folder / f"{FRAMES}.gif")
        if metrics.records:
            loss = f"{self.run.config.loss.function} loss"
            figures.curve(metrics.records, "loss", loss, self._folder / "loss.png")
            for name, label in SEGMENTATION.items() if self.run.config.data.target_is_mask else ():
                figures.curve(metrics.records, name, label, self._folder / f"{name}.png")
        if scored is None:
            return
        for name in CURVES:
            levels = {readable(baseline): values[name] for baseline, values in scored.scores.items()}
            figures.curve(metrics.records, name, measurements.LABELS[name], self._folder / f"{name}.png", levels)

    @property
    def _folder(self) -> Path:
        return self.run.folder / FIGURES

    def _columns(self) -> dict[str, np.ndarray]:
        """Name -> images, one for each example, of a grid."""
        arrays, outputs = self._arrays, self.trainer.predict(self.sample["inputs"])
        if self._restores:
            formulas = {readable(name): restored for name, restored in self._baselines.items()}
            shown = {"original": arrays["originals"], "input": arrays["inputs"], "output": outputs}
            return {**shown, "composite": self._composite(outputs), **formulas}
        if self.run.config.data.target_is_mask and outputs.shape[-1] > 1:
            outputs = outputs.argmax(axis=-1)
        targets = {"target": arrays["targets"]} if "targets" in arrays else {}
        return {"input": arrays["inputs"], **targets, "output": outputs}

    def _composite(self, outputs: np.ndarray) -> np.ndarray:
        """The originals with the outputs in their holes; for one image or for all."""
        originals, mask = self._arrays["originals"][: len(outputs)], self._arrays["mask"][: len(outputs)]
        return np.where(mask > 0, outputs, originals)
