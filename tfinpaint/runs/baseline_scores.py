"""Score the classical inpainting baselines on the held-out images of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfinpaint.config.schema import Config
from tfinpaint.distributed.world import World
from tfinpaint.inpainting import classical
from tfinpaint.inpainting.classical import affordable_baselines, restore_by_baselines
from tfinpaint.inpainting.metrics import HEADLINE, METRICS, measure_restoration
from tfinpaint.runs.data import DataSet

log = logging.getLogger(__name__)

# Pixels that the baselines are given, which takes seconds to minutes: biharmonic inpainting takes 0.01 s for an image
# of 64 x 64 pixels and up to 6 s for one of 512 x 512.
MOST_PIXELS = 2**24

Scores = Mapping[str, Mapping[str, float]]  # baseline -> image metric -> value


@dataclass(frozen=True)
class BaselineScores:
    """The image metrics of the classical baselines on the held-out images and their fixed masks.

    Attributes:
        scores: means over the images.
        images: number of the images.
    """

    scores: Scores
    images: int


def score_baselines(config: Config, world: World, data: DataSet) -> BaselineScores:
    """Score every baseline that is affordable for images of this size, each rank on its share of the images.

    Where all images have more than MOST_PIXELS together, evenly spread ones are used, the same for any number of ranks.
    """
    height, width, _ = config.target_shape
    assert height
    assert width
    most = max(1, MOST_PIXELS // (height * width))
    world.report_task("computing the classical baselines")
    distance = -(-len(data) // most) | 1  # odd, so that two, four or eight ranks have equal shares of these images
    log.info(f"Computing classical inpainting baselines on {-(-len(data) // distance)} held-out images")
    names = affordable_baselines(height, width)
    for name in set(classical.BASELINES) - set(names):
        log.info(f"The baseline {baseline_label(name)} is skipped: it would take minutes for {width} x {height} pixels")
    totals = {(name, measured): 0.0 for name in names for measured in METRICS}
    numbers, counted = iter(data.images.share.indices(len(data))), 0
    for whole in data.evaluation_batches():
        chosen = np.array([next(numbers) % distance == 0 for _ in range(len(whole["mask"]))])
        if not chosen.any():
            continue
        batch = {name: tf.boolean_mask(whole[name], chosen) for name in ("originals", "mask")}
        originals, masks = (part.numpy() for part in batch.values())
        for name, restored in restore_by_baselines(originals, masks, world.threads).items():
            for measured, values in measure_restoration(batch, restored).items():
                totals[name, measured] += float(np.sum(values, dtype=np.float64))
        counted += int(chosen.sum())
    *sums, images = world.sum_array(np.array([*totals.values(), counted]))
    means = {key: float(total / images) for key, total in zip(totals, sums, strict=True)}
    psnr = ", ".join(f"{baseline_label(name)} {means[name, HEADLINE]:.2f} dB" for name in names)
    log.info(f"PSNR of the baselines in the hole: {psnr}")
    scores = {name: {one: means[name, one] for one in METRICS} for name in names}
    return BaselineScores(scores, int(images))


def baseline_label(baseline: str) -> str:
    """Return the name of a baseline for readers."""
    return baseline.replace("_", " ")


def baseline_figures(network: Mapping[str, float], scored: BaselineScores) -> dict[str, Any]:
    """Return the entries of a summary about image metrics.

    Args:
        network: the last evaluation of the network.
    """
    measured = {name: network[name] for name in METRICS}
    return {
        f"test_{HEADLINE}": measured[HEADLINE],
        f"best_baseline_{HEADLINE}": max(values[HEADLINE] for values in scored.scores.values()),
        "baseline_images": scored.images,
        "measurements": {"network": measured, **scored.scores},
    }
