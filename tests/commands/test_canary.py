"""The canary tells a collective that gives wrong numbers."""

import numpy as np
import pytest
import tensorflow as tf

from tfinpaint import canary
from tfinpaint.distributed import world
from tfinpaint.errors import UserError

WRONG = {
    "average_gradients": lambda self, gradients: [gradient + 1 for gradient in gradients],
    "all_reduce_sum": lambda self, value, name: value * 2,
    "all_reduce_mean": lambda self, value, name: value * 2,
    "broadcast_variables": lambda self, variables: variables[2].assign(variables[2] + 1),  # the seed generator's state
    "average_variables": lambda self, variables: variables[1].assign(7),  # an integer
    "sum_array": lambda self, values: np.float64(np.float32(values)),
    "gather_rows": lambda self, values, name: values + 1,
    "all_gather_rows": lambda self, values: values[None] + 1,
    "broadcast_array": lambda self, values: values + 1,
    "sum_values": lambda self, values: dict.fromkeys(values, 3.0),
    "all_gather": lambda self, value: [],
    "run_on_rank0": lambda self, make: make() and [1, "first"],
}


def test_every_collective_of_the_world_is_called():
    called = {name for name, _, _ in canary.collectives(world.World())}
    methods = {name for name in vars(world.World) if not name.startswith("_")} - {
        "is_rank0",
        "report_task",
        "report_activity",
        "wait_for_ranks",
        "hosts_changed",
        "with_settings",
    }
    assert called == methods | {"run_on_rank0's error"}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_collective_is_told(monkeypatch, name):
    monkeypatch.setattr(world.World, name, WRONG[name])
    with pytest.raises(UserError, match=rf"canary: {name} over 1 rank gave .*, expected"):
        canary.check(world.World())


def test_a_right_world_passes():
    tf.random.set_seed(0)
    assert "every collective right" in canary.check(world.World())
