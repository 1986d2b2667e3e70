"""Ranks: how they are launched, how they exchange tensors, and how each learns that another has failed.

The names below are for any program that trains with Keras 3 (docs/keras_fit.md). Importing the package imports neither
TensorFlow nor the rest of this project; a name imports what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfinpaint.distributed.batchnorm import synchronise_batchnorm
    from tfinpaint.distributed.keras_callbacks import OnRank0, SynchroniseRanks
    from tfinpaint.distributed.keras_optimizer import DistributedOptimizer
    from tfinpaint.distributed.program import join
    from tfinpaint.distributed.schedules import scaled_rate
    from tfinpaint.distributed.sharding import shard
    from tfinpaint.distributed.world import World

__all__ = [
    "DistributedOptimizer",
    "OnRank0",
    "SynchroniseRanks",
    "World",
    "join",
    "scaled_rate",
    "shard",
    "synchronise_batchnorm",
]

_MODULES = {
    "DistributedOptimizer": "keras_optimizer",
    "OnRank0": "keras_callbacks",
    "SynchroniseRanks": "keras_callbacks",
    "World": "world",
    "join": "program",
    "scaled_rate": "schedules",
    "shard": "sharding",
    "synchronise_batchnorm": "batchnorm",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
