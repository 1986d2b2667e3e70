"""What the functions of the interface return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfinpaint.config.schema import Config
from tfinpaint.errors import UserError
from tfinpaint.layout import FIGURES, REPORT

if TYPE_CHECKING:  # they load TensorFlow
    import keras

    from tfinpaint.probing.evaluation import Row


def _load_model(checkpoint: Path) -> keras.Model:
    from tfinpaint.checkpoint.reader import open_checkpoint

    with open_checkpoint(checkpoint) as saved:
        return saved.model()


@dataclass(frozen=True)
class TrainingResult:
    """What `pretrain` and `classify` return: the same on every rank.

    Attributes:
        folder: the run folder.
        config: the configuration with which the run was made: every default, and absolute paths.
        metrics: the final figures, as in `summary.json`.
        history: the metrics of each epoch and phase, in order, as in `metrics.jsonl`.
        checkpoint: the checkpoint that the report describes: the newest one, or the one that validation images have
            chosen; None where none was saved.
    """

    folder: Path
    config: Config
    metrics: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    checkpoint: Path | None

    @property
    def report(self) -> Path:
        """The page that shows the run: `report.html`."""
        return self.folder / REPORT

    @property
    def figures(self) -> Path:
        """The folder of the figures (PNG), such as `loss.png`, and `restorations.png` of an inpainter."""
        return self.folder / FIGURES

    def values(self, metric: str, phase: str = "train") -> list[float]:
        """Return the values of a metric, one for each epoch that has it.

        Args:
            metric: such as "loss".
            phase: "train", "test" or "validation".
        """
        return [record[metric] for record in self.history if record["phase"] == phase and metric in record]

    @cached_property
    def model(self) -> keras.Model:
        """The trained model, loaded from `checkpoint` when it is first used.

        An inpainter returns images, float32 [batch, height, width, channels]; a classifier probabilities, float32
        [batch, classes] (their logarithms if its network ends with a log-softmax). Inputs are what the transforms of
        the configuration make.

        Raises:
            UserError: no checkpoint was saved.
        """
        if self.checkpoint is None:
            raise UserError(
                f"{self.folder}: the run has saved no checkpoint, so there is no model; set checkpoints.save"
            )
        return _load_model(self.checkpoint)


@dataclass(frozen=True)
class PretrainResult(TrainingResult):
    """What `pretrain` returns."""

    @cached_property
    def encoder(self) -> keras.Model:
        """The encoder alone, with its last addition and ReLU: images in, features [batch, rows, columns, channels] out.

        It is that of the checkpoint with the best features or the lowest loss, where these are known, as
        `checkpoints.load` takes it.

        Raises:
            UserError: no checkpoint was saved.
        """
        from tfinpaint.probing.encoder import load_encoder

        return load_encoder(self.folder).model


@dataclass(frozen=True)
class ClassifyResult(TrainingResult):
    """What `classify` returns.

    Attributes:
        classes: the names of the classes, in the order of the model's outputs.
    """

    classes: tuple[str, ...]


@dataclass(frozen=True)
class PredictResult:
    """The classes of photos, as `predict` returns them for a classifier.

    Attributes:
        checkpoint: of the classifier.
        classes: the names of the classes.
        photos: the paths of the photos that could be read.
        probabilities: float32 [photos, classes].
        unreadable: path -> reason, of the photos and folders that could not be read.
    """

    checkpoint: Path
    classes: tuple[str, ...]
    photos: tuple[str, ...]
    probabilities: np.ndarray
    unreadable: Mapping[str, str]

    @property
    def best(self) -> list[str]:
        """The most probable class of each photo."""
        return [self.classes[index] for index in self.probabilities.argmax(axis=1)]

    @cached_property
    def model(self) -> keras.Model:
        """The classifier, loaded when it is first used."""
        return _load_model(self.checkpoint)


@dataclass(frozen=True)
class RestoreResult:
    """A restored photo, as `predict` returns it for an inpainter.

    Attributes:
        checkpoint: of the inpainter.
        image: uint8 or uint16 [height, width, 1 or 3]: the photo, upright, restored in the hole.
        hole: bool [height, width]: where the mask is white.
        output: the file that was written; None for none.
        notes: what was done, what could not be kept, and what is probably wrong.
    """

    checkpoint: Path
    image: np.ndarray
    hole: np.ndarray
    output: Path | None
    notes: tuple[str, ...]

    @cached_property
    def model(self) -> keras.Model:
        """The inpainter, loaded when it is first used."""
        return _load_model(self.checkpoint)


@dataclass(frozen=True)
class ProbeResult:
    """How good the features of an encoder are, as `probe` returns it.

    Attributes:
        folder: with the report and its figures.
        sentences: what was found.
        metrics: all figures, as in `probe.json`.
        rows: the results of each set of features: the encoder's depths, those of a random encoder, of further encoders,
            raw pixels and HOG.
        model: the encoder that was probed, as `PretrainResult.encoder` describes it.
    """

    folder: Path
    sentences: tuple[str, ...]
    metrics: Mapping[str, Any]
    rows: tuple[Row, ...]
    model: keras.Model

    @property
    def report(self) -> Path:
        """The page that shows the probe: `report.html`."""
        return self.folder / REPORT
