"""The model of a run: the header that describes it, its encoder, and whether it fits the data."""

from __future__ import annotations

import keras

from tfinpaint.checkpoint.header import FORMAT, Header, InputSpec
from tfinpaint.checkpoint.model import network_digest, size_text
from tfinpaint.config.encoders import ARCHITECTURES
from tfinpaint.config.schema import Config
from tfinpaint.errors import UserError
from tfinpaint.models.decoder import encoder_part
from tfinpaint.models.encoder import distances_from_head
from tfinpaint.models.keras_json.build import output_activation as network_output_activation
from tfinpaint.models.trainable import freeze_behind, set_trainable
from tfinpaint.runs.run import Run
from tfinpaint.train.optimizers import build_optimizer

UNFROZEN = ("stage 5", "stage 4", "stage 3", "stage 2", "the stem")  # by their distance from the head


def describe_model(run: Run, *, steps: int, classes: tuple[str, ...] = ()) -> Header:
    """Return the header of a run's model before its first step, where an epoch has `steps`."""
    config, model = run.config, run.config.model
    inpainter = run.kind == "inpainter"
    height, width, channels = config.input_shape
    assert height
    assert width
    return Header(
        format=FORMAT,
        kind=run.kind,
        epoch=0,
        step=0,
        encoder=None if run.network else model.encoder,
        encoder_output=None if run.network else model.encoder_output,
        stem=model.stem,
        network=network_digest(run.network) if run.network else None,
        height=height,
        width=width,
        channels=channels,
        target_channels=config.target_shape[2],
        bottleneck=model.bottleneck,
        decoder=model.decoder,
        output_activation=config.output_activation if inpainter else "sigmoid",
        head=model.head,
        restoration=_restoration(config) if inpainter else None,
        adversarial=config.loss.adversarial.optimizer.type if config.loss.adversarial else None,
        classes=classes,
        optimizer=config.optimizer.type,
        loss_scaled=config.scales_loss,
        lr_factor=run.lr_scaling.factor if run.lr_scaling else 1.0,
        batch_size=run.batch_size,
        steps_per_epoch=steps,
    )


def _restoration(config: Config) -> InputSpec | None:
    """Return how the run makes its inputs; None where its network cannot restore other images in the same way."""
    steps = [step for step in config.data.input_transforms if not step.is_random]
    if not config.measures_pixels or not all(step.changes_values for step in steps):
        return None
    assert config.mask
    return InputSpec(fill=config.mask.section.fill, input_transforms=tuple(steps))


def select_trained(config: Config, model: keras.Model) -> None:
    """Set which layers of a model are trained.

    Raises:
        UserError: as `set_trainable`; or views are to agree in an encoder that is frozen.
    """
    set_trainable(model, config.model.trainable)
    if config.loss.agreement is None:
        return
    encoder = encoder_part(model, ARCHITECTURES[config.model.encoder].output_layer("after_relu"))
    if not encoder.trainable_weights:
        raise UserError("loss.agreement trains the encoder, but model.trainable freezes all of it")
    if not config.reconstructs:
        freeze_behind(model, encoder)


def describe_unfreezing(config: Config) -> str | None:
    """Return a line about the epochs from which each group of layers is trained; None where all are from the first."""
    every, epochs = config.optimizer.unfreeze_every, config.num_epochs
    if every is None:
        return None
    begins = {name: number * every + 1 for number, name in enumerate(UNFROZEN, start=1)}
    known = [f"{name} from epoch {epoch}" for name, epoch in begins.items() if epoch <= epochs]
    never = [name for name, epoch in begins.items() if epoch > epochs]
    last = f"; not trained in {epochs} epochs: {', '.join(never)}" if never else ""
    return f"Gradual unfreezing: {', '.join(['the head from epoch 1', *known])}{last}"


def check_output_shape(run: Run, model: keras.Model) -> None:
    """Check that the model's output has the shape of the targets; for label maps, a channel per class or a single one.

    Raises:
        UserError: it has another shape.
    """
    made, wanted = tuple(model.compute_output_shape((None, *run.config.input_shape))[1:]), run.config.target_shape
    label_maps = run.config.data.target_is_mask
    if made[:2] != wanted[:2] or (not label_maps and made[2] != wanted[2]):
        raise UserError(
            f"{run.network_name}: the network makes images of {size_text(made)}, the targets are "
            f"{size_text(wanted[:2] if label_maps else wanted)} (height x width x channels); "
            "adapt data.target_transforms"
        )


def output_activation(run: Run) -> str:
    """Return the name of the activation at the end of the run's model."""
    if run.network is not None:
        return network_output_activation(run.network)
    return "softmax" if run.kind == "classifier" else run.config.output_activation


def encoder_of(run: Run, model: keras.Model) -> keras.Model | None:
    """Return the encoder inside a model of this run; None where the model is that of a network file."""
    section = run.config.model
    if run.network:
        return None
    return encoder_part(model, ARCHITECTURES[section.encoder].output_layer(section.encoder_output))


def make_optimizer(run: Run, model: keras.Model, steps: int) -> keras.Optimizer:
    """Make the optimizer of a run's model, where an epoch has `steps`."""
    config, section, distances = run.config, run.config.model, None
    if run.network is None:
        distances = distances_from_head(section.encoder, section.encoder_output, model)
    return build_optimizer(config.optimizer, steps, config.num_epochs, run.lr_scaling, distances)
