"""The weights that a run starts from, where `checkpoints.load` names a file: read, compared with the model, copied."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from tfinpaint.checkpoint import transfer
from tfinpaint.checkpoint.find import find_checkpoint
from tfinpaint.checkpoint.header import KINDS, Header, Kind
from tfinpaint.checkpoint.keras_files import KerasFile
from tfinpaint.checkpoint.model import network_digest, size_text
from tfinpaint.checkpoint.reader import open_weights, read_header
from tfinpaint.checkpoint.transfer import LayerWeights, TransferPlan
from tfinpaint.errors import UserError
from tfinpaint.models.classifier import head_layers
from tfinpaint.runs.build import describe_model, encoder_of
from tfinpaint.runs.run import Run

log = logging.getLogger(__name__)


def trained_classes(run: Run) -> tuple[str, ...] | None:
    """The class names of the classifier in `checkpoints.load`; None where the file does not tell."""
    load = run.config.checkpoints.load
    assert load is not None  # the configuration was checked

    def read() -> list[str]:
        found = find_checkpoint(load, "checkpoints.load").path
        if found.is_dir():
            return list(read_header(found, allowed=("classifier",)).classes)
        with open_weights(found, allowed=("classifier",)) as saved:
            return [] if isinstance(saved, KerasFile) else list(saved.header.classes)

    return tuple(run.world.run_on_rank0(read)) or None


def load_by_name(run: Run, path: Path, model: keras.Model, *, classes: Sequence[str] = (), whole: bool = False) -> None:
    """Fill the layers of `model` that the file also has, on rank 0; `Trainer.synchronise` gives them to the others.

    A classifier takes the head of another one only where both have the same classes in the same order. What was
    transferred is logged, and noted in `run.transferred`.

    Args:
        classes: class names of `model`, where it is a classifier.
        whole: every layer must be filled, from a model of the same form: it is to be used as it is.

    Raises:
        UserError: there is no such checkpoint, or its weights cannot be used.
    """

    def load() -> list[str]:
        meant = find_checkpoint(path, "checkpoints.load")
        found = meant.path
        source = _read_weights(run, found, model, whole)
        notes = [meant.note] if meant.note else []
        reason = _other_classes(source, found.name, classes) if run.kind == "classifier" else None
        if reason and whole:
            notes.append(f"{reason}; its head is taken to be for: {', '.join(classes)}")
        withheld = dict.fromkeys(head_layers(model), reason) if reason and not whole else {}
        try:
            plan = transfer.plan_transfer(source.layers, model, withheld)
        except UserError as error:
            raise UserError(f"{found}: {error}") from None
        if whole and plan.not_copied:
            raise UserError(_not_whole(run, found, plan, source.image_shape))
        transfer.copy_weights(plan, source.layers, model)
        return [*notes, f"Loading {source.kind} weights from {found}", *source.notes, *plan.report(found.name)]

    lines = run.world.run_on_rank0(load)
    for line in lines:
        log.info(line)
    run.transferred[:] = lines


def origin_of(run: Run) -> str:
    """Tell where the weights came from that a run began with, for its report."""
    if run.transferred:
        return "\n".join(run.transferred)
    load = run.config.checkpoints.load
    return f"From {load}, when the run began" if load else "From random weights (checkpoints.load is not set)"


def _not_whole(run: Run, path: Path, plan: TransferPlan, trained: tuple[int, int, int] | None) -> str:
    """Explain why a model cannot be evaluated with the weights of a file."""
    if not plan.mismatched:
        return f"{path}: without training every layer's weights must be there; layer {plan.missing[0]} is not"
    name, stored, wanted = plan.mismatched[0]
    reason = f"{path}: the weights of layer {name} have the shapes {stored}, the model needs {wanted}"
    if trained is None or trained == run.config.input_shape:
        return f"{reason}; without training every layer's weights must fit"
    return (
        f"{reason}: it was trained on images of {size_text(trained)}, the data gives "
        f"{size_text(run.config.input_shape)} (height x width x channels); let data.transforms make images of "
        "the first shape, or train at the second"
    )


@dataclass(frozen=True)
class _Source:
    """Weights to start from.

    Attributes:
        kind: of the model that they are from, for messages.
        layers: by layer name.
        classes: of a classifier; () of a model without classes, None where the file does not tell.
        image_shape: height, width and channels of the images that they were trained on; None where it does not tell.
        notes: lines for the log.
    """

    kind: str
    layers: LayerWeights
    classes: tuple[str, ...] | None
    image_shape: tuple[int, int, int] | None
    notes: tuple[str, ...] = ()


def _other_classes(source: _Source, name: str, classes: Sequence[str]) -> str | None:
    """Return why the head of a source is not one for these classes; None where it is, or where there is no head."""
    if source.classes is None:
        return f"{name} does not name the classes that it was trained on"
    if not source.classes or source.classes == tuple(classes):
        return None
    if sorted(source.classes) == sorted(classes):
        return f"{name} was trained on the same classes in another order"
    return f"{name} was trained on other classes: {', '.join(source.classes[:3])}{', ...' * (len(source.classes) > 3)}"


def _read_weights(run: Run, path: Path, model: keras.Model, whole: bool) -> _Source:
    """Read the weights of a checkpoint of this project, or of a file that Keras itself has saved."""
    allowed: tuple[Kind, ...] = ("inpainter", "encoder") if run.kind == "inpainter" else (*KINDS,)
    with open_weights(path, allowed) as saved:
        if isinstance(saved, KerasFile):
            read = saved.read_weights(model, encoder_of(run, model))
            return _Source("Keras", read.layers, None, None, read.notes)
        header = saved.header
        _check_same_model(run, path, header, whole)
        return _Source(
            header.kind, saved.layer_weights(), header.classes, (header.height, header.width, header.channels)
        )


def _check_same_model(run: Run, path: Path, header: Header, whole: bool) -> None:
    """Refuse a checkpoint whose encoder differs; if the whole model is wanted, also one of another form."""
    # Of a whole model also what has no weights, or would lie between the layers of equal names.
    form = {"encoder_output": "model.", "bottleneck": "model.", "output_activation": "with this loss the "}
    wanted = describe_model(run, steps=0)
    for name, where in {"encoder": "model.", **(form if whole else {})}.items():
        stored, configured = getattr(header, name), getattr(wanted, name)
        if stored != configured and run.network is None and header.network is None:
            raise UserError(f"{path}: its {name} is {stored}, {where}{name} is {configured}")
    if whole and header.network != (network_digest(run.network) if run.network else None):
        log.warning(f"{path} was trained with another network file: names and shapes fit, what lies between may not")
