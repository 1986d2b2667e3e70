"""The weights of `checkpoints.load`, copied into a model by layer name: transfer into a run that begins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from tfinpaint.checkpoint import transfer
from tfinpaint.checkpoint.find import find_weights
from tfinpaint.checkpoint.header import KINDS, Header, Kind
from tfinpaint.checkpoint.keras_files import KerasFile
from tfinpaint.checkpoint.model import network_digest, size_text
from tfinpaint.checkpoint.reader import open_weights, read_header
from tfinpaint.checkpoint.transfer import LayerWeights, TransferPlan
from tfinpaint.config.schema import Config
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.models.classifier import head_layers
from tfinpaint.models.layer_names import file_name
from tfinpaint.runs.build import describe_model, encoder_of
from tfinpaint.runs.run import Run
from tfinpaint.system.paths import display_path

log = logging.getLogger(__name__)


def trained_classes(config: Config, world: World) -> tuple[str, ...] | None:
    """Return the class names of the classifier in `checkpoints.load`; None where the file does not name them."""
    load = config.checkpoints.load
    assert load is not None  # the configuration was checked

    def read() -> list[str]:
        found = find_weights(load, "checkpoints.load").path
        if found.is_dir():
            return list(read_header(found, allowed=("classifier",)).classes)
        with open_weights(found, allowed=("classifier",)) as saved:
            return [] if isinstance(saved, KerasFile) else list(saved.header.classes)

    return tuple(world.run_on_rank0(read)) or None


def load_by_name(
    run: Run, world: World, path: Path, model: keras.Model, classes: Sequence[str] = (), *, whole: bool = False
) -> tuple[str, ...]:
    """Fill the layers of `model` that the file also has, on rank 0; `Trainer.synchronise` gives them to the others.

    A classifier takes the head of another one only where both have the same classes in the same order.

    Args:
        classes: class names of `model`, where it is a classifier.
        whole: every layer must be filled, from a model of the same form, because the model is not trained any further.

    Returns:
        Lines about what was transferred, which are logged too.

    Raises:
        UserError: there is no such checkpoint, or its weights cannot be used.
    """

    def load() -> list[str]:
        meant = find_weights(path, "checkpoints.load")
        found = meant.path
        source = _read_weights(run, found, model, whole)
        notes = [meant.note] if meant.note else []
        reason = _other_classes(source, found.name, classes) if run.kind == "classifier" else None
        if reason and whole:
            notes.append(f"{reason}; its head is used for the classes {', '.join(classes)}")
        withheld = dict.fromkeys(head_layers(model), reason) if reason and not whole else {}
        try:
            plan = transfer.plan_transfer(source.layers, model, withheld)
        except UserError as error:
            raise UserError(f"{found}: {error}") from None
        if whole and plan.not_copied:
            raise UserError(_not_whole(run, found, plan, source.image_shape))
        transfer.copy_weights(plan, source.layers, model)
        return [
            *notes,
            f"Loading {source.kind} weights from {display_path(found)}",
            *source.notes,
            *plan.report(found.name, *_new_part(run, model)),
        ]

    lines = tuple(world.run_on_rank0(load))
    for line in lines:
        log.info(line)
    return lines


def _new_part(run: Run, model: keras.Model) -> tuple[str, list[str]]:
    """Return the part of a model that weights of another kind do not have, and its layers."""
    if run.kind == "classifier":
        return "head", head_layers(model)
    encoder = encoder_of(run, model)
    inside = {layer.name for layer in encoder.layers} if encoder is not None else set()
    outside = [layer for layer in model.layers if layer.weights and layer.name not in inside]
    return "decoder", [file_name(layer.name) for layer in outside] if inside else []


def _not_whole(run: Run, path: Path, plan: TransferPlan, trained: tuple[int, int, int] | None) -> str:
    """Return why a model cannot be evaluated with the weights of a file."""
    if not plan.mismatched:
        return f"{path}: layer {plan.missing[0]} is not there; without training every layer needs its weights"
    name, stored, wanted = plan.mismatched[0]
    reason = f"{path}: the weights of layer {name} have the shapes {stored}, the model needs {wanted}"
    if trained is None or trained == run.config.input_shape:
        return f"{reason}; without training every layer's weights must fit"
    return (
        f"{reason}: it was trained on images of {size_text(trained)}, the data gives "
        f"{size_text(run.config.input_shape)} (height x width x channels); resize to the first shape in "
        "data.transforms, or train at the second"
    )


@dataclass(frozen=True)
class _Source:
    """Weights to start from.

    Attributes:
        kind: kind of the model that had them, for messages.
        layers: the weights by layer name.
        classes: class names of a classifier; () of a model without classes, None where the file does not name them.
        image_shape: height, width and channels of the images that they were trained on; None where it is not recorded.
        notes: lines for the log.
    """

    kind: str
    layers: LayerWeights
    classes: tuple[str, ...] | None
    image_shape: tuple[int, int, int] | None
    notes: tuple[str, ...] = ()


def _other_classes(source: _Source, name: str, classes: Sequence[str]) -> str | None:
    """Return why the head of a source does not fit these classes; None where it fits, or where there is no head."""
    if source.classes is None:
        return f"{name} does not name the classes that it was trained on"
    if not source.classes or source.classes == tuple(classes):
        return None
    if sorted(source.classes) == sorted(classes):
        return f"{name} was trained on the same classes in another order"
    return f"{name} was trained on other classes: {', '.join(source.classes[:3])}{', ...' * (len(source.classes) > 3)}"


def _read_weights(run: Run, path: Path, model: keras.Model, whole: bool) -> _Source:
    """Read the weights of a checkpoint of this project, or of a file that Keras has saved."""
    allowed: tuple[Kind, ...] = ("inpainter", "encoder") if run.kind == "inpainter" else (*KINDS,)
    with open_weights(path, allowed) as saved:
        if isinstance(saved, KerasFile):
            read = saved.read_weights(model, encoder_of(run, model))
            return _Source("Keras", read.layers, None, None, read.notes)
        header = saved.header
        _check_same_model(run, path, header, whole)
        shape = (header.height, header.width, header.channels)
        return _Source(header.kind, saved.layer_weights(), header.classes, shape)


def _check_same_model(run: Run, path: Path, header: Header, whole: bool) -> None:
    """Raise UserError where the checkpoint has another encoder or, for a whole model, another form."""
    # A whole model must also agree in what has no weights, or lies between the layers of equal names.
    form = {"encoder_output": "model.", "stem": "model.", "bottleneck": "model.", "decoder": "model."}
    form |= {"head": "model.", "output_activation": "with this loss the "}
    wanted = describe_model(run, steps=0)
    for name, where in {"encoder": "model.", **(form if whole else {})}.items():
        stored, configured = getattr(header, name), getattr(wanted, name)
        if stored != configured and run.network is None and header.network is None:
            raise UserError(f"{path}: its {name} is {stored}, {where}{name} is {configured}")
    if whole and header.network != (network_digest(run.network) if run.network else None):
        log.warning(
            f"{path} was trained with another network file: its layers have the right names and shapes, but may be "
            "connected in another way"
        )
