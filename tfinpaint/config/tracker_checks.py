"""Check that the packages of the trackers of a configuration are installed."""

from __future__ import annotations

import importlib.util
import sys

from tfinpaint.config.schema import Config, ConfigError


def check_trackers(config: Config) -> None:
    """Raise ConfigError where a tracker is named twice, or its package is not installed."""
    for name in config.trackers:
        if config.trackers.count(name) > 1:
            raise ConfigError(f"trackers names {name} twice")
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"trackers: {name} cannot be imported by {sys.executable}; pip install tfinpaint[{name}], or remove it "
                "from trackers"
            )
