"""Learning-rate schedules that change at the same updates as PyTorch's."""

from __future__ import annotations

from typing import NamedTuple

import keras

from tfinpaint.config.optimizer import LrScheduler, Optimizer


class LrScaling(NamedTuple):
    """The scaling of a learning rate with the batch (Goyal et al., arXiv 1706.02677, sections 2.1 and 2.2).

    Attributes:
        factor: multiplies the learning rates of the configuration.
        warmup_epochs: number of epochs in which the factor rises linearly from 1.
    """

    factor: float
    warmup_epochs: float


def learning_rate(
    config: Optimizer, steps_per_epoch: int, num_epochs: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning rate of a configuration, a constant without a scheduler.

    Step, MultiStep and Exponential change between epochs only, as torch.optim.lr_scheduler does when it is stepped
    once an epoch. Warmup and Cosine change at every step.
    """
    scheduler, rate = config.lr_scheduler, config.learning_rate
    if scheduler is None:
        return rate
    if scheduler.type == "Cosine":
        return _cosine(rate, round(scheduler.warmup_epochs * steps_per_epoch), num_epochs * steps_per_epoch)
    if scheduler.type == "Warmup":
        return _warmup(rate, scheduler, steps_per_epoch)
    assert scheduler.gamma is not None  # the schema has checked what each type needs, here and below
    if scheduler.type == "MultiStep":
        assert scheduler.milestones is not None
        # Keras keeps a value up to and including its boundary, so the boundary is the last step before the milestone.
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            [milestone * steps_per_epoch - 1 for milestone in scheduler.milestones],
            [rate * scheduler.gamma**passed for passed in range(len(scheduler.milestones) + 1)],
        )
    epochs = scheduler.step_size or 1  # Exponential decays after every epoch
    return keras.optimizers.schedules.ExponentialDecay(rate, epochs * steps_per_epoch, scheduler.gamma, staircase=True)


def _warmup(rate: float, scheduler: LrScheduler, steps_per_epoch: int) -> keras.optimizers.schedules.PolynomialDecay:
    """Return a schedule that rises linearly from start_factor * rate to rate, and then stays there."""
    assert scheduler.start_factor is not None
    assert scheduler.num_epochs is not None
    return keras.optimizers.schedules.PolynomialDecay(
        scheduler.start_factor * rate, scheduler.num_epochs * steps_per_epoch, end_learning_rate=rate, power=1.0
    )


def _cosine(rate: float, warmup: int, steps: int) -> keras.optimizers.schedules.CosineDecay:
    """Return a linear warm-up from 0 followed by half a cosine down to 0 (Loshchilov and Hutter, arXiv 1608.03983)."""
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else rate,
        decay_steps=max(1, steps - warmup),
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )
