"""The epoch with the lowest loss on validation images, and when training ends because of it."""

from __future__ import annotations

import logging

from tfinpaint.checkpoint.reader import load_weights
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.layout import MODEL_WEIGHTS, checkpoint_name
from tfinpaint.runs.run import Run
from tfinpaint.system.paths import display_path
from tfinpaint.system.wording import counted
from tfinpaint.train.totals import EpochResult
from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)

VALIDATION = "validation"  # the phase of metrics; a run without validation images has "test" instead


class EarlyStopping:
    """Follows the loss on validation images over the epochs, those before a resume included; equal on all ranks."""

    def __init__(self, run: Run) -> None:
        section, records = run.config.early_stopping, run.resumed.progress.records if run.resumed else ()
        self._patience = section.patience if section else None
        self._losses = {int(r["epoch"]): float(r["loss"]) for r in records if r["phase"] == VALIDATION}

    def epoch_end(self, epoch: int, train: EpochResult, held_out: EpochResult | None) -> None:
        """Note the loss of an epoch; log where it is the one after which training ends."""
        assert held_out is not None
        self._losses[epoch] = held_out.values["loss"]
        if self.is_over():
            log.info(
                f"Training ends after epoch {epoch}: in {counted(self._patience or 0, 'epoch')}, "
                f"no validation loss was lower than {self._losses[self.best]:.4g} after epoch {self.best}"
            )

    @property
    def best(self) -> int:
        """The epoch with the lowest loss, the first of several; 0 before any."""
        return min(self._losses, key=lambda epoch: (self._losses[epoch], epoch), default=0)

    def is_over(self) -> bool:
        """Return whether training ends before its last epoch."""
        return self._patience is not None and max(self._losses, default=0) - self.best >= self._patience


def restore_best_epoch(run: Run, world: World, trainer: Trainer, epoch: int) -> None:
    """Fill the model with the weights that were saved after the best epoch. Every rank calls this.

    Raises:
        UserError: that checkpoint is missing or damaged.
    """
    assert run.config.checkpoints.save is not None  # the configuration was checked
    path = run.config.checkpoints.save / checkpoint_name(epoch)

    def load() -> None:
        if not path.is_dir():
            raise UserError(f"{path}: this checkpoint of the best epoch is missing; bring it back, then --resume")
        load_weights(path / MODEL_WEIGHTS, trainer.model)

    world.run_on_rank0(load)
    world.broadcast_variables(trainer.model.variables)
    log.info(f"The model is that of epoch {epoch}, the best by its loss on validation images: {display_path(path)}")
