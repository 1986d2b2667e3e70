"""Pretrain an image encoder without labels by inpainting, then transfer its weights, by layer name, to a classifier.

The functions `pretrain`, `classify`, `predict` and `probe` do what the commands of these names do, and return what they
have found. Importing the package imports neither TensorFlow nor Keras: commands check their configuration first.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tfinpaint.system.startup import prepare_process
from tfinpaint.version import __version__

if TYPE_CHECKING:
    from tfinpaint.interface import classify, predict, pretrain, probe

prepare_process()

__all__ = ["__version__", "classify", "predict", "pretrain", "probe"]

_FUNCTIONS = ("classify", "predict", "pretrain", "probe")


def __getattr__(name: str) -> Any:
    """Return a function of the interface, which is imported when it is first used."""
    if name in _FUNCTIONS:
        return getattr(importlib.import_module("tfinpaint.interface"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(ModuleType):
    """The type of this package: `tfinpaint.pretrain` stays the function when the module of that name is imported.

    That module is the command, which `python -m tfinpaint.pretrain` runs.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _FUNCTIONS or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
