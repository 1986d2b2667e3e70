"""What the classical baselines reach on the holes of a run's held-out images."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfinpaint.inpainting import classical
from tfinpaint.inpainting.classical import affordable_baselines, restore_by_baselines
from tfinpaint.inpainting.metrics import HEADLINE, METRIC_LABELS, METRICS, measure_restoration
from tfinpaint.runs.data import DataSet
from tfinpaint.runs.run import Run

log = logging.getLogger(__name__)


MOST_PIXELS = 2**24  # that the baselines are given: seconds to minutes, for biharmonic inpainting takes 0.01 s for an


Scores = Mapping[str, Mapping[str, float]]  # baseline -> measurement -> value, named as in `baselines`, `measurements`


@dataclass(frozen=True)
class BaselineScores:
    """What restorations without training reach on the held-out images and their fixed masks.

    Attributes:
        scores: means over the images.
        images: number of them.
    """

    scores: Scores
    images: int


def score_baselines(run: Run, data: DataSet) -> BaselineScores:
    """Measure every baseline that is affordable for images of this size, each rank on its share of the images.

    Of more images than have MOST_PIXELS together, some are taken, evenly spread; the same on any number of ranks.
    """
    height, width, _ = run.config.target_shape
    assert height
    assert width
    most = max(1, MOST_PIXELS // (height * width))
    run.world.report_task("computing the classical baselines")
    distance = -(-len(data) // most) | 1  # odd, so that two, four or eight ranks have equal shares of these images
    log.info(f"Computing classical inpainting baselines on {-(-len(data) // distance)} held-out images")
    names = affordable_baselines(height, width)
    for name in set(classical.BASELINES) - set(names):
        log.info(
            f"The baseline {baseline_label(name)} is left out: it would take minutes for {width} x {height} pixels"
        )
    totals = {(name, measured): 0.0 for name in names for measured in METRICS}
    numbers, counted = iter(data.images.share.indices(len(data))), 0
    for whole in data.evaluation_batches():
        chosen = np.array([next(numbers) % distance == 0 for _ in range(len(whole["mask"]))])
        if not chosen.any():
            continue
        batch = {name: tf.boolean_mask(whole[name], chosen) for name in ("originals", "mask")}
        originals, masks = (part.numpy() for part in batch.values())
        for name, restored in restore_by_baselines(originals, masks, run.world.threads).items():
            for measured, values in measure_restoration(batch, restored).items():
                totals[name, measured] += float(np.sum(values, dtype=np.float64))
        counted += int(chosen.sum())
    *sums, images = run.world.sum_array(np.array([*totals.values(), counted]))
    means = {key: float(total / images) for key, total in zip(totals, sums, strict=True)}
    psnr = ", ".join(f"{baseline_label(name)} {means[name, HEADLINE]:.2f} dB" for name in names)
    log.info(f"PSNR of the baselines in the hole: {psnr}")
    scores = {name: {one: means[name, one] for one in METRICS} for name in names}
    return BaselineScores(scores, int(images))


def baseline_label(baseline: str) -> str:
    return baseline.replace("_", " ")


def baseline_figures(network: Mapping[str, float], scored: BaselineScores) -> dict[str, Any]:
    """What a summary says of the measurements.

    Args:
        network: its last evaluation.
    """
    measured = {name: network[name] for name in METRICS}
    return {
        f"test_{HEADLINE}": measured[HEADLINE],
        f"best_baseline_{HEADLINE}": max(values[HEADLINE] for values in scored.scores.values()),
        "baseline_images": scored.images,
        "measurements": {"network": measured, **scored.scores},
    }


def metrics_table(columns: Scores) -> list[list[Any]]:
    """A row for each measurement, a column for the network and each baseline."""
    head = ["", *(baseline_label(name) for name in columns)]
    return [
        head,
        *([METRIC_LABELS[name], *(values[name] for values in columns.values())] for name in METRICS),
    ]
