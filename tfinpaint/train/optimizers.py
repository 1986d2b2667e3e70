"""Optimizer sections of a configuration -> Keras optimizers."""

from __future__ import annotations

import keras

from tfinpaint.config import Optimizer


def build_optimizer(config: Optimizer, steps_per_epoch: int, num_epochs: int) -> keras.Optimizer:
    """A Keras optimizer whose schedule spans the whole run.

    Args:
        steps_per_epoch, num_epochs: of the run; a schedule is counted in optimizer steps.
    """
    rate = learning_rate(config, steps_per_epoch, num_epochs)
    if config.type == "SGD":
        return keras.optimizers.SGD(rate, momentum=config.momentum)
    if config.type == "Adam":
        return keras.optimizers.Adam(rate, beta_1=config.beta1, beta_2=config.beta2, epsilon=config.eps)
    return keras.optimizers.AdamW(
        rate, weight_decay=config.weight_decay, beta_1=config.beta1, beta_2=config.beta2, epsilon=config.eps
    )


def learning_rate(
    config: Optimizer, steps_per_epoch: int, num_epochs: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Constant, or a linear warm-up from 0 followed by half a cosine down to 0 (Loshchilov and Hutter, 1608.03983)."""
    scheduler = config.lr_scheduler
    if scheduler is None:
        return config.learning_rate
    warmup = round(scheduler.warmup_epochs * steps_per_epoch)
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else config.learning_rate,
        decay_steps=max(1, num_epochs * steps_per_epoch - warmup),
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
