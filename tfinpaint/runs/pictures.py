"""The pictures of a run: a grid of images, an animation of one of them, and curves of the metrics."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfinpaint.batch import Batch, tensors_of
from tfinpaint.config.schema import Config
from tfinpaint.data.targets import denormalize_cells
from tfinpaint.inpainting.classical import restore_by_baselines
from tfinpaint.layout import ANIMATION, FIGURES, PROBE_FIGURE, RESTORATIONS
from tfinpaint.report import animation
from tfinpaint.report.figures import attempt_figure, draw_curve, draw_grid, draw_probe, shrink_images
from tfinpaint.report.metrics_log import (
    MOST_PICTURES,
    SEGMENTATION,
    MetricsLog,
    epoch_picture,
    keeps_picture,
    pictures_by_epoch,
)
from tfinpaint.report.parts_of_loss import RECONSTRUCTION
from tfinpaint.report.quantities import IMAGE_METRICS
from tfinpaint.runs.baseline_scores import BaselineScores, baseline_label
from tfinpaint.runs.online_probe import JUDGED
from tfinpaint.storage.atomic import write_bytes
from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)

MOST_SHOWN_PIXELS = 2**16  # in an image for which figures show the baselines: they take a second at most
CELLS_NOTE = (
    "Composite: the network's output in the hole. Brightness and contrast of each cell are those of the original, "
    "because the network restores only what remains. Last column: an output of 0, which is grey of the same brightness."
)
CURVES = ("hole_psnr_db", "hole_ssim")
VIEW_CURVES = {"agreement_loss": "agreement of two views", "rankme": "effective rank of the features (RankMe)"}


def shown_baselines(originals: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Restore images by the classical baselines for a figure; large images at a reduced size, as the headings say.

    Args:
        originals: float [images, height, width, channels], 0 to 1.
        masks: [images, height, width, 1], above 0 in the hole.

    Returns:
        Heading of a column -> restored images.
    """
    height, width = originals.shape[1:3]
    factor = math.ceil(math.sqrt(height * width / MOST_SHOWN_PIXELS))
    if factor == 1:
        return {baseline_label(name): images for name, images in restore_by_baselines(originals, masks).items()}
    most = -(-max(height, width) // factor)
    small, holes = (shrink_images(array.astype(np.float32), most) for array in (originals, masks))
    size = f"{small.shape[2]} x {small.shape[1]}"
    log.info(f"The figures show the baselines at {size} pixels: the images have {width} x {height}")
    return {f"{baseline_label(name)}\nat {size}": images for name, images in restore_by_baselines(small, holes).items()}


@dataclass
class Pictures:
    """The pictures of a run, of the same few images from its beginning to its end. Rank 0 alone has one.

    Attributes:
        folder: of the run.
        sample: a batch of the images.
        title: of the grid.
        scored: what the baselines reach; None where no image metrics are computed.
        probed: accuracies of the probe on a random encoder, by metric; None without a probe.
    """

    config: Config
    folder: Path
    trainer: Trainer
    sample: Batch
    title: str
    scored: BaselineScores | None = None
    probed: Mapping[str, float] | None = None
    _arrays: dict[str, np.ndarray] = field(init=False)
    _baselines: dict[str, np.ndarray] = field(init=False, default_factory=dict)
    _animated: int = field(init=False, default=0)  # frames of the animation that was made last

    def __post_init__(self) -> None:
        self._arrays = {name: tensor.numpy() for name, tensor in tensors_of(self.sample).items()}
        if self.config.measures_pixels:
            self._baselines = shown_baselines(self._arrays["originals"], self._arrays["mask"])

    @property
    def _restores(self) -> bool:
        return self.config.shows_restorations

    def add_frame(self, epoch: int) -> None:
        """Keep a frame of the animation: the first image erased, as restored after this epoch, and as it was."""
        if not self._restores or not keeps_picture(epoch, self.config.num_epochs, animation.MOST_FRAMES):
            return
        composite = self._composite(self.trainer.predict(self.sample["inputs"][:1]))
        original, mask = self._arrays["originals"][0], self._arrays["mask"][0]
        frame = np.concatenate([original * (1 - mask), composite[0], original], axis=1)
        animation.add_frame(self._folder / ANIMATION, epoch, frame)

    def draw(self, metrics: MetricsLog) -> None:
        """Draw the images, the curves and the animation again."""
        epoch = metrics.records[-1]["epoch"] if metrics.records else 0
        path = self._folder / f"{RESTORATIONS}.png"
        with attempt_figure(path):
            self._draw_images(epoch, path, metrics)
        self._animate(is_last=epoch >= self.config.num_epochs)
        if not self.config.data.input_path:
            return  # an evaluation is a single point
        function, agrees = self.config.loss.function, self.config.loss.agreement is not None
        if agrees and self.config.reconstructs:  # only this part is computed on test images too
            self._draw_curve(metrics, RECONSTRUCTION, f"reconstruction loss ({function})")
        with attempt_figure(path := self._folder / "loss.png"):
            trained = (
                [record for record in metrics.records if record["phase"] == "train"] if agrees else metrics.records
            )
            draw_curve(trained, "loss", "total training loss" if agrees else f"{function} loss", path)
        for name, label in VIEW_CURVES.items() if agrees else ():
            self._draw_curve(metrics, name, label)
        if self.probed is not None:
            path = self._folder / PROBE_FIGURE
            with attempt_figure(path):
                draw_probe(metrics.records, JUDGED, self.probed, path)
        for name, label in SEGMENTATION.items() if self.config.data.target_is_mask else ():
            self._draw_curve(metrics, name, label)
        for name in CURVES if self.scored else ():
            self._draw_curve(metrics, name, IMAGE_METRICS[name].label, self.scored)

    def _animate(self, *, is_last: bool) -> None:
        """Write the animation again once it has half as many frames more, because that takes seconds."""
        frames = len(pictures_by_epoch(self._folder / ANIMATION))
        if is_last or frames >= 1.5 * self._animated:
            self._animated = frames
            path = self._folder / f"{ANIMATION}.gif"
            with attempt_figure(path):
                animation.write_animation(self._folder / ANIMATION, path)

    def _draw_images(self, epoch: int, path: Path, metrics: MetricsLog) -> None:
        at_epoch = f", epoch {epoch}" if self.config.data.input_path else ""
        note = CELLS_NOTE if self._restores and self.config.loss.normalize_patches else ""
        draw_grid(self._columns(), f"{self.title}{at_epoch}", path, note)
        self._keep(epoch, path, metrics)

    def _keep(self, epoch: int, path: Path, metrics: MetricsLog) -> None:
        """Keep a copy of the grid of an epoch, if it is among those to keep."""
        interval = self.config.figures_interval
        number, total = (-(-epochs // interval) for epochs in (epoch, self.config.num_epochs))
        if keeps_picture(number, total, MOST_PICTURES):
            kept = epoch_picture(self._folder / RESTORATIONS, epoch)
            write_bytes(kept, path.read_bytes())
            metrics.add_picture(RESTORATIONS, kept, epoch)

    def _draw_curve(self, metrics: MetricsLog, name: str, label: str, scored: BaselineScores | None = None) -> None:
        levels = {baseline_label(each): values[name] for each, values in scored.scores.items()} if scored else None
        path = self._folder / f"{name}.png"
        with attempt_figure(path):
            draw_curve(metrics.records, name, label, path, levels)

    @property
    def _folder(self) -> Path:
        return self.folder / FIGURES

    def _columns(self) -> dict[str, np.ndarray]:
        """Return the columns of the grid, heading -> images, one for each example."""
        arrays = self._arrays
        if not self.config.reconstructs:
            return {"input": arrays["inputs"]}
        outputs = self.trainer.predict(self.sample["inputs"])
        if self._restores:
            shown = {"original": arrays["originals"], "input": arrays["inputs"]}
            if self.config.loss.normalize_patches:
                flat = self._composite(np.zeros_like(arrays["originals"]))
                return {**shown, "composite": self._composite(outputs), "mean brightness\nof each cell": flat}
            return {**shown, "output": outputs, "composite": self._composite(outputs), **self._baselines}
        if self.config.data.target_is_mask and outputs.shape[-1] > 1:
            outputs = outputs.argmax(axis=-1)
        targets = {"target": arrays["targets"]} if "targets" in arrays else {}
        return {"input": arrays["inputs"], **targets, "output": outputs}

    def _composite(self, outputs: np.ndarray) -> np.ndarray:
        """Return the originals with the outputs in their holes, for the first images or all of them.

        Outputs that are normalised by cells are first given mean and deviation of the original cells.
        """
        originals, mask = self._arrays["originals"][: len(outputs)], self._arrays["mask"][: len(outputs)]
        if size := self.config.loss.normalize_patches:
            outputs = denormalize_cells(outputs, originals, size).numpy().clip(0, 1)
        return np.where(mask > 0, outputs, originals)
