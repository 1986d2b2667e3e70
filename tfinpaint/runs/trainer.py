"""The trainer of a run: its loss with all terms, and the state of the checkpoint that the run resumes from."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import keras
import tensorflow as tf

from tfinpaint.checkpoint.find import find_checkpoint
from tfinpaint.checkpoint.model import build_model
from tfinpaint.checkpoint.reader import open_checkpoint, restore_training
from tfinpaint.checkpoint.store import Companion, TrainingState
from tfinpaint.config.encoders import ARCHITECTURES
from tfinpaint.config.schema import Config
from tfinpaint.distributed.batchnorm import synchronise_batchnorm
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.layout import ENCODER_WEIGHTS
from tfinpaint.models.agreement import build_agreement, build_projector
from tfinpaint.models.discriminator import build_discriminator
from tfinpaint.models.encoder import block_ends
from tfinpaint.models.features import build_features
from tfinpaint.models.loss_terms import AdversarialTerm, AgreementTerm, PerceptualTerm
from tfinpaint.models.losses import Objective, PerExample, build_objective, check_source
from tfinpaint.models.trainable import names_in, set_trainable
from tfinpaint.runs.build import encoder_of, output_activation
from tfinpaint.runs.run import Resumed, Run
from tfinpaint.runs.trained_weights import (
    TrainedBefore,
    saved_companion_slots,
    saved_slots,
    take_over,
    trained_before_recorded,
)
from tfinpaint.system.wording import counted
from tfinpaint.train.loss import Measure
from tfinpaint.train.optimizers import build_optimizer
from tfinpaint.train.rank_state import rank_state_names
from tfinpaint.train.step import StepOptions
from tfinpaint.train.trainer import Trainer

log = logging.getLogger(__name__)


def make_trainer(
    run: Run,
    world: World,
    model: keras.Model,
    optimizer: keras.Optimizer | None,
    metrics: Mapping[str, PerExample] | None = None,
    measure: Measure | None = None,
    *,
    steps: int = 0,
    scored: bool,
) -> Trainer:
    """Make a trainer whose ranks all start from the same weights: those of rank 0, or those of the resumed run.

    Args:
        optimizer: None where nothing is trained.
        metrics, measure: as `Trainer` takes them.
        steps: of training, per epoch.
        scored: outputs are compared with targets; otherwise the trainer only predicts.

    Raises:
        UserError: the loss does not fit the network, or a file that it needs cannot be used.
    """
    config, activation = run.config, output_activation(run)
    if config.loss.normalize_patches and activation != "linear":
        raise UserError(
            "loss.normalize_patches needs a network without an activation at its end (linear); this one ends in "
            f"{activation}"
        )
    objective = adversarial_term = perceptual_term = agreement_term = None
    if optimizer is not None or scored:
        objective = _make_objective(run, model, activation)
        perceptual_term = _make_perceptual_term(config)
    if optimizer is not None:
        adversarial_term = _make_adversarial_term(run, steps)
        agreement_term = _make_agreement_term(run, world, steps)
    elif config.loss.adversarial:
        log.info("Without training there is no discriminator: the loss is that of the reconstruction alone")
    trainer = Trainer(
        model, optimizer, objective, metrics, measure,
        adversarial_term=adversarial_term, perceptual_term=perceptual_term, agreement_term=agreement_term,
        reconstruction_weight=config.loss.reconstruction_weight, world=world, mixes=config.data.mixup > 0,
        step_options=_step_options(config, model, world.size),
    )  # fmt: skip
    _make_ranks_equal(run, trainer)
    return trainer


def _make_objective(run: Run, model: keras.Model, activation: str) -> Objective:
    """Return the reconstruction loss of the configuration.

    Raises:
        UserError: the loss does not fit the network.
    """
    section, classes = run.config.loss, model.output_shape[-1]
    if section.weight == "balanced":
        section = section.model_copy(update={"weight": list(run.class_weights) if run.class_weights else None})
    if section.weight and len(section.weight) != classes:
        raise UserError(f"loss.weight has {len(section.weight)} weights for the {classes} classes of the network")
    check_source(section, activation)
    return build_objective(section, activation, by_pixel=run.kind == "inpainter" and run.config.weighs_pixels)


def _step_options(config: Config, model: keras.Model, ranks: int) -> StepOptions:
    return StepOptions(
        jit_compile=_compiles(config, ranks),
        accumulate_steps=config.accumulate_steps,
        clip_norm=config.optimizer.clip_norm,
        scale_loss=config.scales_loss,
        recompute=block_ends(config.model.encoder, model) if config.recompute else (),
        visible_only=config.model.batchnorm_visible_only,
    )


def _compiles(config: Config, ranks: int) -> bool:
    """Return whether XLA compiles the forward and backward pass: never with collectives between the layers."""
    if (config.distributed.sync_batchnorm or config.loss.agreement) and ranks > 1:
        return False
    return bool(tf.config.list_logical_devices("GPU")) if config.jit_compile == "auto" else config.jit_compile


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


def _make_agreement_term(run: Run, world: World, steps: int) -> AgreementTerm | None:
    """Return the term of the agreement of views; its batch norms take the statistics of the batch of all ranks."""
    section, encoder = run.config.loss.agreement, ARCHITECTURES[run.config.model.encoder]
    if section is None:
        return None
    section_of_projector = run.config.optimizer.model_copy(update={"ema_decay": None})  # it is never evaluated
    projector = build_projector(encoder.maps, section.widths)
    synchronise_batchnorm(projector, world)
    return AgreementTerm(
        projector,
        build_optimizer(section_of_projector, steps, run.config.num_epochs, run.lr_scaling),
        build_agreement(section),
        section.weight,
        encoder.output_layer("after_relu"),
        lambda rows: world.gather_rows(rows, "projected"),
        world.rank,
        run.config.optimizer.clip_norm,
    )


def _make_perceptual_term(config: Config) -> PerceptualTerm | None:
    """Return the term of the perceptual loss, with its frozen encoder; every rank reads its file.

    Raises:
        UserError: the file holds no encoder, or one for images of other channels or another range of values.
    """
    section = config.loss.perceptual
    if section is None:
        return None
    found = find_checkpoint(section.encoder, "loss.perceptual.encoder", (ENCODER_WEIGHTS,))
    path = found.path / ENCODER_WEIGHTS if found.path.is_dir() else found.path
    if found.note:
        log.info(f"loss.perceptual.encoder: {found.note}")
    height, width, channels = config.target_shape
    assert height
    assert width
    with open_checkpoint(path, allowed=("encoder",)) as saved:
        taken = saved.header.channels
        if taken != channels:
            raise UserError(
                f"loss.perceptual.encoder: {path} takes images of {counted(taken, 'channel')}, not {channels}"
            )
        if saved.header.restoration and saved.header.restoration.input_transforms:
            raise UserError(
                f"loss.perceptual.encoder: {path} was trained on inputs that data.input_transforms had changed, but "
                "the images here range from 0 to 1; name an encoder that was trained on such images"
            )
        encoder = saved.model((height, width))
    return PerceptualTerm(build_features(encoder, section.layer), section.weight)


def training_state(run: Run, trainer: Trainer) -> TrainingState:
    """Return the models and optimizers that a checkpoint of this run holds."""
    companions = {name: Companion(*parts) for name, parts in trainer.companions.items()}
    return TrainingState(trainer.model, trainer.optimizer, encoder_of(run, trainer.model), run.network, companions)


def _make_ranks_equal(run: Run, trainer: Trainer) -> None:
    """Give every rank the weights and the optimizer state of the resumed run, or else those of rank 0."""
    before = trained_before(run, run.resumed) if run.resumed and trainer.optimizer is not None else None
    if run.resumed and before:
        _restore(run, run.resumed, trainer, before)
    trainer.synchronise()
    if before:
        take_over(before, trainer)


def _restore(run: Run, resumed: Resumed, trainer: Trainer, before: TrainedBefore) -> None:
    """Fill model and optimizers from the checkpoint that the run resumes from, on rank 0."""
    config = resumed.progress.config
    slots = saved_slots(before, trainer, config)
    others = saved_companion_slots(trainer, config)
    trainer.world.run_on_rank0(lambda: restore_training(resumed.path, training_state(run, trainer), slots, others))


def trained_before(run: Run, resumed: Resumed) -> TrainedBefore:
    """Return what was trained when the checkpoint was saved that the run resumes from.

    Checkpoints of older versions do not record it: their model is built once more, as their configuration has it.
    """
    if known := trained_before_recorded(resumed.progress):
        return known
    model = build_model(resumed.header, run.network, run.network_name)
    section = resumed.progress.config.get("model", {})
    set_trainable(model, section.get("trainable", run.config.model.trainable))
    own = rank_state_names(model, statistics=True)
    return TrainedBefore(names_in(model, model.trainable_variables), own, None)
