"""A configuration as plain values, and what differs between those of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfinpaint.config.schema import Config
from tfinpaint.config.sections import Probe
from tfinpaint.system.wording import counted

MOST_NAMED = 5  # keys that have changed
MOST_CHARACTERS = 40  # of a value that is shown beside others

# Keys that a resumed run may change freely: where and when it writes, and what does not affect the results.
_FREE = (
    *("workdir", "outfile", "output_format", "trackers", "figures_interval", "probe"),
    *(f"probe.{key}" for key in Probe.model_fields),
    *(f"checkpoints.{key}" for key in ("save", "interval", "interval_steps", "interval_minutes", "keep")),
    *(f"data.{key}" for key in ("preload", "max_bad_images", "test_output_path")),
    *(f"distributed.{key}" for key in ("fusion_threshold_mb", "cycle_time_ms", "cache_capacity", "autotune")),
    *(f"distributed.{key}" for key in ("timeline", "heartbeat_timeout_s", "stall_timeout_s")),
)

# Keys that records of older versions lack, and the values with which those versions trained.
_ADDED = {
    "recompute": False,
    "data.jpeg_scaling": True,
    "data.mixup": 0.0,
    "data.validation_fraction": 0.0,
    "data.views": 1,
    "loss.agreement": None,
    "loss.label_smoothing": 0.0,
    "loss.reconstruction_weight": 1.0,
    "model.batchnorm_visible_only": False,
    "model.decoder": "plain",
    "model.head": "flatten",
    "model.head_init": "random",
    "model.stem": "standard",
    **{f"{section}optimizer.decay_kernels_only": False for section in ("", "loss.adversarial.")},
    **{f"{section}optimizer.layer_decay": 1.0 for section in ("", "loss.adversarial.")},
}
# The same for the settings of a transform, by its name.
_ADDED_TO_TRANSFORMS = {"grid": {"complementary": False}}


def as_values(config: Config) -> dict[str, Any]:
    """Return the configuration as JSON values, with every default spelled out."""
    return config.model_dump(mode="json")


def flat_values(section: Any, name: str = "") -> dict[str, Any]:
    """Return dotted key -> value of a nested mapping; a list is one value."""
    if not isinstance(section, Mapping):
        return {name: section}
    parts = [flat_values(value, f"{name}.{key}" if name else str(key)) for key, value in section.items()]
    return {key: value for part in parts for key, value in part.items()}


def has_key(values: Mapping[str, Any], name: str) -> bool:
    """Return True if a configuration has a key or a section of this dotted name."""
    return any(key == name or key.startswith(f"{name}.") for key in flat_values(values))


def differences(before: Mapping[str, Any], config: Config) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> (value before, value now) of the keys that would change the results of a resumed run.

    Args:
        before: the configuration of the run so far, from `as_values`.
        config: the configuration to resume it with.
    """
    free = {*_FREE, *(() if _has_cosine(config) else ("num_epochs",))}
    then, now = flat_values(before), flat_values(as_values(config))
    if then:
        then = {key: value for key, value in _ADDED.items() if key in now} | {
            key: [_with_added(step) for step in value] if isinstance(value, list) else value
            for key, value in then.items()
        }
    if config.precision == "auto":  # a resumed run keeps its precision
        free.add("precision")
    keys = [key for key in {**now, **then} if key not in free]
    return {key: (then.get(key), now.get(key)) for key in keys if then.get(key) != now.get(key)}


def _with_added(step: Any) -> Any:
    """Return a transform of a record with the settings that older versions did not have; any other value as it is."""
    if not isinstance(step, Mapping):
        return step
    return {
        name: {**_ADDED_TO_TRANSFORMS.get(name, {}), **settings} if isinstance(settings, Mapping) else settings
        for name, settings in step.items()
    }


def _has_cosine(config: Config) -> bool:
    """Return True if a learning rate depends on the length of the run."""
    optimizers = [config.optimizer, *([config.loss.adversarial.optimizer] if config.loss.adversarial else [])]
    return any(each.lr_scheduler is not None and each.lr_scheduler.type == "Cosine" for each in optimizers)


def what_changed(changed: Mapping[str, tuple[Any, Any]], trained: str) -> str:
    """Return which keys have other values than those that a run was trained with.

    Args:
        changed: key -> (value of the run, value now).
        trained: the run, and what was done, such as "runs/mine/pretrain was finished".
    """
    if len(changed) == 1:
        ((key, (before, now)),) = changed.items()
        return f"{key} is {now}, and {trained} with {before}"
    named = [
        f"{key} {before} (now {now})" if max(len(str(before)), len(str(now))) <= MOST_CHARACTERS else key
        for key, (before, now) in [*changed.items()][:MOST_NAMED]
    ]
    more = [counted(len(changed) - MOST_NAMED, "more key")] if len(changed) > MOST_NAMED else []
    return f"{trained} with other values: {', '.join([*named, *more])}"
