"""Held-out images that are training images too: counted and named before training."""

from __future__ import annotations

import base64
import logging

import numpy as np

from tfinpaint.data.listing.duplicates import duplicates_message, find_duplicates
from tfinpaint.runs.data import DataSet
from tfinpaint.runs.run import Run

log = logging.getLogger(__name__)


def warn_of_copies(run: Run, training: DataSet | None, held_out: DataSet | None) -> None:
    """Compare the prints of all held-out images with those of all training images; every rank calls this."""
    if not training or not held_out or not held_out.has_targets or run.resumed:  # as it was said before
        return
    test, known = _gather(run, held_out), _gather(run, training)
    if not run.world.is_rank0:
        return
    assert held_out.found  # `open_data` has set them
    assert training.found
    for line in duplicates_message(find_duplicates(test, known), held_out.found.place, training.found.place, len(test)):
        log.warning(line)


def _gather(run: Run, data: DataSet) -> np.ndarray:
    """uint8 [images, bytes]: the prints of all images that were found, from all ranks."""
    assert data.prints is not None
    if run.world.size == 1:
        return data.prints
    assert data.found
    whole = np.zeros((len(data.found), data.prints.shape[1]), np.uint8)
    for rank, part in enumerate(run.world.all_gather(base64.b64encode(data.prints.tobytes()).decode())):
        whole[rank :: run.world.size] = np.frombuffer(base64.b64decode(part), np.uint8).reshape(-1, whole.shape[1])
    return whole
