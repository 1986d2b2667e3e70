"""Optimizer sections -> optimizers, and the schedule's golden values."""

import numpy as np
import pytest

from tfinpaint.config import LrScheduler, Optimizer
from tfinpaint.train.optimizers import build_optimizer, learning_rate


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (Optimizer(type="SGD", momentum=0.9), {"momentum": 0.9}),
        (
            Optimizer(type="Adam", beta1=0.8, beta2=0.9, eps=1e-5),
            {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-5},
        ),
        (Optimizer(type="AdamW", weight_decay=0.05), {"weight_decay": 0.05}),
    ],
)
def test_every_field_arrives(section, expected):
    optimizer = build_optimizer(section, 10, 2)
    config = optimizer.get_config()
    assert type(optimizer).__name__ == section.type
    assert {key: config[key] for key in expected} == expected
    assert np.isclose(float(optimizer.learning_rate), 0.01)


def test_warmup_then_half_a_cosine():
    # 4 epochs of 10 steps, peak 0.8: steps 0-10 rise linearly, the other 30 follow 0.8 * (1 + cos(pi * t)) / 2.
    section = Optimizer(learning_rate=0.8, lr_scheduler=LrScheduler(type="Cosine", warmup_epochs=1))
    rate = learning_rate(section, 10, 4)
    values = [float(rate(step)) for step in (0, 5, 10, 25, 40, 99)]
    assert np.allclose(values, [0.0, 0.4, 0.8, 0.4, 0.0, 0.0], atol=1e-6)


def test_cosine_without_warmup_starts_at_the_peak():
    section = Optimizer(learning_rate=0.8, lr_scheduler=LrScheduler(type="Cosine"))
    assert np.allclose([float(learning_rate(section, 10, 1)(step)) for step in (0, 5, 10)], [0.8, 0.4, 0.0], atol=1e-6)
