"""Keep the batch at which training stopped because a loss or a gradient was not finite, for `tfinpaint replay`."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfinpaint.batch import Batch
from tfinpaint.checkpoint.find import list_checkpoints
from tfinpaint.cli.options import resume_command
from tfinpaint.config.checks import Command
from tfinpaint.config.schema import Config
from tfinpaint.data.listing.listing import Listing
from tfinpaint.errors import UserError
from tfinpaint.layout import NONFINITE_BATCHES
from tfinpaint.storage.atomic import write_bytes
from tfinpaint.storage.safe_npz import read_whole_npz, write_npz
from tfinpaint.system.paths import display_path
from tfinpaint.system.subprocesses import CONTINUED_BY

log = logging.getLogger(__name__)

_FACTS = ("loss", "where", "images")  # beside the batch's tensors


@dataclass(frozen=True)
class NonfiniteBatch:
    """A batch of one rank that was kept.

    Attributes:
        batch: its tensors by name, as the trainer got them.
        loss: the loss of this rank.
        where: epoch and step.
        images: the file of each example.
    """

    batch: dict[str, np.ndarray]
    loss: float
    where: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class NonfiniteKeeper:
    """Keeps the last non-finite batch of this rank.

    Attributes:
        listing: the training images, which the numbers of the examples refer to.
        read_inputs: returns the inputs of examples, for batches that have features in their place.
    """

    run_folder: Path
    rank: int
    listing: Listing
    read_inputs: Callable[[Sequence[int]], np.ndarray]

    def __call__(self, batch: Batch, loss: float, where: str) -> str | None:
        """Write `nonfinite_batches/epoch_E_step_S_rank_R.npz`, whole or not at all; only log a failure.

        Returns:
            The file; None where it could not be written.
        """
        folder, ending = self.run_folder / NONFINITE_BATCHES, f"_rank_{self.rank}.npz"
        path = folder / f"{where.replace(', ', '_').replace(' ', '_')}{ending}"
        arrays: dict[str, Any] = {name: np.asarray(tensor) for name, tensor in batch.items()}
        images = [self.listing.place(int(example)) for example in arrays["examples"]]
        facts: dict[str, Any] = {"loss": np.float64(loss), "where": np.str_(where), "images": np.array(images, np.str_)}
        try:
            if arrays.pop("features", None) is not None:
                arrays["inputs"] = self.read_inputs(arrays["examples"].tolist())
            contents = io.BytesIO()
            write_npz(contents, {**facts, **arrays})
            write_bytes(path, contents.getvalue())
            for earlier in set(folder.glob(f"*{ending}")) - {path}:
                earlier.unlink()
        except (OSError, UserError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            log.warning(f"{display_path(path)}: the batch cannot be kept: {why}")
            return None
        return str(path)


def how_to_continue(task: Command, config: Config) -> str:
    """Return how a run that has stopped at values that are not finite is started again.

    Args:
        config: of the run, whose command resumes it with a tenth of its learning rate.
    """
    again, workdir, folder = "start again with --overwrite", config.workdir, config.checkpoints.save
    if workdir and (whole := os.environ.get(CONTINUED_BY)):  # which takes no options of the run
        return f"remove {display_path(workdir)}, and start again with: {whole}"
    saved = list_checkpoints(folder) if folder else []
    if not saved or workdir is None:
        return again
    change = f"--set optimizer.learning_rate={config.optimizer.learning_rate / 10:g} --allow-change optimizer"
    return f"{again}, or resume from {saved[-1].name}, such as with: {resume_command(task, workdir)} {change}"


def load_nonfinite_batch(path: Path) -> NonfiniteBatch:
    """Read a batch that a `NonfiniteKeeper` has written.

    Raises:
        UserError: the file is not such a batch, or damaged.
    """
    arrays = read_whole_npz(path)
    try:
        images = tuple(arrays["images"].tolist())
        batch = {name: array for name, array in arrays.items() if name not in _FACTS}
        if {len(array) for array in batch.values()} != {len(images)} or "inputs" not in batch:
            raise ValueError("not the tensors of a batch")
        return NonfiniteBatch(batch, float(arrays["loss"]), str(arrays["where"]), images)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a batch that a run has kept: {error}") from None


def find_nonfinite_batch(run_folder: Path) -> Path:
    """Return the file of the batch that was kept last.

    Raises:
        UserError: there is none.
    """
    kept = sorted((run_folder / NONFINITE_BATCHES).glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
    if not kept:
        raise UserError(
            f"{run_folder / NONFINITE_BATCHES}: there is no batch; a run keeps one where it stops at "
            "values that are not finite"
        )
    return kept[-1]
