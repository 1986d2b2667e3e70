"""The numerical precision that `precision: auto` means for a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfinpaint.config.schema import Config
from tfinpaint.distributed.world import World
from tfinpaint.system.hardware import BFLOAT16_CAPABILITY, BFLOAT16_FEATURES, has_onednn, processor_features

log = logging.getLogger(__name__)


def settle_precision(config: Config, world: World, before: Mapping[str, Any] | None) -> Config:
    """Return a run's configuration with the precision in which every rank computes, and log what `auto` means.

    Args:
        before: the configuration of the run that is resumed, from `config.diff.as_values`; None for a new run.

    Returns:
        The same configuration with "float32", "mixed_bfloat16" or "mixed_float16" as `precision`: that of the run that
        is resumed; float32 for an evaluation; otherwise mixed_bfloat16 if the devices of all ranks compute in bfloat16.
    """
    if config.precision != "auto":
        return config
    if before is not None:
        chosen, reason = recorded_precision(before), "in which the run was begun"
    elif config.data.input_path is None:
        chosen, reason = "float32", "because nothing is trained"
    else:
        chosen, reason = _choose(world.all_gather(_bfloat16_support()))
    log.info(f"Precision: {chosen}, {reason}")
    return config.model_copy(update={"precision": chosen})


def recorded_precision(values: Mapping[str, Any]) -> str:
    """Return the precision in a recorded configuration; files of older versions lack it where it was float32."""
    recorded = values.get("precision", "float32")
    return "float32" if recorded == "auto" else recorded


def _choose(ranks: list[tuple[bool, str]]) -> tuple[str, str]:
    """Return the precision and the reason for it, from the `_bfloat16_support` of all ranks."""
    without = [f"rank {rank}: {device}" for rank, (supported, device) in enumerate(ranks) if not supported]
    if not without:
        return "mixed_bfloat16", f"because the hardware computes in bfloat16 ({ranks[0][1]})"
    where = without[0] if len(without) < len(ranks) else ranks[0][1]
    return "float32", f"because the hardware does not compute in bfloat16 ({where})"


def _bfloat16_support() -> tuple[bool, str]:
    """Return whether the device that TensorFlow uses in this process computes in bfloat16, and what tells so."""
    if gpus := tf.config.list_physical_devices("GPU"):
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        lowest = min(details, key=lambda each: each.get("compute_capability", (0, 0)))
        major, minor = lowest.get("compute_capability", (0, 0))
        name = f"{lowest.get('device_name', 'a GPU')}, compute capability {major}.{minor}"
        return major + minor / 10 >= BFLOAT16_CAPABILITY, name
    if not has_onednn():
        return False, "TF_ENABLE_ONEDNN_OPTS=0"
    found = [name for name in processor_features() if name in BFLOAT16_FEATURES]
    return bool(found), ", ".join(found) or f"neither {' nor '.join(sorted(BFLOAT16_FEATURES))}"
