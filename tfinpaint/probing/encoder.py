"""Find the encoder that a path refers to, build it with its last addition and ReLU, and load its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras

from tfinpaint.checkpoint import transfer
from tfinpaint.checkpoint.find import find_weights, labels_of_choice, run_folder_of
from tfinpaint.checkpoint.header import Header
from tfinpaint.checkpoint.keras_files import KerasFile, with_current_names
from tfinpaint.checkpoint.reader import SavedModel, open_weights, read_config
from tfinpaint.checkpoint.transfer import LayerWeights, TransferPlan
from tfinpaint.config.encoders import ARCHITECTURES, STRIDES, EncoderName, Stem
from tfinpaint.config.schema import Config
from tfinpaint.config.transforms import Transform
from tfinpaint.data.examples import Preprocessing, split_steps
from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.data.tasks import classification_task
from tfinpaint.errors import UserError
from tfinpaint.layout import ENCODER_WEIGHTS
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.layer_names import file_name
from tfinpaint.system.wording import counted

# What keras.applications.resnet50.preprocess_input does to RGB values of 0 to 1: BGR, 0 to 255, minus these means.
_IMAGENET_MEANS = (103.939, 116.779, 123.68)
IMAGENET = [
    Transform.model_validate({"convert_color": "RGB2BGR"}),
    Transform.model_validate({"normalize": {"mean": [mean / 255 for mean in _IMAGENET_MEANS], "std": 1 / 255}}),
]


@dataclass(frozen=True)
class Source:
    """An encoder whose weights were loaded, and how images are prepared for it.

    Attributes:
        name: the path as it was given.
        run: the run folder that the weights lie in; None outside of one.
        encoder, stem: the architecture, as arguments of `models.encoder.build_encoder`.
        shape: height, width and channels of its images.
        preprocessing: from image files to its inputs; nothing in it is random, and nothing is erased.
        pictures: the same without the steps that change values, such as `normalize`.
        model: the encoder, as `models.encoder.build_encoder` returns it with "after_relu".
        is_keras: Keras itself has saved the weights.
        notes: lines for the log.
        labels_of_choice: number of labelled images by which the probe in pretraining prefers the weights; 0 without.
    """

    name: str
    run: Path | None
    encoder: EncoderName
    stem: Stem
    shape: tuple[int, int, int]
    preprocessing: Preprocessing
    pictures: Preprocessing
    model: keras.Model
    is_keras: bool
    notes: tuple[str, ...]
    labels_of_choice: int = 0


def load_encoder(
    path: Path, size: tuple[int, int] | None = None, *, imagenet: bool = False, required: bool = True
) -> Source:
    """Load the encoder that a path refers to: a run, a checkpoint, or a weight file of this project or of Keras.

    Args:
        size: height and width of the images in pixels, for a weight file without the configuration of its run.
        imagenet: give a weight file of Keras the inputs that Keras' ImageNet weights were trained on.
        required: `size` must be used; otherwise it is only used where the path does not determine the size.

    Raises:
        UserError: There is no such encoder, its weights are not those of ResNet50, or its size is unknown, or differs.
    """
    found = find_weights(path)
    encoder_file = found.path / ENCODER_WEIGHTS
    notes = [found.note] if found.note else []
    with open_weights(encoder_file if encoder_file.is_file() else found.path) as saved:
        if isinstance(saved, KerasFile):
            return _load_keras(path, saved, size, imagenet)
        config, header = _config_of(found.path), saved.header
        if config is not None and size is not None and required:
            raise UserError(
                f"--size: {path} was trained on images of {header.width} x {header.height} pixels, as the "
                "configuration of its run says; leave --size out"
            )
        height, width = (header.height, header.width) if size is None or config is not None else size
        shape = height, width, header.channels
        name = header.encoder or "resnet50"
        model = _build(name, shape, header.stem)
        layers = _layers_of(saved, model)
    _fill(path, layers, model, header)
    if config is None:
        preprocessing, pictures = resized(shape, header.restoration.input_transforms if header.restoration else ())
    else:
        preprocessing = classification_task(config, labels=False, augment=False).images
        pictures = classification_task(_without_values(config), labels=False, augment=False).images
    run = run_folder_of(path)
    return Source(
        str(path), run, name, header.stem, shape, preprocessing, pictures, model, False, tuple(notes),
        labels_of_choice(found.path),
    )  # fmt: skip


def _load_keras(path: Path, saved: KerasFile, size: tuple[int, int] | None, imagenet: bool) -> Source:
    if size is None:
        raise UserError(
            f"{path}: a weight file of Keras does not hold the size of its images; give --size, such as --size 224"
        )
    shape = (*size, 3)
    model = _build("resnet50", shape, "standard")
    read = saved.read_weights(model, None)
    _fill(path, read.layers, model, None)
    notes = [*read.notes]
    if not imagenet:
        notes.append(f"{path}: receives values of 0 to 1; add --imagenet if these are ImageNet weights of Keras")
    preprocessing, pictures = resized(shape, IMAGENET if imagenet else ())
    run = run_folder_of(path)
    return Source(str(path), run, "resnet50", "standard", shape, preprocessing, pictures, model, True, tuple(notes))


def _build(name: EncoderName, shape: tuple[int, int, int], stem: Stem) -> keras.Model:
    (height, width, channels), least = shape, STRIDES[stem]
    if min(height, width) < least:
        raise UserError(f"images of {width} x {height} pixels: the encoder needs at least {least} x {least}")
    return build_encoder(name, "after_relu", height, width, channels, stem)


def _layers_of(saved: SavedModel, encoder: keras.Model) -> LayerWeights:
    """Return the saved weights by the names that ResNet50 has in Keras today, also for rmldnn's network file."""
    layers = saved.layer_weights()
    if saved.header.network is None:
        return layers
    return with_current_names(
        saved.path, layers, {file_name(each.name) for each in encoder.layers if each.weights}
    ).layers


def _fill(path: Path, layers: LayerWeights, model: keras.Model, header: Header | None) -> None:
    """Copy the weights of all layers into the encoder. Raises UserError where one is missing or has another shape."""
    network = header.encoder if header and header.encoder else "ResNet50"
    try:
        plan = transfer.plan_transfer(layers, model)
    except UserError as error:
        raise UserError(f"{path}: not the weights of {network}: {error}") from None
    if plan.not_copied:
        raise UserError(f"{path}: {_incomplete(plan, header) or f'not the weights of {network}: {_missing(plan)}'}")
    transfer.copy_weights(plan, layers, model)


def _incomplete(plan: TransferPlan, header: Header | None) -> str | None:
    """Return why the last block lacks weights where these were not trained; None where something else is missing."""
    if header is None or not header.encoder or header.encoder_output != "before_add" or plan.mismatched:
        return None
    last = ARCHITECTURES[header.encoder].stages[5].removesuffix("_out")
    if not all(name.startswith(f"{last}_0_") for name in plan.missing):
        return None
    return (
        f"the layers {', '.join(plan.missing)} are missing, which lead around the last block of model.encoder: "
        f"{header.encoder}; with encoder_output: before_add they are not trained; pretrain with encoder_output: "
        "after_relu"
    )


def _missing(plan: TransferPlan) -> str:
    """Return which layer of the encoder gets no weights."""
    if plan.mismatched:
        name, stored, wanted = plan.mismatched[0]
        return f"layer {name} has the shapes {stored}, expected {wanted}"
    return f"layer {plan.missing[0]} is missing ({counted(len(plan.missing), 'layer')} in total)"


def _config_of(found: Path) -> Config | None:
    """Return what `read_config` returns; an error also says how the weights can be used without the configuration."""
    try:
        return read_config(found)
    except UserError as error:
        raise UserError(f"{error}; copy {ENCODER_WEIGHTS} to another folder and name that file") from None


def _without_values(config: Config) -> Config:
    """Return a configuration without the transforms that change values but move no pixels."""
    data = config.data
    kept = {
        name: [step for step in getattr(data, name) if not step.changes_values]
        for name in ("transforms", "input_transforms")
    }
    return config.model_copy(update={"data": data.model_copy(update=kept)})


def resized(
    shape: tuple[int, int, int], steps: tuple[Transform, ...] | list[Transform]
) -> tuple[Preprocessing, Preprocessing]:
    """Return the preprocessing that resizes and then takes these steps, and the one that only resizes."""
    height, width, channels = shape
    resize, options = Transform.model_validate({"resize": [width, height]}), DecodeOptions(channels=channels)
    return split_steps(tuple(enumerate([resize, *steps])), options), split_steps(((0, resize),), options)
