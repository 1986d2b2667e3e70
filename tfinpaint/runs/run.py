"""The facts of a run: its configuration and kind of model, the checkpoint it resumes from, what its ranks share."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfinpaint.checkpoint.header import Header, Kind, SavedProgress
from tfinpaint.cli.options import Options
from tfinpaint.config.checks import Command
from tfinpaint.config.schema import Config
from tfinpaint.distributed.world import World
from tfinpaint.models.keras_json.parse import read_network
from tfinpaint.models.layer_names import renaming_note
from tfinpaint.runs.folder import RunFolder
from tfinpaint.runs.precision import settle_precision
from tfinpaint.system.paths import display_path
from tfinpaint.train.schedules import LrScaling

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resumed:
    """The checkpoint that a run resumes from.

    Attributes:
        changes: the keys of the configuration that have changed since it was saved, all of them allowed to.
    """

    path: Path
    header: Header
    progress: SavedProgress
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """The facts of one run that are known before its images are opened, equal on all ranks.

    Attributes:
        kind: of the model that is trained or evaluated.
        ranks: their number.
        network: definition of the network of `layers`; None for that of the `model` section.
        resumed: the checkpoint that the run resumes from; None for a new run.
        class_weights: those of `loss.weight: balanced`, once the training images are known.
        call, quiet: as in `Options`.
    """

    config: Config
    kind: Kind
    ranks: int = 1
    network: dict[str, Any] | None = None
    resumed: Resumed | None = None
    class_weights: tuple[float, ...] | None = None
    call: str = ""
    quiet: bool = False

    @property
    def task(self) -> Command:
        """The command that the run is one of."""
        return "pretrain" if self.kind == "inpainter" else "classify"

    @property
    def trains(self) -> bool:
        """False for a run that only evaluates."""
        return self.config.data.input_path is not None

    @property
    def network_name(self) -> str:
        """The network's file, or the key that holds the network, for messages."""
        return str(self.config.layers) if isinstance(self.config.layers, Path) else "layers"

    @property
    def batch_size(self) -> int:
        """Images in a training batch, over all ranks."""
        return self.config.data.batch_size * (self.ranks if self.config.data.batch_size_per_rank else 1)

    @property
    def test_batch_size(self) -> int:
        """Images in an evaluation batch, over all ranks."""
        return self.config.data.test_batch_size * (self.ranks if self.config.data.batch_size_per_rank else 1)

    @property
    def lr_scaling(self) -> LrScaling | None:
        """How every learning rate of the run is scaled for the number of ranks; None for not at all."""
        settings = self.config.distributed
        if settings.lr_scaling is None or self.ranks == 1:
            return None
        factor = self.ranks if settings.lr_scaling == "linear" else math.sqrt(self.ranks)
        return LrScaling(factor, settings.lr_warmup_epochs)

    @property
    def first_epoch(self) -> int:
        """The epoch that training begins or resumes in, from 1."""
        return self.resumed.header.epoch + 1 if self.resumed else 1

    @property
    def is_evaluated_again(self) -> bool:
        """True where nothing is left to train, and the last evaluation is missing or was one of other settings."""
        if self.resumed is None or self.first_epoch <= self.config.num_epochs:
            return False
        last = ("test", self.resumed.header.epoch)
        evaluated = any((record["phase"], record["epoch"]) == last for record in self.resumed.progress.records)
        return bool(self.resumed.changes) or not evaluated

    def first_step(self, steps: int) -> int:
        """Return the number of steps that are done already, where an epoch has `steps`.

        Where that number has changed since the checkpoint, the same fraction of the current epoch counts as done.
        """
        if self.resumed is None:
            return 0
        header = self.resumed.header
        return header.epoch * steps + header.step_in_epoch * steps // max(header.steps_per_epoch, 1)


@contextmanager
def open_run(options: Options, world: World, kind: Kind) -> Iterator[tuple[Run, RunFolder]]:
    """Lock the run folder, find the checkpoint to resume from, and set precision, determinism and seeds.

    Nothing in the folder changes before `RunFolder.begin` is called. At the end of the `with` statement the folder is
    unlocked, so that another run can follow in this process.

    Raises:
        UserError: the folder cannot be written, or holds a run and neither `--resume` nor `--overwrite` was given; or
            the network file cannot be used.
    """
    config = options.config
    network = read_network(config.layers) if config.layers is not None else None
    policy = keras.config.dtype_policy()
    with RunFolder(config) as folder:
        found = world.run_on_rank0(lambda: folder.open(kind, options))
        folder.config = config = settle_precision(config, world, found["progress"]["config"] if found else None)
        keras.config.set_dtype_policy(config.precision)
        keras.utils.set_random_seed(config.seed)
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        if network is not None and (note := renaming_note([layer["name"] for layer in network["layers"]])):
            log.info(note)
        try:
            resumed = _as_resumed(folder, found) if found else None
            yield Run(config, kind, world.size, network, resumed, call=options.call, quiet=options.quiet), folder
        finally:
            keras.config.set_dtype_policy(policy)


def _as_resumed(folder: RunFolder, found: dict[str, Any]) -> Resumed:
    """Return what `RunFolder.open` has found on rank 0, and log where the run resumes."""
    header = Header.model_validate(found["header"])
    step, epochs = header.step_in_epoch, folder.config.num_epochs
    within = f", step {step} of {header.steps_per_epoch} in the next epoch" if step else ""
    done = "" if header.epoch < epochs else "; nothing is left to train"
    log.info(f"Resuming from epoch {header.epoch} of {epochs}{within} in {display_path(folder.path)}{done}")
    progress = SavedProgress.model_validate(found["progress"])
    return Resumed(Path(found["path"]), header, progress, tuple(found["changes"]))
