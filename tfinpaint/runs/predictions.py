"""Write the outputs of a model for every held-out image."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfinpaint.errors import UserError
from tfinpaint.layout import PREDICTIONS, RMLDNN_PREDICTIONS
from tfinpaint.report import predictions
from tfinpaint.report.predictions import (
    PredictionsPart,
    merge_predictions,
    remove_prediction_parts,
    write_prediction_table,
)
from tfinpaint.runs.build import output_activation
from tfinpaint.runs.data import DataSet
from tfinpaint.runs.run import Run
from tfinpaint.storage.write_errors import explain_os_error
from tfinpaint.system.paths import display_path
from tfinpaint.system.wording import counted
from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)


def write_predictions(run: Run, trainer: Trainer, data: DataSet, classes: Sequence[str] = ()) -> None:
    """Write the predictions of every image of `data` into `data.test_output_path`; every rank writes its share.

    Args:
        classes: names of the classes of a classifier, whose outputs are written as probabilities, with a table of the
            most probable classes.

    Raises:
        UserError: the folder cannot be written.
    """
    folder, paths = run.config.data.test_output_path, data.images.listing.paths
    assert folder is not None
    world = trainer.world
    world.report_task(f"writing predictions into {folder}")
    failure = None
    try:
        _write_share(
            run, trainer, data, folder, are_logarithms=bool(classes) and output_activation(run) == "log_softmax"
        )
    except OSError as error:
        failure = _message(error)
    failures = [each for each in world.all_gather(failure) if each]  # all parts are there before they are merged
    if world.is_rank0 and not failures:  # no rank waits for this: it may take longer than a collective may
        try:
            name = RMLDNN_PREDICTIONS if run.config.output_format == "rmldnn" else PREDICTIONS
            merged = merge_predictions(folder, world.size, name, classes=classes)
            if classes:
                write_prediction_table(merged, paths, classes)
        except OSError as error:
            failures = [_message(error)]
    if failures:
        remove_prediction_parts(folder)
        raise UserError(f"{folder}: the predictions cannot be written: {failures[0]}")
    log.info(f"Predictions of {counted(len(data), 'image')}: {display_path(folder)}")


def _message(error: OSError) -> str:
    return f"{error.filename}: {explain_os_error(error)}" if error.filename else explain_os_error(error)


def _write_share(run: Run, trainer: Trainer, data: DataSet, folder: Path, *, are_logarithms: bool) -> None:
    listing, shard = data.images.listing, data.images.share
    names = predictions.picture_names(listing.paths)
    part = PredictionsPart(
        folder, trainer.world.rank, names, classes=run.config.data.target_is_mask,
        channels_first=run.config.output_format == "rmldnn",
    )  # fmt: skip
    indices = iter(shard.indices(len(listing)))
    try:
        for batch in data.evaluation_batches():
            trainer.world.report_activity()
            outputs = trainer.predict(batch["inputs"])
            for output in np.exp(outputs) if are_logarithms else outputs:
                part.add(listing.paths[next(indices)], output)
    finally:
        part.close()
