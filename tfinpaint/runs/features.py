"""Compute the features of a run's images once, where frozen layers make the same of them in every epoch."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfinpaint.data.features import Features, store_features
from tfinpaint.distributed.world import World
from tfinpaint.runs.data import DataSet
from tfinpaint.storage.disk_space import find_shortage, in_mib
from tfinpaint.storage.write_errors import explain_os_error
from tfinpaint.system.hardware import available_memory
from tfinpaint.system.progress import log_progress
from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)

MEMORY, DISK = "memory", "disk"


def with_features(trainer: Trainer, folder: Path, data: DataSet, what: str, passes: float) -> DataSet:
    """Return the images with their features where these can be kept; every rank calls this, and all decide alike.

    Features are kept in memory if they take at most half of what is free there, otherwise on disk within the same
    limit. What is decided is logged with its reason.

    Args:
        folder: of the run.
        what: these images in words, such as "training images".
        passes: how often each of them is used in the whole run.

    Raises:
        UserError: too many images can no longer be read.
    """
    frozen, world = trainer.parts.frozen, trainer.world
    if frozen is None:
        return data
    shape = (len(data.images.share.indices(len(data))), *frozen.output_shape[1:])
    dtype = np.dtype(tf.as_dtype(frozen.outputs[0].dtype).as_numpy_dtype)
    size = -1 if None in shape else int(np.prod(shape)) * dtype.itemsize
    layers = f"Frozen layers up to {trainer.parts.last_frozen}"
    place = _agree(world, _place(world, folder, data, passes, size))
    if place in (MEMORY, DISK):
        where = "memory" if place == MEMORY else f"a nameless file on the disk of {folder}"
        log.info(f"{layers}: computing the features of {len(data)} {what} once, {in_mib(size)} per rank in {where}")
        features, place = _compute(trainer, data, shape, dtype, folder if place == DISK else None)
        if features:
            return replace(data, features=features)
    log.info(f"{layers}: they are computed in every pass over the {what}: {place}")
    return data


def _place(world: World, folder: Path, data: DataSet, passes: float, size: int) -> str:
    """Return where the features of this rank can be kept, or why nowhere.

    Args:
        size: their bytes; -1 where the network takes images of any size.
    """
    if not data.task.fixed_inputs:
        return "random transforms or masks change the images"
    if passes <= 1:
        return "each image is used once at most"
    if size < 0:
        return "the network takes images of any size"
    memory = available_memory() // (2 * world.local_size)
    if size <= memory:
        return MEMORY
    try:
        disk = shutil.disk_usage(folder).free // (2 * world.size)
        lacking = find_shortage(folder, {"the file of the features": size})
    except OSError as error:
        return f"{folder}: {explain_os_error(error)}"
    if size <= disk and lacking is None:
        return DISK
    return lacking or (
        f"the features take {in_mib(size)} per rank; half of what is free is {in_mib(memory)} of memory and "
        f"{in_mib(disk)} of disk space"
    )


def _agree(world: World, place: str) -> str:
    """Return what all ranks can do: the least of what each can."""
    places = world.all_gather(place)
    refused = [each for each in places if each not in (MEMORY, DISK)]
    return refused[0] if refused else DISK if DISK in places else MEMORY


def _compute(
    trainer: Trainer, data: DataSet, shape: tuple[int, ...], dtype: np.dtype, folder: Path | None
) -> tuple[Features | None, str]:
    """Return the features; None, and the reason, where a rank could not write them."""
    world = trainer.world
    world.report_task("computing the features of frozen layers")

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        inputs = data.input_batches()
        for batch in log_progress(inputs, inputs.count, "Batches of features"):
            world.report_activity()
            yield trainer.features(batch["inputs"]).numpy(), batch["examples"].numpy()

    failure, features = "", None
    try:
        rows, examples = store_features(batches(), shape, dtype, folder)
        features = Features(rows, examples, data.images.share.count)
    except OSError as error:
        failure = f"{folder}: {explain_os_error(error)}"
    failures = [each for each in world.all_gather(failure) if each]
    return (None, failures[0]) if failures else (features, "")
