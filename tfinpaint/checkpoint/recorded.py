"""What a checkpoint records about its model and its run, and why an inpainter cannot restore photos. No TensorFlow."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from tfinpaint.checkpoint.find import MOST_PROGRESS_BYTES
from tfinpaint.config.schema import Config
from tfinpaint.errors import UserError
from tfinpaint.layout import HEADER, PROGRESS
from tfinpaint.storage.safe_json import read_json

_NORMALISED = (
    "loss.normalize_patches makes its outputs normalised cells, which are no colours; train one with "
    "loss.normalize_patches: null, as the recipe of `tfinpaint demo` does; the encoder of this one can be used as it is"
)
_TRAIN = "train one by tfinpaint pretrain with a mask in data.transforms and the images themselves as targets"


def recorded_kind(path: Path) -> str | None:
    """Return the kind of the model in a checkpoint folder, as its header names it.

    Returns:
        None where there is no header, as beside a weight file that was copied.
    """
    header = read_json(path / HEADER)
    kind = header.get("kind") if isinstance(header, dict) else None
    return kind if isinstance(kind, str) else None


def refuse_not_restoring(checkpoint: Path) -> None:
    """Raise UserError if the header of a checkpoint folder says that its inpainter cannot restore photos.

    A weight file without its folder, and what is no inpainter, are not refused.
    """
    header = read_json(checkpoint / HEADER)
    if isinstance(header, dict) and header.get("kind") == "inpainter" and header.get("restoration") is None:
        raise cannot_restore(checkpoint)


def cannot_restore(checkpoint: Path) -> UserError:
    """Return the error for an inpainter that cannot restore photos, with the reason where its run has noted one."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    progress = read_json(folder / PROGRESS, MOST_PROGRESS_BYTES)
    values = progress.get("config") if isinstance(progress, dict) else None
    try:
        config = Config.model_validate(values) if values else None
    except ValidationError:
        config = None
    reason = f"{config.unmeasured}; {_TRAIN}" if config and config.unmeasured else _TRAIN
    if config and config.shows_restorations and config.loss.normalize_patches:
        reason = _NORMALISED
    return UserError(f"{checkpoint}: its model was not trained to restore photos: {reason}")
