"""The model of a run: described, built, filled with weights, made ready to be trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import keras
import tensorflow as tf

from tfinpaint.checkpoint.find import find_checkpoint
from tfinpaint.checkpoint.header import FORMAT, Header, InputSpec
from tfinpaint.checkpoint.model import build_model, network_digest, size_text
from tfinpaint.checkpoint.reader import open_checkpoint, restore_training
from tfinpaint.checkpoint.store import TrainingState
from tfinpaint.config.schema import Config
from tfinpaint.errors import UserError
from tfinpaint.layout import ENCODER_WEIGHTS
from tfinpaint.models import trainable
from tfinpaint.models.decoder import encoder_part
from tfinpaint.models.discriminator import build_discriminator
from tfinpaint.models.encoder import OUTPUT_LAYERS
from tfinpaint.models.features import build_features
from tfinpaint.models.keras_json.build import output_activation as network_output_activation
from tfinpaint.models.loss_terms import AdversarialTerm, PerceptualTerm
from tfinpaint.models.losses import PerExample, build_objective, check_source
from tfinpaint.runs import trained_weights
from tfinpaint.runs.run import Resumed, Run
from tfinpaint.runs.trained_weights import TrainedBefore, trained_before_recorded
from tfinpaint.train.optimizers import build_optimizer
from tfinpaint.train.trainer import Measure, Trainer

log = logging.getLogger(__name__)


def describe_model(run: Run, *, steps: int, classes: tuple[str, ...] = ()) -> Header:
    """The header of this run's model before its first step, with `steps` to an epoch."""
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
        network=network_digest(run.network) if run.network else None,
        height=height,
        width=width,
        channels=channels,
        target_channels=config.target_shape[2],
        bottleneck=model.bottleneck,
        output_activation=config.output_activation if inpainter else "sigmoid",
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
    """How this run makes its inputs, where its network can restore other images in the same way."""
    steps = [step for step in config.data.input_transforms if not step.is_random]
    if not config.measures_pixels or not all(step.changes_values for step in steps):
        return None
    assert config.mask
    return InputSpec(fill=config.mask.section.fill, input_transforms=tuple(steps))


def check_output_shape(run: Run, model: keras.Model) -> None:
    """The model's output must have the shape of the targets; for masks, a channel per class or a single one.

    Raises:
        UserError: it has another.
    """
    made, wanted = tuple(model.compute_output_shape((None, *run.config.input_shape))[1:]), run.config.target_shape
    masks = run.config.data.target_is_mask
    if made[:2] != wanted[:2] or (not masks and made[2] != wanted[2]):
        raise UserError(
            f"{run.network_name}: the network makes images of {size_text(made)}, the targets are "
            f"{size_text(wanted[:2] if masks else wanted)} (height x width x channels); "
            "let data.target_transforms fit them"
        )


def output_activation(run: Run) -> str:
    """The function at the end of this run's model."""
    if run.network is not None:
        return network_output_activation(run.network)
    return "softmax" if run.kind == "classifier" else run.config.output_activation


def make_trainer(
    run: Run,
    model: keras.Model,
    optimizer: keras.Optimizer | None,
    metrics: Mapping[str, PerExample] | None = None,
    measure: Measure | None = None,
    *,
    steps: int = 0,
    scored: bool,
) -> Trainer:
    """A trainer whose ranks all start from the same weights: random, transferred, or those of the resumed run.

    Args:
        optimizer: None where nothing is trained.
        metrics, measure: as `Trainer` takes them.
        steps: of training, per epoch.
        scored: outputs are compared with targets; otherwise the trainer only predicts.
    """
    objective = adversarial_term = perceptual_term = None
    if optimizer is not None or scored:
        weights, classes = run.config.loss.weight, model.output_shape[-1]
        if weights and len(weights) != classes:
            raise UserError(f"loss.weight has {len(weights)} weights for the {classes} classes of the network")
        check_source(run.config.loss, output_activation(run))
        objective = build_objective(
            run.config.loss, output_activation(run), by_pixel=run.kind == "inpainter" and run.config.weighs_pixels
        )
        perceptual_term = _make_perceptual_term(run)
    if run.config.loss.normalize_patches and output_activation(run) != "linear":
        raise UserError(
            "loss.normalize_patches needs a network without an activation at its end (linear); this one ends in "
            f"{output_activation(run)}"
        )
    if optimizer is not None:
        adversarial_term = _make_adversarial_term(run, steps)
    elif run.config.loss.adversarial:
        log.info("Without training there is no discriminator: the loss is that of the reconstruction alone")
    trainer = Trainer(
        model, optimizer, objective, metrics, measure,
        adversarial_term=adversarial_term, perceptual_term=perceptual_term, world=run.world,
        jit_compile=_compiles(run.config, run.world.size),
        accumulate_steps=run.config.accumulate_steps, clip_norm=run.config.optimizer.clip_norm,
        scale_loss=run.config.scales_loss,
    )  # fmt: skip
    if run.resumed and optimizer is not None:
        _restore(run, run.resumed, trainer)
    trainer.synchronise()
    if run.resumed and optimizer is not None:
        trained_weights.take_over(trained_before(run, run.resumed), trainer)
    return trainer


def _restore(run: Run, resumed: Resumed, trainer: Trainer) -> None:
    """Fill model and optimizers from the checkpoint that the run goes on from, on rank 0."""
    before, config = trained_before(run, resumed), resumed.progress.config
    slots = trained_weights.saved_slots(before, trainer, config)
    others = trained_weights.saved_discriminator_slots(trainer, config)
    run.world.run_on_rank0(lambda: restore_training(resumed.path, training_state(run, trainer), slots, others))


def trained_before(run: Run, resumed: Resumed) -> TrainedBefore:
    """Return what was trained when the checkpoint was made that the run goes on from.

    Checkpoints of older versions do not record it: their model is built once more, as their configuration has it.
    """
    if known := trained_before_recorded(resumed.progress):
        return known
    model = build_model(resumed.header, run.network, run.network_name)
    section = resumed.progress.config.get("model", {})
    trainable.set_trainable(model, section.get("trainable", run.config.model.trainable))
    own = Trainer(model, None, None, world=run.world).own_names(statistics=True)
    return TrainedBefore(trainable.names_in(model, model.trainable_variables), own, None)


def _compiles(config: Config, ranks: int) -> bool:
    """Whether XLA compiles forward and backward: never with collectives between their layers."""
    if config.distributed.sync_batchnorm and ranks > 1:
        return False
    return bool(tf.config.list_logical_devices("GPU")) if config.jit_compile == "auto" else config.jit_compile


def training_state(run: Run, trainer: Trainer) -> TrainingState:
    """What a checkpoint of this run holds."""
    encoder, adversarial_term = encoder_of(run, trainer.model), trainer.adversarial_term
    if adversarial_term is None:
        return TrainingState(trainer.model, trainer.optimizer, encoder, run.network)
    return TrainingState(
        trainer.model,
        trainer.optimizer,
        encoder,
        run.network,
        adversarial_term.discriminator,
        adversarial_term.optimizer,
    )


def encoder_of(run: Run, model: keras.Model) -> keras.Model | None:
    """The encoder inside a model of this run; None where the model is a network file's."""
    section = run.config.model
    return None if run.network else encoder_part(model, OUTPUT_LAYERS[section.encoder][section.encoder_output])


def _make_adversarial_term(run: Run, steps: int) -> AdversarialTerm | None:
    section = run.config.loss.adversarial
    if section is None:
        return None
    height, width, channels = run.config.target_shape
    assert height
    assert width
    optimizer = build_optimizer(section.optimizer, steps, run.config.num_epochs, run.lr_scaling)
    return AdversarialTerm(
        build_discriminator(height, width, channels), optimizer, section.weight, section.optimizer.clip_norm
    )


def _make_perceptual_term(run: Run) -> PerceptualTerm | None:
    """The frozen encoder of the perceptual loss; every rank reads its file.

    Raises:
        UserError: the file holds no encoder, or one that takes other images or other values.
    """
    section = run.config.loss.perceptual
    if section is None:
        return None
    found = find_checkpoint(section.encoder, "loss.perceptual.encoder")
    path = found.path / ENCODER_WEIGHTS if found.path.is_dir() else found.path
    if found.note:
        log.info(f"loss.perceptual.encoder: {found.note}")
    height, width, channels = run.config.target_shape
    assert height
    assert width
    with open_checkpoint(path, allowed=("encoder",)) as saved:
        taken = saved.header.channels
        if taken != channels:
            raise UserError(f"loss.perceptual.encoder: {path} takes images of {taken} channel(s), not {channels}")
        if saved.header.restoration and saved.header.restoration.input_transforms:
            raise UserError(
                f"loss.perceptual.encoder: {path} was trained on inputs that data.input_transforms had changed; the "
                "images here are 0 to 1: take one that was trained on such"
            )
        encoder = saved.model((height, width))
    return PerceptualTerm(build_features(encoder, section.layer), section.weight)
