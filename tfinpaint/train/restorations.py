"""How well a run restores erased images: what formulas reach on the same holes, and pictures to judge by."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfinpaint import baselines, measurements
from tfinpaint.data.pipeline import Batch
from tfinpaint.report import animation, figures
from tfinpaint.report.metrics import FIGURES, RESTORATIONS, MetricsLog, epoch_file
from tfinpaint.train.dataset import DataSet
from tfinpaint.train.loop import Trainer
from tfinpaint.train.run import Run

log = logging.getLogger(__name__)

MOST_SCORED = 2000  # held-out images that the baselines restore: 0.01 to 0.1 s each, and a mean over so many is exact
FRAMES = "animation"
HEADLINE = "hole_psnr_db"
LABELS = {
    "hole_l1_percent": "hole: mean L1, %",
    "hole_l2_percent": "hole: mean L2, %",
    "hole_psnr_db": "hole: PSNR, dB",
    "hole_ssim": "hole: SSIM",
    "image_l1_percent": "image: mean L1, %",
    "image_l2_percent": "image: mean L2, %",
    "image_psnr_db": "image: PSNR, dB",
    "image_ssim": "image: SSIM",
}
CURVES = ("hole_psnr_db", "hole_ssim")


def score_baselines(run: Run, data: DataSet) -> dict[str, dict[str, float]]:
    """Every measurement of every baseline: means over the held-out images and their fixed masks; all ranks share.

    Of more than MOST_SCORED images, the first ones of each rank are taken.

    Returns:
        Baseline -> measurement -> value, as `measurements.measure` names them.
    """
    totals = {(name, measured): 0.0 for name in baselines.BASELINES for measured in measurements.NAMES}
    counted, share = 0, -(-MOST_SCORED // run.world.size)
    for batch in data.evaluation_batches():
        originals, masks = batch["originals"].numpy(), batch["mask"].numpy()
        for name, restored in baselines.restore_all(originals, masks).items():
            for measured, values in measurements.measure(batch, restored).items():
                totals[name, measured] += float(np.sum(values, dtype=np.float64))
        counted += len(originals)
        if counted >= share:
            break
    keys = list(totals)
    *sums, images = run.world.sum_array(np.array([*totals.values(), counted]))
    means = {key: float(total / images) for key, total in zip(keys, sums, strict=True)}
    psnr = ", ".join(f"{readable(name)} {means[name, HEADLINE]:.2f} dB" for name in baselines.BASELINES)
    log.info(f"PSNR in the hole that formulas reach: {psnr} ({int(images)} held-out images)")
    return {name: {measured: means[name, measured] for measured in measurements.NAMES} for name in baselines.BASELINES}


def readable(baseline: str) -> str:
    return baseline.replace("_", " ")


def figures_of(network: Mapping[str, float], scored: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What a summary says of the measurements.

    Args:
        network: its last evaluation.
        scored: of `score_baselines`.
    """
    measured = {name: network[name] for name in measurements.NAMES}
    return {
        f"test_{HEADLINE}": measured[HEADLINE],
        f"best_baseline_{HEADLINE}": max(values[HEADLINE] for values in scored.values()),
        "measurements": {"network": measured, **scored},
    }


def measurements_table(columns: Mapping[str, Mapping[str, float]]) -> list[list[Any]]:
    """A row for each measurement, a column for the network and each baseline."""
    head = ["", *(readable(name) for name in columns)]
    return [head, *([LABELS[name], *(values[name] for values in columns.values())] for name in measurements.NAMES)]


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

    def draw(self, metrics: MetricsLog, scored: Mapping[str, Mapping[str, float]]) -> None:
        """Draw the images, the curves and the animation anew.

        Args:
            scored: of `score_baselines`; {} where nothing was measured.
        """
        epoch = metrics.records[-1]["epoch"] if metrics.records else 0
        path = self._folder / f"{RESTORATIONS}.png"
        at_epoch = f", epoch {epoch}" if self.run.config.data.input_path else ""
        figures.grid(self._columns(), f"{self.title}{at_epoch}", path)
        kept = epoch_file(self._folder / RESTORATIONS, epoch)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)
        metrics.add_picture(RESTORATIONS, kept, epoch)
        animation.write_animation(self._folder / FRAMES, self._folder / f"{FRAMES}.gif")
        if metrics.records:
            loss = f"{self.run.config.loss.function} loss"
            figures.curve(metrics.records, "loss", loss, self._folder / "loss.png")
        for name in CURVES if scored else ():
            levels = {readable(baseline): values[name] for baseline, values in scored.items()}
            figures.curve(metrics.records, name, LABELS[name], self._folder / f"{name}.png", levels)

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
