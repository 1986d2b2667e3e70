"""Learning rates of each schedule around its boundaries, and rates that grow with the ranks."""

import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.optimizer import LrScheduler, Optimizer
from tfinpaint.train.optimizers import build_optimizer
from tfinpaint.train.schedules import LrScaling, learning_rate


def rates(
    scheduler: LrScheduler, steps: tuple[int, ...], steps_per_epoch: int = 10, num_epochs: int = 4
) -> list[float]:
    rate = learning_rate(Optimizer(learning_rate=0.8, lr_scheduler=scheduler), steps_per_epoch, num_epochs)
    return [float(rate(tf.constant(step, tf.int64))) for step in steps]


@pytest.mark.parametrize(
    ("scheduler", "steps", "expected"),
    [
        # epochs of 10 steps; epochs 0 and 1 (steps 0-19) 0.8, epochs 2 and 3 (20-39) 0.4, epochs 4 and 5 (40-59) 0.2
        (
            LrScheduler(type="Step", gamma=0.5, step_size=2),
            (0, 10, 19, 20, 39, 40, 59, 60),
            [0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1],
        ),
        # epoch 0 has passed no milestone, epochs 1 and 2 (10-29) one, the later ones two
        (
            LrScheduler(type="MultiStep", gamma=0.1, milestones=[1, 3]),
            (0, 9, 10, 29, 30, 31, 99),
            [0.8, 0.8, 0.08, 0.08, 0.008, 0.008, 0.008],
        ),
        (LrScheduler(type="MultiStep", gamma=0.5, milestones=[2]), (0, 19, 20, 21), [0.8, 0.8, 0.4, 0.4]),
        # 0.8, 0.4, 0.2 in epochs 0, 1, 2
        (LrScheduler(type="Exponential", gamma=0.5), (0, 9, 10, 19, 20), [0.8, 0.8, 0.4, 0.4, 0.2]),
        # 0.25 * 0.8 = 0.2, plus 0.6 / 20 = 0.03 a step up to step 20
        (
            LrScheduler(type="Warmup", num_epochs=2, start_factor=0.25),
            (0, 1, 10, 19, 20, 21, 99),
            [0.2, 0.23, 0.5, 0.77, 0.8, 0.8, 0.8],
        ),
        # steps 0-10 rise linearly, the other 30 follow 0.8 * (1 + cos(pi * t)) / 2
        (LrScheduler(type="Cosine", warmup_epochs=1), (0, 5, 10, 25, 40, 99), [0.0, 0.4, 0.8, 0.4, 0.0, 0.0]),
        (LrScheduler(type="Cosine"), (0, 20, 40), [0.8, 0.4, 0.0]),
    ],
)
def test_schedules(scheduler, steps, expected):
    assert np.allclose(rates(scheduler, steps), expected, rtol=1e-6, atol=1e-6)


def test_schedules_of_one_step_an_epoch():
    # The boundary before the first milestone is step 0 itself.
    assert np.allclose(rates(LrScheduler(type="MultiStep", gamma=0.5, milestones=[1]), (0, 1), 1), [0.8, 0.4])
    assert np.allclose(rates(LrScheduler(type="Step", gamma=0.5, step_size=1), (0, 1, 2), 1), [0.8, 0.4, 0.2])


@pytest.mark.parametrize("steps_per_epoch", [3, 7, 49, 1563])
def test_epochs_end_where_they_end_for_any_number_of_steps(steps_per_epoch):
    # step / steps_per_epoch is rounded to float32; its floor must still be the epoch.
    rate = learning_rate(
        Optimizer(learning_rate=1.0, lr_scheduler=LrScheduler(type="Exponential", gamma=0.5)), steps_per_epoch, 20
    )
    for epoch in range(1, 20):
        last, first = epoch * steps_per_epoch - 1, epoch * steps_per_epoch
        assert [float(rate(last)), float(rate(first))] == [0.5 ** (epoch - 1), 0.5**epoch]


def test_without_a_scheduler_the_rate_is_constant():
    assert learning_rate(Optimizer(learning_rate=0.8), 10, 4) == 0.8


@pytest.mark.parametrize(
    ("scheduler", "scaling", "steps", "expected"),
    [
        # 0.8 up to 4 * 0.8 in two epochs of 10 steps: 2.4 / 20 = 0.12 a step
        (None, LrScaling(4.0, 2.0), (0, 1, 10, 20, 99), [0.8, 0.92, 2.0, 3.2, 3.2]),
        (None, LrScaling(4.0, 0.0), (0, 1, 99), [3.2, 3.2, 3.2]),
        # sqrt of 2 ranks: 0.8, halved after an epoch, while the factor is 1 + 0.4142136 * step / 20
        (
            LrScheduler(type="Exponential", gamma=0.5),
            LrScaling(2**0.5, 2.0),
            (0, 9, 10, 20),
            [0.8, 0.9491169, 0.4828427, 0.2828427],
        ),
    ],
)
def test_rates_grow_with_the_ranks_after_a_warmup(scheduler, scaling, steps, expected):
    optimizer = build_optimizer(Optimizer(learning_rate=0.8, lr_scheduler=scheduler), 10, 4, scaling)
    found = []
    for step in steps:
        optimizer.iterations.assign(step)
        found.append(float(optimizer.learning_rate))
    assert np.allclose(found, expected, rtol=1e-6)


def test_a_scaled_rate_goes_on_where_it_was_saved():
    # What a checkpoint does on --resume; Keras asks the schedule for its configuration there.
    section = Optimizer(learning_rate=0.8)
    optimizer = build_optimizer(section, 10, 4, LrScaling(4.0, 2.0))
    assert optimizer.get_config()["learning_rate"]["config"] == {"rate": 0.8, "factor": 4.0, "warmup_steps": 20}
